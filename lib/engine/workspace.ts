/**
 * The memory a pass works in besides weights and KV cache, all of it reserved when the engine opens: activations, logits, what the host tells the
 * device about the pass, and the resident vectors.
 * @module
 */
import { KV_CACHE_TYPES } from "../cache/kv_cache.ts";
import type { View } from "../cache/view.ts";
import type { Context, DeviceAllocator, DeviceSpan, HostBuffer, Stream } from "../ffi/context.ts";
import { Ops } from "../ffi/ops.ts";
import { activationBytes, activationWidths, align, ALIGNMENT, ATTENTION_NAMES, placeActivations } from "./activations.ts";
import { kvCacheShape, viewsOf } from "./layer_caches.ts";
import { MOST_TOP_K } from "./pass_layout.ts";
import type { Activations } from "../layers/pass.ts";
import type { ModelConfig } from "../models/architecture.ts";

/** How large a workspace is. */
export interface WorkspaceShape {
  passTokens: number;
  logitRows: number;
  maxSequences: number;
  /** Entries of a group's page table, over all sequences. */
  pageTableEntries: number;
  /** Bytes of one stored embedding row. */
  embeddingRowBytes: number;
  /** 4-byte words of each resident vector and router, by tensor name. */
  vectors: ReadonlyMap<string, number>;
}

/** Returns the elements of a token's cos and sin rows of all ropes. */
function rotaryWidth({ ropes }: ModelConfig): number {
  return ropes.reduce((sum, { dim }) => sum + dim, 0);
}

/** Returns the groups that layers are in by what they keep: each has page numbers of its own. */
function kvGroups(config: ModelConfig): number {
  return kvCacheShape(config, KV_CACHE_TYPES[0]).groups.length;
}

/** Returns each host array's bytes, in the order they are laid out. */
function hostArrayBytes(config: ModelConfig, shape: WorkspaceShape): Record<HostArrayName, number> {
  const tokens = shape.passTokens;
  return {
    embeddingIndexes: tokens * 4,
    positionRows: config.learnedPositions ? tokens * 4 : 0,
    slots: kvGroups(config) * align(tokens * 4),
    rotary: config.ropes.reduce((sum, { dim }) => sum + 2 * align(tokens * dim * 2), 0),
    firstVisible: viewsOf(config).length * align(tokens * 4),
    slopes: (config.alibiSlopes?.length ?? 0) * 4,
    logitRowIds: shape.logitRows * 4,
    argmax: shape.logitRows * 4,
    topValues: shape.logitRows * MOST_TOP_K * 4,
    topIds: shape.logitRows * MOST_TOP_K * 4,
    sequences: shape.maxSequences * 16,
    stateSlots: shape.maxSequences * 8,
    pageTable: kvGroups(config) * shape.pageTableEntries * 4,
    mask: tokens * tokens,
    // An embedding row may be in two sections, each aligned.
    embeddingRows: tokens * shape.embeddingRowBytes + 2 * ALIGNMENT,
    logits: shape.logitRows * config.vocabSize * 4,
  };
}

type HostArrayName =
  | "embeddingIndexes"
  | "positionRows"
  | "slots"
  | "rotary"
  | "firstVisible"
  | "slopes"
  | "logitRowIds"
  | "argmax"
  | "topValues"
  | "topIds"
  | "sequences"
  | "stateSlots"
  | "pageTable"
  | "mask"
  | "embeddingRows"
  | "logits";

/** Bytes as the planner counts them: by token, by row of logits, and once. */
export interface WorkspaceBytes {
  bytesPerToken: number;
  bytesPerLogitRow: number;
  fixedBytes: number;
}

/**
 * Returns the bytes of a workspace's parts: the arrays, which a device with memory of its own has as well as the host; activations and vectors, which
 * are where the device computes; and the widest row that a product reads.
 */
