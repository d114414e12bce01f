/**
 * Runs a model one pass at a time: sequences bring tokens, and get logits where they ask.
 * @module
 */
import { KvCache } from "../cache/kv_cache.ts";
import { RecurrentStates } from "../cache/recurrent_states.ts";
import { BudgetError, CancelledError, NativeError, UsageError } from "../errors.ts";
import type { Context, DeviceAllocator, DeviceDescription, Stream } from "../ffi/context.ts";
import { Ops, type WeightExtent } from "../ffi/ops.ts";
import { RotaryTable } from "../layers/rope.ts";
import { residentSet } from "../memory/budget.ts";
import type { Plan } from "../memory/plan.ts";
import type { ModelConfig } from "../models/architecture.ts";
import type { TensorEntry } from "../shard/manifest.ts";
import { openShards, type ShardDirectory } from "../shard/reader.ts";
import { Prefetcher } from "../stream/prefetcher.ts";
import { Transfer } from "../stream/transfer.ts";
import { openEngineDevice, reserveDevice } from "./device_memory.ts";
import { EmbeddingRows } from "./embedding_rows.ts";
import { type ForwardParts, ForwardPass } from "./forward.ts";
import type { EngineOptions, ModelPlan } from "./model_plan.ts";
import { KvWindow } from "./kv_window.ts";
import { keepsStates, kvCacheShape, kvLayers, stateShapes } from "./layer_caches.ts";
import { layOutPass, MOST_TOP_K, type PassItem, type PassLayout } from "./pass_layout.ts";
import { residentMatrix } from "./resident_matrix.ts";
import { Sequence } from "./sequence.ts";
import { loadHostVectors } from "./host_vectors.ts";
import { RoutedExperts } from "./routed_experts.ts";
import { addExperts, type EngineStatistics, noTotals, type PassTotals } from "./statistics.ts";
import { loadVectors } from "./vectors.ts";
import { WeightTape } from "./weight_tape.ts";
import { Workspace } from "./workspace.ts";

export type { DeviceDescription, EngineOptions, EngineStatistics, PassItem, PassTotals };
export { Sequence };

/** Returns the embeddings of positions in the workspace. */
function positionsOf(context: Context, tensor: TensorEntry, workspace: Workspace): WeightExtent {
  return residentMatrix(context.formatId(tensor.format), workspace.vectorAddress(tensor.name), tensor);
}

/** What a pass gives back for one item, in the order its `logits` asked. */
export interface PassOutput {
  /** f32 [rows, vocabSize], valid until the next pass; absent where none were asked for or `argmax` was. */
  logits?: Float32Array<ArrayBuffer>;
  /** i32 [rows], the likeliest next token, the first among equals. */
  argmax?: Int32Array<ArrayBuffer>;
  /** Where so many of the likeliest were asked for. */
  topK?: TopK;
}

/** The likeliest next tokens of rows of a pass. */
export interface TopK {
  /** f32 [rows, k], logits in descending order. */
  values: Float32Array<ArrayBuffer>;
  /** i32 [rows, k], equal ones in ascending order. */
  ids: Int32Array<ArrayBuffer>;
  /** Brings all logits after all, f32 [rows, vocabSize]; until the next pass begins. */
  logits(): Promise<Float32Array<ArrayBuffer>>;
}

/** Options of one pass. */
export interface PassOptions {
  /** Whether another pass follows soon, so that its weights are read ahead; true without it. */
  expectAnother?: boolean;
  /** Stops the pass. */
  signal?: AbortSignal;
}

/** What a pass works with, and what has to be given back at the end. */
interface EngineParts {
  shards: ShardDirectory;
  model: ModelPlan;
  context: Context;
  stream: Stream;
  prefetcher: Prefetcher;
  forward: ForwardParts;
  resources: AsyncDisposableStack;
  loadedBytes: number;
  vramBytes: number;
  openSeconds: number;
}

/** Reserves the KV cache, where the plan has it. */
async function reserveKvCache(
  context: Context,
  memory: DeviceAllocator,
  ops: Ops,
  model: ModelPlan,
  resources: AsyncDisposableStack,
): Promise<{ cache: KvCache; kvWindow: KvWindow | undefined }> {
  const { config, plan, kvCachePages } = model;
  const shape = kvCacheShape(config, model.kvCacheType);
  const isInHostMemory = plan.device !== undefined && model.kvCacheLocation === "ram";
  if (!isInHostMemory) return { cache: resources.use(new KvCache(memory, shape, kvCachePages)), kvWindow: undefined };
  const pool = await context.hostBuffer(KvCache.bytes(shape, kvCachePages));
  const cache = resources.use(new KvCache({ deviceBuffer: () => pool }, shape, kvCachePages));
  const transfer = resources.use(new Transfer(context, ops.stream, memory));
  return { cache, kvWindow: resources.use(new KvWindow(cache, transfer, ops)) };
}

