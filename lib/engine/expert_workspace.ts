/**
 * The memory that layers with routed experts work in, beside that of all layers: routers' logits, what is sent to which expert, and what experts give.
 * @module
 */
import type { Context, DeviceAllocator, DeviceSpan, HostBuffer } from "../ffi/context.ts";
import type { Ops } from "../ffi/ops.ts";
import type { ExpertActivations } from "../layers/pass.ts";
import type { ModelConfig } from "../models/architecture.ts";
import { expertLayers } from "./expert_table.ts";

const ALIGNMENT = 64;

/** Tokens of a pass for which experts can be computed in any order: what sequences decode at a time, not prompts. */
const REORDERED_TOKENS = 16;

function align(bytes: number): number {
  return Math.ceil(bytes / ALIGNMENT) * ALIGNMENT;
}

/** Sizes that the memory depends on. */
interface ExpertShape {
  hiddenSize: number;
  numExperts: number;
  topK: number;
  /** Whether a dense layer works beside the experts. */
  hasBeside: boolean;
}

function shapeOf(config: ModelConfig): ExpertShape | undefined {
  const layer = expertLayers(config).at(0);
  if (layer === undefined) return undefined;
  const { feedForward } = config.layers[layer];
  if (feedForward.kind !== "moe") return undefined;
  return { hiddenSize: config.hiddenSize, ...feedForward.router, hasBeside: feedForward.beside !== undefined };
}

/** Returns the bytes of each array that host and device both have. */
function sharedBytes({ numExperts, topK }: ExpertShape, tokens: number): Record<SharedArray, number> {
  return {
    logits: tokens * numExperts * 4,
    expectedLogits: tokens * numExperts * 4,
    tokenIds: tokens * topK * 4,
    weights: tokens * topK * 4,
    identity: tokens * 4,
  };
}

type SharedArray = "logits" | "expectedLogits" | "tokenIds" | "weights" | "identity";

function outputRows({ topK }: ExpertShape, tokens: number): number {
  return Math.max(tokens, topK * REORDERED_TOKENS);
}

/** What layers with routed experts take, as the planner counts it: arrays that host and device both have, and activations. */
export interface ExpertWorkspaceBytes {
  arrays: { bytesPerToken: number; fixedBytes: number };
  activations: { bytesPerToken: number; fixedBytes: number };
}

/** Returns the bytes of the memory; none for a model without experts. */
export function expertWorkspaceBytes(config: ModelConfig): ExpertWorkspaceBytes {
  const shape = shapeOf(config);
  if (!shape) return { arrays: { bytesPerToken: 0, fixedBytes: 0 }, activations: { bytesPerToken: 0, fixedBytes: 0 } };
  const arrays = Object.values(sharedBytes(shape, 1));
  const rowBytes = shape.hiddenSize * 4;
  return {
    arrays: { bytesPerToken: arrays.reduce((sum, bytes) => sum + bytes, 0), fixedBytes: arrays.length * ALIGNMENT },
    activations: {
      bytesPerToken: (shape.hasBeside ? 3 : 2) * rowBytes,
      fixedBytes: shape.topK * REORDERED_TOKENS * rowBytes + 3 * ALIGNMENT,
    },
  };
}

/** Arrays that host and device both have, and activations of experts. */
export class ExpertWorkspace implements Disposable {
  readonly activations: ExpertActivations;
  readonly outputRows: number;
  readonly #host: HostBuffer;
  readonly #device: DeviceSpan;
  /** Whether the host's arrays are the device's too. */
  readonly #unified: boolean;
  readonly #offsets: Record<SharedArray, number>;

  private constructor(allocator: DeviceAllocator, unified: boolean, shape: ExpertShape, tokens: number, host: HostBuffer) {
    this.#host = host;
    this.#unified = unified;
    this.outputRows = outputRows(shape, tokens);
    let end = 0;
    const place = (bytes: number): number => (end += align(bytes)) - align(bytes);
    this.#offsets = Object.fromEntries(
      Object.entries(sharedBytes(shape, tokens)).map(([name, bytes]) => [name, place(bytes)]),
    ) as Record<SharedArray, number>;
    if (this.#unified) end = 0;
    const rowBytes = shape.hiddenSize * 4;
    const gathered = place(tokens * rowBytes), outputs = place(this.outputRows * rowBytes);
    const besideOutput = place(shape.hasBeside ? tokens * rowBytes : 0);
    this.#device = allocator.deviceBuffer(end);
    const base = this.#unified ? host.address : this.#device.address;
    const shared = (name: SharedArray): bigint => base + BigInt(this.#offsets[name]);
    this.activations = {
      logits: shared("logits"),
      expectedLogits: shared("expectedLogits"),
      tokenIds: shared("tokenIds"),
      weights: shared("weights"),
      identity: shared("identity"),
      gathered: this.#device.address + BigInt(gathered),
      outputs: this.#device.address + BigInt(outputs),
      besideOutput: this.#device.address + BigInt(besideOutput),
    };
  }

  /**
   * Reserves the memory for passes of up to `tokens` tokens, its device part from `allocator`.
   * @throws {NativeError} where there is not enough memory.
   */
  static async reserve(
    context: Context,
    allocator: DeviceAllocator,
    ops: Ops,
    config: ModelConfig,
    tokens: number,
  ): Promise<ExpertWorkspace> {
    const shape = shapeOf(config);
    if (!shape) throw new Error("Cannot reserve memory for experts: the model has none");
    const bytes = Object.values(sharedBytes(shape, tokens)).reduce((sum, array) => sum + align(array), 0);
    const host = await context.hostBuffer(bytes);
    try {
      const workspace = new ExpertWorkspace(allocator, context.description.unifiedMemory, shape, tokens, host);
      workspace.int32("identity", tokens).forEach((_, i, identity) => identity[i] = i);
      workspace.toDevice(ops, "identity", tokens);
      return workspace;
    } catch (error) {
      host[Symbol.dispose]();
      throw error;
    }
  }

  /** Returns the first elements of an array on the host. */
  int32(name: "tokenIds" | "identity", count: number): Int32Array<ArrayBuffer> {
    return new Int32Array(this.#host.buffer, this.#offsets[name], count);
  }

  /** Returns the first elements of an array on the host. */
  float32(name: "logits" | "expectedLogits" | "weights", count: number): Float32Array<ArrayBuffer> {
    return new Float32Array(this.#host.buffer, this.#offsets[name], count);
  }

  /** Enqueues bringing the first elements of an array to the device. */
  toDevice(ops: Ops, name: SharedArray, count: number): void {
    if (!this.#unified) ops.copyToDevice(this.activations[name], this.#hostAddress(name), count * 4);
  }

  /** Enqueues bringing the first elements of an array to the host. */
  toHost(ops: Ops, name: SharedArray, count: number): void {
    if (!this.#unified) ops.copyToHost(this.#hostAddress(name), this.activations[name], count * 4);
  }

  #hostAddress(name: SharedArray): bigint {
    return this.#host.address + BigInt(this.#offsets[name]);
  }

  [Symbol.dispose](): void {
    this.#device[Symbol.dispose]();
    this.#host[Symbol.dispose]();
  }
}