export function workspaceBytes(
  config: ModelConfig,
  shape: WorkspaceShape,
): { arrays: WorkspaceBytes; activationBytesPerToken: number; vectorBytes: number; widestInput: number } {
  const { residual, streams, attention, mlp } = activationWidths(config);
  const sum = (widths: number[]) => widths.reduce((total, width) => total + width, 0);
  const host = hostArrayBytes(config, shape);
  const windows = viewsOf(config).length, groups = kvGroups(config);
  // Each array is aligned: at most the host arrays, the ropes' tables, the windows, the groups' slots, the activations and the two sections of an embedding.
  const aligned = Object.keys(host).length + 3 + ATTENTION_NAMES.length + 2 + 2 * config.ropes.length + windows + groups;
  return {
    arrays: {
      // A smaller pass than asked for needs a mask of fewer columns; counting those asked for keeps the sum linear.
      bytesPerToken: 4 + (config.learnedPositions ? 4 : 0) + rotaryWidth(config) * 4 + (windows + groups) * 4 +
        shape.passTokens + shape.embeddingRowBytes,
      bytesPerLogitRow: config.vocabSize * 4 + 8 + 8 * MOST_TOP_K,
      fixedBytes: host.sequences + host.stateSlots + host.pageTable + host.slopes + aligned * ALIGNMENT,
    },
    activationBytesPerToken: (streams * residual + Math.max(sum(attention), sum(mlp))) * 4,
    vectorBytes: [...shape.vectors.values()].reduce((total, count) => total + align(count * 4), 0),
    widestInput: Math.max(residual, config.intermediateSize, ...attention),
  };
}

/** Part of an array of i32. */
export interface HostInts {
  /** On the device. */
  address: bigint;
  values: Int32Array<ArrayBuffer>;
}

/** Part of an array of f32. */
export interface HostFloats {
  /** On the device. */
  address: bigint;
  values: Float32Array<ArrayBuffer>;
}

/**
 * Activations, logits, pass metadata and vectors.
 *
 * The host writes what it tells the device of a pass into arrays (`fill...`), which `upload` then brings to the device, and reads what comes
 * back after `download`. On a unified device both are the same memory, and nothing is copied.
 */
export class Workspace implements Disposable {
  readonly activations: Activations;
  readonly #host: HostBuffer;
  readonly #device: DeviceSpan;
  /** Device address of the first array. */
  readonly #arrays: bigint;
  readonly #isUnified: boolean;
  readonly #offsets: Record<HostArrayName, number>;
  readonly #sizes: Record<HostArrayName, number>;
  readonly #ropes: ModelConfig["ropes"];
  readonly #views: readonly View[];
  readonly #groups: number;
  readonly #vectorOffsets: ReadonlyMap<string, number>;
  /** Where vectors are read into, at their offsets; the host's memory of them, given back once they are on the device. */
  #vectorSource: HostBuffer | undefined;
  readonly #vectors: bigint;
  /** Bytes of each array that were filled since the last upload. */
  readonly #filled = new Map<HostArrayName, number>();

  private constructor(config: ModelConfig, shape: WorkspaceShape, memory: WorkspaceMemory) {
    const { host, device, vectors, layout, isUnified } = memory;
    this.#host = host;
    this.#device = device;
    this.#isUnified = isUnified;
    this.#offsets = layout.offsets;
    this.#sizes = layout.sizes;
    this.#vectorOffsets = layout.vectorOffsets;
    const activations = device.address;
    this.#arrays = isUnified ? host.address : activations + BigInt(activationBytes(config, shape.passTokens));
    this.#vectors = this.#arrays + BigInt(layout.arrayBytes);
    this.#vectorSource = vectors;
    this.#ropes = config.ropes;
    this.#views = viewsOf(config);
    this.#groups = kvGroups(config);
    this.activations = placeActivations(config, shape.passTokens, activations);
  }