/**
 * A model in memory, as far as its budget reaches, and the rest of it streamed.
 *
 * A pass that fails leaves its sequences as they were before it. After a cancelled pass, or one refused for what it asks, the engine goes on;
 * after a failed read or a failed device every further pass throws.
 */
export class Engine implements AsyncDisposable {
  readonly #parts: EngineParts;
  readonly #sequences = new Set<Sequence>();
  readonly #prefill = noTotals();
  readonly #decode = noTotals();
  #running: Promise<unknown> | undefined;
  #failure: { error: unknown } | undefined;
  #closed = false;

  private constructor(parts: EngineParts) {
    this.#parts = parts;
  }

  /**
   * Opens a model: plans it, reserves all memory it will use, and reads what stays resident.
   *
   * @throws {FormatError} where files are damaged, {UnsupportedError} for an architecture that is not known, {UsageError} for an option that means
   * nothing, {BudgetError} where the budget cannot hold the minimum, {NativeError} where the library is not there, {CancelledError}.
   */
  static async open(shards: ShardDirectory | string, options: EngineOptions = {}): Promise<Engine> {
    const startMs = performance.now();
    const directory = typeof shards === "string" ? await openShards(shards) : shards;
    await using resources = new AsyncDisposableStack();
    // The context comes first so that the plan's baseline counts it.
    const context = resources.use(await openEngineDevice(options));
    const { model, memory, vramBytes } = reserveDevice(context, directory, options, resources);
    const { config, tensors, plan, tape } = model;
    const stream = resources.use(context.stream());
    if (plan.device) stream.setScratch(memory.deviceBuffer(model.scratchBytes));
    const transfer = resources.use(new Transfer(context, stream, memory));
    const workspace = resources.use(await Workspace.reserve(context, memory, config, model.workspace));
    const ops = new Ops(stream);
    const { cache, kvWindow } = await reserveKvCache(context, memory, ops, model, resources);
    const states = keepsStates(config)
      ? resources.use(new RecurrentStates(memory, stateShapes(config), model.maxSequences))
      : undefined;
    const vectorBytes = await loadVectors(directory, model.workspace.vectors, workspace);
    await workspace.uploadVectors(stream);
    const embeddingTensor = directory.tensor(tensors.embeddingName);
    const embedding = resources.use(EmbeddingRows.open(directory.filePaths[embeddingTensor.file], embeddingTensor));
    const { manifest, path } = directory;
    const totalBytes = plan.residentBytes + plan.pinnedBytes;
    const onLoad = (doneBytes: number): void => options.onProgress?.({ phase: "load", doneBytes, totalBytes });
    const prefetcher = resources.use(
      await Prefetcher.open({ path, manifest, tape, plan, transfer, signal: options.signal, onLoad }),
    );
    const { expertTable: table, precision } = model, { passTokens } = plan;
    const experts = table && resources.use(
      await RoutedExperts.open({
        ...{ transfer, ops, shards: directory, config, table, plan: plan.experts!, passTokens, precision },
        residentAddress: (name) => workspace.vectorAddress(name),
      }),
    );
    const forward: ForwardParts = {
      ...model,
      ops,
      workspace,
      experts,
      cache,
      kvWindow,
      kvLayers: kvLayers(config),
      hostVectors: await loadHostVectors(directory, config),
      states,
      weights: new WeightTape(transfer, directory, tape, prefetcher),
      rotary: config.ropes.map((rope) => new RotaryTable(rope)),
      embedding,
      embeddingFormat: context.formatId(embeddingTensor.format),
      positions: config.learnedPositions && positionsOf(context, directory.tensor(tensors.positionsName), workspace),
    };
    return new Engine({
      shards: directory,
      model,
      context,
      stream,
      prefetcher,
      forward,
      resources: resources.move(),
      vramBytes,
      loadedBytes: vectorBytes + plan.residentBytes + plan.pinnedBytes,
      openSeconds: (performance.now() - startMs) / 1000,
    });
  }

