/**
 * The memory a pass works in besides weights and KV cache, all of it reserved when the engine opens: activations, logits, what the host tells the
 * device about the pass, and the resident vectors.
 * @module
 */
import type { Context, DeviceBuffer, HostBuffer } from "../ffi/context.ts";
import type { Activations } from "../layers/pass.ts";
import type { ModelConfig } from "../models/architecture.ts";

const ALIGNMENT = 64;

function align(bytes: number): number {
  return Math.ceil(bytes / ALIGNMENT) * ALIGNMENT;
}

/** How large a workspace is. */
export interface WorkspaceShape {
  passTokens: number;
  logitRows: number;
  maxSequences: number;
  /** Entries of the page table, over all sequences. */
  pageTableEntries: number;
  /** Bytes of one stored embedding row. */
  embeddingRowBytes: number;
  /** Elements of each resident vector, by tensor name. */
  vectors: ReadonlyMap<string, number>;
}

/** Floats a token of each activation. `projected` shares memory with `normed`, and the MLP's with the attention's: see {@linkcode Activations}. */
function activationWidths(config: ModelConfig): { residual: number; attention: number[]; mlp: number[] } {
  const query = config.numHeads * config.headDim, keys = config.numKvHeads * config.headDim;
  return {
    residual: config.hiddenSize,
    attention: [query, keys, keys, query],
    mlp: [config.intermediateSize, config.intermediateSize],
  };
}

/** Returns the device bytes of the activations of `tokens` tokens, but for alignment. */
function activationBytes(config: ModelConfig, tokens: number): number {
  const { residual, attention, mlp } = activationWidths(config);
  const sum = (widths: number[]) => widths.reduce((total, width) => total + align(tokens * width * 4), 0);
  return 2 * align(tokens * residual * 4) + Math.max(sum(attention), sum(mlp));
}

/** Returns each host array's bytes, in the order they are laid out. */
function hostArrayBytes(config: ModelConfig, shape: WorkspaceShape): Record<HostArrayName, number> {
  const tokens = shape.passTokens;
  return {
    embeddingIndexes: tokens * 4,
    slots: tokens * 4,
    cos: tokens * config.headDim * 2,
    sin: tokens * config.headDim * 2,
    logitRowIds: shape.logitRows * 4,
    argmax: shape.logitRows * 4,
    sequences: shape.maxSequences * 16,
    pageTable: shape.pageTableEntries * 4,
    mask: tokens * tokens,
    // An embedding row may be in two sections, each aligned.
    embeddingRows: tokens * shape.embeddingRowBytes + 2 * ALIGNMENT,
    logits: shape.logitRows * config.vocabSize * 4,
  };
}

type HostArrayName =
  | "embeddingIndexes"
  | "slots"
  | "cos"
  | "sin"
  | "logitRowIds"
  | "argmax"
  | "sequences"
  | "pageTable"
  | "mask"
  | "embeddingRows"
  | "logits";

/** Returns the bytes of a workspace as the planner counts them: by token, by row of logits, and once. */
export function workspaceBytes(
  config: ModelConfig,
  shape: WorkspaceShape,
): { bytesPerToken: number; bytesPerLogitRow: number; fixedBytes: number } {
  const { residual, attention, mlp } = activationWidths(config);
  const sum = (widths: number[]) => widths.reduce((total, width) => total + width, 0);
  const floats = 2 * residual + Math.max(sum(attention), sum(mlp));
  const host = hostArrayBytes(config, shape);
  // A smaller pass than asked for needs a mask of fewer columns; counting those asked for keeps the sum linear.
  const hostBytesPerToken = 8 + config.headDim * 4 + shape.passTokens + shape.embeddingRowBytes;
  // A product of many tokens keeps its input packed in scratch memory of the library, in float32 at most (cpu/matmul_panels.cpp).
  const widestInput = Math.max(residual, config.numHeads * config.headDim, config.intermediateSize);
  const vectorBytes = [...shape.vectors.values()].reduce((total, count) => total + align(count * 4), 0);
  // Each array is aligned: at most the host arrays, 6 activations and the two sections of an embedding.
  const slack = (Object.keys(host).length + 6 + 2) * ALIGNMENT;
  return {
    bytesPerToken: (floats + widestInput) * 4 + hostBytesPerToken,
    bytesPerLogitRow: config.vocabSize * 4 + 8,
    fixedBytes: vectorBytes + host.sequences + host.pageTable + slack,
  };
}