  /**
   * Reserves a workspace, its device part from `allocator`.
   * @throws {NativeError} where there is not enough memory.
   */
  static async reserve(
    context: Context,
    allocator: DeviceAllocator,
    config: ModelConfig,
    shape: WorkspaceShape,
  ): Promise<Workspace> {
    const layout = layOut(config, shape), isUnified = context.description.unifiedMemory;
    const activations = activationBytes(config, shape.passTokens);
    using taken = new DisposableStack();
    const mirrored = layout.arrayBytes + layout.vectorBytes;
    const host = taken.use(await context.hostBuffer(isUnified ? mirrored : layout.arrayBytes));
    // A model whose norms have no weights may have no vectors.
    const hasVectors = !isUnified && layout.vectorBytes > 0;
    const vectors = hasVectors ? taken.use(await context.hostBuffer(layout.vectorBytes)) : undefined;
    const device = taken.use(allocator.deviceBuffer(isUnified ? activations : activations + mirrored));
    const workspace = new Workspace(config, shape, { host, device, vectors, layout, isUnified });
    taken.move();
    return workspace;
  }

  /** Memory taken on the host and on the device, in bytes. */
  get bytes(): number {
    return this.#host.bytes + this.#device.bytes;
  }

  /** Device address of an array. */
  address(name: HostArrayName): bigint {
    return this.#arrays + BigInt(this.#offsets[name]);
  }

  /** Returns the first `bytes` of an array to be filled, all of it without a number; the next `upload` brings them to the device. */
  fillBytes(name: HostArrayName, bytes: number = this.#sizes[name]): Uint8Array<ArrayBuffer> {
    this.#filled.set(name, Math.max(bytes, this.#filled.get(name) ?? 0));
    return this.#host.view(this.#offsets[name], bytes);
  }

  /** As `fillBytes`, the first `count` elements of i32. */
  fillInt32(name: HostArrayName, count: number = this.#sizes[name] / 4): Int32Array<ArrayBuffer> {
    const { buffer, byteOffset } = this.fillBytes(name, count * 4);
    return new Int32Array(buffer, byteOffset, count);
  }

  /** As `fillBytes`, the first `count` elements of f32. */
  fillFloat32(name: HostArrayName, count: number = this.#sizes[name] / 4): Float32Array<ArrayBuffer> {
    const { buffer, byteOffset } = this.fillBytes(name, count * 4);
    return new Float32Array(buffer, byteOffset, count);
  }

  /** Returns the first visible positions of `tokens` tokens to be filled, i32 [tokens], of each of the views that layers have. */
  fillFirstVisible(tokens: number): (HostInts & { view: View })[] {
    const rows = this.#fillRows("firstVisible", this.#views.length, tokens);
    return this.#views.map((view, i) => ({ view, ...rows[i] }));
  }

  /** Returns the cache slots of `tokens` tokens to be filled, i32 [tokens], of each group of layers. */
  fillSlots(tokens: number): HostInts[] {
    return this.#fillRows("slots", this.#groups, tokens);
  }

  /** Returns the page tables of all sequences to be filled, i32 [entries], of each group of layers. */
  fillPageTables(entries: number): HostInts[] {
    const values = this.fillInt32("pageTable", this.#groups * entries), address = this.address("pageTable");
    return Array.from({ length: this.#groups }, (_, i) => ({
      address: address + BigInt(i * entries * 4),
      values: values.subarray(i * entries, (i + 1) * entries),
    }));
  }