  /** The directory the model was opened from. */
  get shards(): ShardDirectory {
    return this.#parts.shards;
  }

  get config(): ModelConfig {
    return this.#parts.model.config;
  }

  /** What is resident, what streams, and what the memory goes to. */
  get plan(): Plan {
    return this.#parts.model.plan;
  }

  /** Most sequences open at a time. */
  get maxSequences(): number {
    return this.#parts.model.maxSequences;
  }

  /** Most rows of logits of one pass. */
  get logitRows(): number {
    return this.#parts.model.logitRows;
  }

  /** Whether asking for a few of the likeliest tokens saves copying all logits. */
  get prefersTopK(): boolean {
    return !this.description.unifiedMemory;
  }

  /** The device that computes. */
  get description(): DeviceDescription {
    return this.#parts.context.description;
  }

  get statistics(): EngineStatistics {
    const prefill = structuredClone(this.#prefill), decode = structuredClone(this.#decode);
    return {
      passes: prefill.passes + decode.passes,
      tokens: prefill.tokens + decode.tokens,
      bytesRead: this.#parts.loadedBytes + this.#streamedBytesRead(),
      openSeconds: this.#parts.openSeconds,
      prefill,
      decode,
      readBytesPerSecond: decode.seconds > 0 ? decode.bytesRead / decode.seconds : 0,
      peakRssBytes: residentSet().peakBytes,
      peakVramBytes: this.#parts.vramBytes,
    };
  }

  #streamedBytesRead(): number {
    const { prefetcher, forward: { embedding, experts } } = this.#parts;
    return prefetcher.statistics.bytesRead + embedding.bytesRead + (experts?.statistics.bytesRead ?? 0);
  }