/** Activations, logits, pass metadata and vectors. Host memory is device memory too on the devices that there are. */
export class Workspace implements Disposable {
  readonly activations: Activations;
  readonly #host: HostBuffer;
  readonly #device: DeviceBuffer;
  readonly #offsets: Record<HostArrayName, number>;
  readonly #sizes: Record<HostArrayName, number>;
  readonly #vectorOffsets = new Map<string, number>();

  constructor(context: Context, config: ModelConfig, shape: WorkspaceShape) {
    let hostBytes = 0;
    const place = (bytes: number): number => {
      const offset = hostBytes;
      hostBytes += align(bytes);
      return offset;
    };
    this.#sizes = hostArrayBytes(config, shape);
    this.#offsets = Object.fromEntries(
      Object.entries(this.#sizes).map(([name, bytes]) => [name, place(bytes)]),
    ) as Record<HostArrayName, number>;
    for (const [name, count] of shape.vectors) this.#vectorOffsets.set(name, place(count * 4));
    this.#host = context.hostBuffer(hostBytes);
    try {
      this.#device = context.deviceBuffer(activationBytes(config, shape.passTokens));
    } catch (error) {
      this.#host[Symbol.dispose]();
      throw error;
    }
    this.activations = this.#placeActivations(config, shape.passTokens);
  }

  #placeActivations(config: ModelConfig, tokens: number): Activations {
    const { residual, attention, mlp } = activationWidths(config);
    const bytes = (width: number) => BigInt(align(tokens * width * 4));
    const hidden = this.#device.address, normed = hidden + bytes(residual), shared = normed + bytes(residual);
    const query = shared, key = query + bytes(attention[0]), value = key + bytes(attention[1]);
    return {
      hidden,
      normed,
      projected: normed,
      query,
      key,
      value,
      attended: value + bytes(attention[2]),
      gate: shared,
      up: shared + bytes(mlp[0]),
    };
  }

  /** Memory taken, in bytes. */
  get bytes(): number {
    return this.#host.bytes + this.#device.bytes;
  }

  /** Device address of an array. */
  address(name: HostArrayName): bigint {
    return this.#host.address + BigInt(this.#offsets[name]);
  }

  /** The bytes of an array. */
  bytesOf(name: HostArrayName): Uint8Array<ArrayBuffer> {
    return this.#host.view(this.#offsets[name], this.#sizes[name]);
  }

  /** An array of i32. */
  int32(name: HostArrayName): Int32Array<ArrayBuffer> {
    return new Int32Array(this.#host.buffer, this.#offsets[name], this.#sizes[name] / 4);
  }

  /** An array of f32. */
  float32(name: HostArrayName): Float32Array<ArrayBuffer> {
    return new Float32Array(this.#host.buffer, this.#offsets[name], this.#sizes[name] / 4);
  }

  /** Device address of a resident vector. */
  vectorAddress(name: string): bigint {
    return this.#host.address + BigInt(this.#vectorOffset(name));
  }

  /** The bytes of a resident vector, to be filled when the engine opens. */
  vectorBytes(name: string, count: number): Uint8Array<ArrayBuffer> {
    return this.#host.view(this.#vectorOffset(name), count * 4);
  }

  #vectorOffset(name: string): number {
    const offset = this.#vectorOffsets.get(name);
    if (offset === undefined) throw new Error(`Cannot use vector ${name}: the architecture did not declare it`);
    return offset;
  }

  [Symbol.dispose](): void {
    this.#device[Symbol.dispose]();
    this.#host[Symbol.dispose]();
  }
}