  /** Returns `count` arrays of i32 [tokens] of an array that holds them one after the other, each aligned. */
  #fillRows(name: HostArrayName, count: number, tokens: number): HostInts[] {
    const stride = align(tokens * 4) / 4;
    const values = this.fillInt32(name, count * stride), address = this.address(name);
    return Array.from({ length: count }, (_, i) => ({
      address: address + BigInt(i * stride * 4),
      values: values.subarray(i * stride, i * stride + tokens),
    }));
  }

  /** Returns the cos and sin tables of `tokens` tokens to be filled: f32 [tokens, dim / 2], of each of the config's ropes. */
  fillRotary(tokens: number): { cos: HostFloats; sin: HostFloats }[] {
    const floats = this.#ropes.reduce((sum, { dim }) => sum + 2 * align(tokens * dim * 2) / 4, 0);
    const values = this.fillFloat32("rotary", floats), address = this.address("rotary");
    let at = 0;
    const take = (count: number): HostFloats => {
      const taken = { address: address + BigInt(at * 4), values: values.subarray(at, at + count) };
      at += align(count * 4) / 4;
      return taken;
    };
    return this.#ropes.map(({ dim }) => ({ cos: take(tokens * dim / 2), sin: take(tokens * dim / 2) }));
  }

  /** Enqueues bringing what was filled to the device. */
  upload(ops: Ops): void {
    for (const [name, bytes] of this.#filled) {
      if (!this.#isUnified && bytes > 0) ops.copyToDevice(this.address(name), this.#hostAddress(name), bytes);
    }
    this.#filled.clear();
  }

  /** Enqueues bringing bytes of an array back to the host; what is read before the stream has passed that is old. */
  download(ops: Ops, name: HostArrayName, offset: number, bytes: number): void {
    if (this.#isUnified || bytes === 0) return;
    const at = BigInt(offset);
    ops.copyToHost(this.#hostAddress(name) + at, this.address(name) + at, bytes);
  }

  /** What came back of an array of i32. */
  int32(name: HostArrayName): Int32Array<ArrayBuffer> {
    return new Int32Array(this.#host.buffer, this.#offsets[name], this.#sizes[name] / 4);
  }

  /** What came back of an array of f32. */
  float32(name: HostArrayName): Float32Array<ArrayBuffer> {
    return new Float32Array(this.#host.buffer, this.#offsets[name], this.#sizes[name] / 4);
  }

  #hostAddress(name: HostArrayName): bigint {
    return this.#host.address + BigInt(this.#offsets[name]);
  }

  /** Device address of a resident vector. */
  vectorAddress(name: string): bigint {
    return this.#vectors + BigInt(this.#vectorOffset(name));
  }

  /** The bytes of a resident vector, to be filled when the engine opens, before `uploadVectors`. */
  vectorBytes(name: string, count: number): Uint8Array<ArrayBuffer> {
    if (this.#isUnified) return this.#host.view(Number(this.vectorAddress(name) - this.#host.address), count * 4);
    return this.#vectorSource!.view(this.#vectorOffset(name), count * 4);
  }

  /** Brings the vectors to the device and gives the host's memory of them back; nothing on a unified device. */
  async uploadVectors(stream: Stream): Promise<void> {
    const source = this.#vectorSource;
    if (!source) return;
    new Ops(stream).copyToDevice(this.#vectors, source.address, source.bytes);
    await stream.synchronize();
    this.#vectorSource = undefined;
    source[Symbol.dispose]();
  }

  #vectorOffset(name: string): number {
    const offset = this.#vectorOffsets.get(name);
    if (offset === undefined) throw new Error(`Cannot use vector ${name}: the architecture did not declare it`);
    return offset;
  }

  [Symbol.dispose](): void {
    this.#device[Symbol.dispose]();
    this.#vectorSource?.[Symbol.dispose]();
    this.#host[Symbol.dispose]();
  }
}

/** Where arrays and vectors lie. */
interface WorkspaceLayout {
  sizes: Record<HostArrayName, number>;
  offsets: Record<HostArrayName, number>;
  arrayBytes: number;
  /** Relative to the first vector. */
  vectorOffsets: Map<string, number>;
  vectorBytes: number;
}

/** What a workspace is made of. */
interface WorkspaceMemory {
  host: HostBuffer;
  device: DeviceSpan;
  vectors: HostBuffer | undefined;
  layout: WorkspaceLayout;
  isUnified: boolean;
}

function layOut(config: ModelConfig, shape: WorkspaceShape): WorkspaceLayout {
  const sizes = hostArrayBytes(config, shape);
  let arrayBytes = 0, vectorBytes = 0;
  const offsets = Object.fromEntries(
    Object.entries(sizes).map(([name, bytes]) => {
      const offset = arrayBytes;
      arrayBytes += align(bytes);
      return [name, offset];
    }),
  ) as Record<HostArrayName, number>;
  const vectorOffsets = new Map<string, number>();
  for (const [name, count] of shape.vectors) {
    vectorOffsets.set(name, vectorBytes);
    vectorBytes += align(count * 4);
  }
  return { sizes, offsets, arrayBytes, vectorOffsets, vectorBytes };
}
