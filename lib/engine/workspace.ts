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
  /** 4-byte words of each resident vector and router, by tensor name. */
  vectors: ReadonlyMap<string, number>;
}

/** Floats a token of each activation, and which of them share memory: see {@linkcode Activations}. */
function activationWidths(config: ModelConfig): { residual: number; streams: number; attention: number[]; mlp: number[] } {
  const query = config.numHeads * config.headDim, keys = config.numKvHeads * config.headDim;
  return {
    residual: config.hiddenSize,
    // `hidden`, `normed`, and `projected` where it is not `normed`.
    streams: config.layers.some(({ parallel, feedForward }) => parallel || feedForward.kind === "moe") ? 3 : 2,
    attention: [query, keys, keys, query],
    mlp: [config.intermediateSize, config.intermediateSize],
  };
}

/** Returns the device bytes of the activations of `tokens` tokens, but for alignment. */
function activationBytes(config: ModelConfig, tokens: number): number {
  const { residual, streams, attention, mlp } = activationWidths(config);
  const sum = (widths: number[]) => widths.reduce((total, width) => total + align(tokens * width * 4), 0);
  return streams * align(tokens * residual * 4) + Math.max(sum(attention), sum(mlp));
}

/** Returns the elements of a token's cos and sin rows of all ropes. */
function rotaryWidth({ ropes }: ModelConfig): number {
  return ropes.reduce((sum, { dim }) => sum + dim, 0);
}

/** Returns each host array's bytes, in the order they are laid out. */
function hostArrayBytes(config: ModelConfig, shape: WorkspaceShape): Record<HostArrayName, number> {
  const tokens = shape.passTokens;
  return {
    embeddingIndexes: tokens * 4,
    slots: tokens * 4,
    rotary: config.ropes.reduce((sum, { dim }) => sum + 2 * align(tokens * dim * 2), 0),
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
  | "rotary"
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
  const { residual, streams, attention, mlp } = activationWidths(config);
  const sum = (widths: number[]) => widths.reduce((total, width) => total + width, 0);
  const floats = streams * residual + Math.max(sum(attention), sum(mlp));
  const host = hostArrayBytes(config, shape);
  // A smaller pass than asked for needs a mask of fewer columns; counting those asked for keeps the sum linear.
  const hostBytesPerToken = 8 + rotaryWidth(config) * 4 + shape.passTokens + shape.embeddingRowBytes;
  // A product of many tokens keeps its input packed in scratch memory of the library, in float32 at most (cpu/matmul_panels.cpp).
  const widestInput = Math.max(residual, config.numHeads * config.headDim, config.intermediateSize);
  const vectorBytes = [...shape.vectors.values()].reduce((total, count) => total + align(count * 4), 0);
  // Each array is aligned: at most the host arrays, the ropes' tables, 7 activations and the two sections of an embedding.
  const slack = (Object.keys(host).length + 7 + 2 + 2 * config.ropes.length) * ALIGNMENT;
  return {
    bytesPerToken: (floats + widestInput) * 4 + hostBytesPerToken,
    bytesPerLogitRow: config.vocabSize * 4 + 8,
    fixedBytes: vectorBytes + host.sequences + host.pageTable + slack,
  };
}

/** Part of a host array of f32. */
export interface HostFloats {
  /** On the device. */
  address: bigint;
  values: Float32Array<ArrayBuffer>;
}

/** Activations, logits, pass metadata and vectors. Host memory is device memory too on the devices that there are. */
export class Workspace implements Disposable {
  readonly activations: Activations;
  /** cos and sin: f32 [tokens, dim / 2], of each of the config's ropes. */
  readonly ropes: readonly { cos: HostFloats; sin: HostFloats }[];
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
    this.ropes = this.#placeRopes(config, shape.passTokens);
  }

  #placeRopes({ ropes }: ModelConfig, tokens: number): { cos: HostFloats; sin: HostFloats }[] {
    const address = this.address("rotary"), values = this.float32("rotary");
    let at = 0;
    const take = (count: number): HostFloats => {
      const taken = { address: address + BigInt(at * 4), values: values.subarray(at, at + count) };
      at += align(count * 4) / 4;
      return taken;
    };
    return ropes.map(({ dim }) => ({ cos: take(tokens * dim / 2), sin: take(tokens * dim / 2) }));
  }

  #placeActivations(config: ModelConfig, tokens: number): Activations {
    const { residual, streams, attention, mlp } = activationWidths(config);
    const bytes = (width: number) => BigInt(align(tokens * width * 4));
    const hidden = this.#device.address, normed = hidden + bytes(residual);
    const projected = streams === 3 ? normed + bytes(residual) : normed, shared = projected + bytes(residual);
    const query = shared, key = query + bytes(attention[0]), value = key + bytes(attention[1]);
    return {
      hidden,
      normed,
      projected,
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
