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
  kvBytesPerToken: number;
  /** Tokens of context a sequence, and sequences at a time. */
  contextTokens: number;
  maxSequences: number;
  /** Whether the planner may lower contextTokens to fit (the user named none). */
  contextIsFlexible: boolean;
  activationBytesPerToken: number;
  logitsBytesPerRow: number;
  logitRows: number;
  /** Most tokens of one pass that are of use; the plan may hold fewer. */
  passTokens: number;
}

/** A placement of the weights and a division of the memory. */
export interface Plan {
  /** For each extent of the tape, whether it stays in memory. */
  resident: readonly boolean[];
  residentBytes: number;
  streamedBytesPerPass: number;
  /** Ring that streamed extents are read into; 0 where nothing streams. */
  slotBytes: number;
  kvCacheBytes: number;
  contextTokens: number;
  passTokens: number;
  activationBytes: number;
  vectorBytes: number;
  baselineBytes: number;
  /** Sum of all of the above that is memory: at most ramBytes. */
  totalBytes: number;
}
