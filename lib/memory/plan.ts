/**
 * What the planner decides. Types only.
 * @module
 */

/** One extent of the tape: the weights of one pass in their order of use. */
export interface TapeExtent {
  /** Index into the manifest's tensors. */
  tensor: number;
  /** Index into that tensor's extents. */
  extent: number;
  /** Bytes it takes on disk and in memory, a multiple of the extent alignment. */
  paddedBytes: number;
}

/** The routed experts of a model, which are read when a token is routed to them. */
export interface ExpertTable {
  /** Layers that have experts. */
  numLayers: number;
  /** Experts of each of them. */
  numExperts: number;
  /** Experts that a token uses in a layer. */
  topK: number;
  /** Extents of each expert in their order of use, by layer * numExperts + expert. */
  experts: readonly (readonly TapeExtent[])[];
}

/** Keys and values of some layers. */
export interface KvDemand {
  /** Bytes of a token of a sequence. */
  bytesPerToken: number;
  /** Most tokens of a sequence that are kept, where its layers see no more; absent where all are. */
  mostTokens?: number;
}

/** Sizes and budgets the plan is made from; all in bytes unless named otherwise. */
export interface PlanRequest {
  /** Budget of the whole process; undefined where the machine's free memory is the limit. */
  ramBytes: number | undefined;
  /** Largest resident set the process can grow to on this machine; a larger budget is cut to it. */
  machineBytes: number;
  /** What the process takes without any of the below: its resident set now plus room for the runtime to grow. */
  baselineBytes: number;
  tape: readonly TapeExtent[];
  /** Norms, biases and whatever else is always resident. */
  vectorBytes: number;
  kv: readonly KvDemand[];
  /** States that recurrent layers keep of all sequences, whatever their length. */
  stateBytes: number;
  /** Tokens of context a sequence, and sequences at a time. */
  contextTokens: number;
  maxSequences: number;
  /** Whether the planner may lower contextTokens to fit (the user named none). */
  contextIsFlexible: boolean;
  /** Activations, and the scratch memory that operations take for a token of the pass. */
  activationBytesPerToken: number;
  logitsBytesPerRow: number;
  logitRows: number;
  /** Most tokens of one pass that are of use; the plan may hold fewer. */
  passTokens: number;
  /** Whether the plan must hold as many: a prompt cannot be divided among passes. */
  passIsWhole?: boolean;
  /**
   * A device with memory of its own, which then is what holds weights, and of what is above by vector, token and row the host only has its
   * side. Undefined where the device computes from host memory.
   */
  device?: DeviceRequest;
}

/** What a device with memory of its own takes and has; all in bytes. */
export interface DeviceRequest {
  /** Budget of device memory; undefined where what is free is the limit. */
  vramBytes: number | undefined;
  /** Device memory that can be had; a larger budget is cut to it. */
  freeBytes: number;
  /** Norms, biases and whatever else is always resident. */
  vectorBytes: number;
  /** What operations keep between their kernels, and alignment. */
  scratchBytes: number;
  /** Of all layers where the cache is in device memory, of those that are there at a time where it is in host memory. */
  kv: readonly KvDemand[];
  /** States of recurrent layers, which are where the device computes. */
  stateBytes: number;
  activationBytesPerToken: number;
  logitsBytesPerRow: number;
}

/** What a plan takes of a device with memory of its own, beside resident weights and slots; all in bytes. */
export interface DevicePlan {
  /** Norms, biases and whatever else is always resident. */
  vectorBytes: number;
  /** What operations keep between their kernels, and alignment. */
  scratchBytes: number;
  /** Keys and values: of all layers, or of those at work where the cache is in host memory. */
  kvCacheBytes: number;
  /** States of recurrent layers. */
  stateBytes: number;
  /** Activations, logits, and what describes a pass to the device. */
  activationBytes: number;
  /** Sum of all that is device memory: at most the budget. */
  totalBytes: number;
}

/** What a plan gives to the routed experts. */
export interface ExpertPlan {
  /** Extents that fit into memory. */
  slots: number;
  /** Memory for them, where the device computes from. */
  cacheBytes: number;
  /** Host memory for extents on their way to a device with memory of its own; 0 on a unified device. */
  stagingBytes: number;
  /** Extents that stay in host memory beside a device with memory of its own; else 0. */
  hostSlots: number;
  /** Host memory for them. */
  hostBytes: number;
  /** All experts. */
  totalBytes: number;
  /** The experts that one token uses. */
  activeBytesPerToken: number;
  /** Share of those that is taken to be in memory already when they are used: in the memory that the device computes from. */
  assumedHitRate: number;
  /** Share of them that is taken to come from host memory; what is in neither is read from disk. */
  assumedCopyRate: number;
}

/** A placement of the weights and a division of the memory. */
export interface Plan {
  /** For each extent of the tape, whether it stays in the memory that the device computes from. */
  resident: readonly boolean[];
  /** Weights that stay there, but for norms and biases. */
  residentBytes: number;
  /** For each extent, whether it stays in host memory and is copied to the device in every pass; none on a unified device. */
  pinned: readonly boolean[];
  /** Weights that do. */
  pinnedBytes: number;
  /** Weights read from disk in every pass. */
  streamedBytesPerPass: number;
  /** Slots in host memory that extents are read into: those that stream, and on a device with memory of its own all others on their way there. */
  slotBytes: number;
  /** Slots in device memory that extents are copied into; 0 on a unified device. */
  deviceSlotBytes: number;
  /** Keys and values of all sequences in host memory; on a device with memory of its own mostly 0, see `device`. */
  kvCacheBytes: number;
  /** States of recurrent layers of all sequences; on a device with memory of its own 0, see `device`. */
  stateBytes: number;
  /** Tokens a sequence may hold. */
  contextTokens: number;
  /** Most tokens of one pass. */
  passTokens: number;
  /** Activations, logits, and what describes a pass to the device. */
  activationBytes: number;
  /** Norms, biases and whatever else is always resident. */
  vectorBytes: number;
  /** What the process took before, with room for its runtime to grow. */
  baselineBytes: number;
  /** The routed experts, which are in none of the figures above; absent of a model that has none. */
  experts?: ExpertPlan;
  /** Sum of all of the above that is host memory: at most ramBytes. */
  totalBytes: number;
  /** Undefined where the device computes from host memory. */
  device?: DevicePlan;
}