  /**
   * Opens an empty sequence; dispose of it to give its memory back.
   * @throws {BudgetError} where as many are open as the plan has room for.
   */
  openSequence(): Sequence {
    if (this.#closed) throw new UsageError("Cannot open a sequence: the engine is closed");
    if (this.#sequences.size >= this.maxSequences) {
      throw new BudgetError(
        `Cannot open another sequence: ${this.#sequences.size} are open, the plan has room for ${this.maxSequences}`,
      );
    }
    const { cache, states } = this.#parts.forward;
    const cached = cache.sequence(this.plan.contextTokens);
    const sequence: Sequence = new Sequence(cached, states?.sequence(), () => this.#sequences.delete(sequence));
    this.#sequences.add(sequence);
    return sequence;
  }

  /**
   * Runs the items' tokens through the model in one pass over the weights, adds them to their sequences, and returns what each item asked for.
   *
   * @throws {UsageError} for items that mean nothing, {BudgetError} where they do not fit the plan or a sequence's context, {CancelledError}
   * where the signal says so, and what a read or the device threw.
   */
  async pass(items: readonly PassItem[], options: PassOptions = {}): Promise<PassOutput[]> {
    this.#checkReady(items, options.signal);
    const { config: { vocabSize, blankFilling }, plan: { passTokens } } = this.#parts.model;
    const layout = layOutPass(items, { vocabSize, passTokens, logitRows: this.logitRows, blankFilling });
    const run = this.#run(layout, options);
    this.#running = run.catch(() => {});
    try {
      await run;
    } finally {
      this.#running = undefined;
    }
    return this.#outputs(layout);
  }

  #checkReady(items: readonly PassItem[], signal: AbortSignal | undefined): void {
    if (this.#closed) throw new UsageError("Cannot run a pass: the engine is closed");
    if (this.#failure) {
      const { error } = this.#failure;
      throw new NativeError(`Cannot run a pass: the engine stopped after an error: ${(error as Error).message}`);
    }
    if (this.#running) throw new UsageError("Cannot run a pass: another is under way");
    if (signal?.aborted) throw new CancelledError("Cannot run a pass: it was cancelled", { cause: signal.reason });
    if (items.some(({ sequence }) => !this.#sequences.has(sequence))) {
      throw new UsageError("Cannot run a pass: a sequence is closed or of another engine");
    }
  }

  async #run(layout: PassLayout, options: PassOptions): Promise<void> {
    const sequences = layout.items.map(({ item }) => item.sequence);
    const cached = sequences.map((sequence) => sequence.enterPass());
    const before = cached.map((sequence) => sequence.tokens), states = sequences.flatMap(({ state }) => state ?? []);
    try {
      layout.items.forEach(({ tokens }, index) => cached[index].extend(tokens));
      const forward = new ForwardPass(this.#parts.forward, layout, cached, states, options.signal);
      for (const state of states) state.begin();
      await this.#compute(forward, options);
      states.forEach((state, index) => state.commit(cached[index].tokens));
      layout.items.forEach(({ blank }, index) => sequences[index].blank = blank);
    } catch (error) {
      cached.forEach((sequence, index) => sequence.truncate(before[index]));
      throw error;
    } finally {
      for (const sequence of sequences) sequence.leavePass();
    }
  }

  async #compute(forward: ForwardPass, { expectAnother = true, signal }: PassOptions): Promise<void> {
    const { context, stream, prefetcher, forward: { experts } } = this.#parts;
    const startMs = performance.now(), startBytes = this.#streamedBytesRead(), startExperts = experts?.statistics;
    const cancel = (): void => context.cancel(true);
    signal?.addEventListener("abort", cancel);
    try {
      prefetcher.beginPass({ expectAnother, usedExtents: forward.usedExtents });
      await forward.run();
      await prefetcher.skipRest();
      await stream.synchronize();
      // A signal that came when all was computed has set the device's cancel flag none the less; recovering clears it.
      if (signal?.aborted || this.#closed) throw new CancelledError("Cannot finish the pass: it was cancelled");
      const { stallMs } = prefetcher.endPass({ expectAnother });
      const totals = forward.isDecode ? this.#decode : this.#prefill;
      totals.passes++;
      totals.tokens += forward.tokens;
      totals.seconds += (performance.now() - startMs) / 1000;
      totals.bytesRead += this.#streamedBytesRead() - startBytes;
      totals.stallSeconds += stallMs / 1000;
      if (experts && startExperts) {
        const after = experts.statistics;
        addExperts(totals.experts, startExperts, after);
        totals.stallSeconds += (after.stallMs - startExperts.stallMs) / 1000;
      }
    } catch (error) {
      throw await this.#recover(error, signal);
    } finally {
      signal?.removeEventListener("abort", cancel);
    }
  }

  /** Brings the engine to rest after a pass that failed and returns the error to throw. */
  async #recover(error: unknown, signal: AbortSignal | undefined): Promise<unknown> {
    const { context, stream, prefetcher } = this.#parts;
    const wanted = signal?.aborted || this.#closed;
    try {
      // What is queued is of no use any more, and the reader waits for it.
      context.cancel(true);
      await Promise.all([prefetcher.abortPass(), this.#parts.forward.experts?.abortPass()]);
      await this.#parts.forward.kvWindow?.settle();
      await stream.synchronize().catch(() => {});
      context.cancel(false);
      await stream.synchronize();
    } catch (failure) {
      this.#failure = { error: failure };
      return error;
    }
    if (wanted) return new CancelledError("Cannot finish the pass: it was cancelled", { cause: signal?.reason });
    this.#failure = { error };
    return error;
  }

  #outputs(layout: PassLayout): PassOutput[] {
    const { vocabSize } = this.config;
    const { workspace } = this.#parts.forward;
    return layout.items.map(({ item, firstRow, rows }) => {
      if (rows === 0) return {};
      if (typeof item.output === "object") return { topK: this.#topK(item.output.topK, firstRow, rows) };
      if (item.output === "argmax") return { argmax: workspace.int32("argmax").slice(firstRow, firstRow + rows) };
      return { logits: workspace.float32("logits").subarray(firstRow * vocabSize, (firstRow + rows) * vocabSize) };
    });
  }

  #topK(k: number, firstRow: number, rows: number): TopK {
    const { stream, forward: { workspace, ops } } = this.#parts, { vocabSize } = this.config;
    const first = firstRow * MOST_TOP_K, end = first + rows * k;
    return {
      values: workspace.float32("topValues").slice(first, end),
      ids: workspace.int32("topIds").slice(first, end),
      logits: async () => {
        workspace.download(ops, "logits", firstRow * vocabSize * 4, rows * vocabSize * 4);
        await stream.synchronize();
        return workspace.float32("logits").subarray(firstRow * vocabSize, (firstRow + rows) * vocabSize);
      },
    };
  }

  /** Stops the pass under way, waits for reads and operations, and gives all memory back. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    if (this.#running) {
      this.#parts.context.cancel(true);
      await this.#running;
    }
    await this.#parts.resources.disposeAsync();
  }
}
