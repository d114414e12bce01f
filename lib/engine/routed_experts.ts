/**
 * The routed experts of a model as its passes use them: routers that are always in memory, and experts that come when tokens are routed to them.
 * @module
 */
import { closeSync, openSync } from "node:fs";
import type { Event } from "../ffi/context.ts";
import type { Ops, Precision, WeightExtent } from "../ffi/ops.ts";
import { type ExpertActivations, layerPrefix, type PassExperts } from "../layers/pass.ts";
import type { ExpertTokens, Routing } from "../layers/router.ts";
import type { ExpertPlan, ExpertTable, TapeExtent } from "../memory/plan.ts";
import type { ModelConfig } from "../models/architecture.ts";
import type { ShardDirectory } from "../shard/reader.ts";
import { ExpertCache, type ExpertStatistics } from "../stream/expert_cache.ts";
import type { Transfer } from "../stream/transfer.ts";
import { expertLayers } from "./expert_table.ts";
import { ExpertWorkspace } from "./expert_workspace.ts";
import { readWhole } from "./positional_reads.ts";
import { residentMatrix } from "./resident_matrix.ts";

function correctionName(layer: number): string {
  return `${layerPrefix(layer)}mlp.gate.e_score_correction_bias`;
}

/** What {@linkcode RoutedExperts} works with. */
export interface RoutedExpertsOptions {
  transfer: Transfer;
  ops: Ops;
  shards: ShardDirectory;
  config: ModelConfig;
  table: ExpertTable;
  plan: ExpertPlan;
  /** Most tokens of a pass. */
  passTokens: number;
  precision: Precision;
  /** Returns the device address of a resident tensor. */
  residentAddress(name: string): bigint;
}

interface RoutedExpertsParts extends RoutedExpertsOptions {
  cache: ExpertCache;
  workspace: ExpertWorkspace;
  /** The score corrections by tensor name: f32 [numExperts] each. */
  corrections: ReadonlyMap<string, Float32Array>;
}

/** Reads what the host adds to scores when it chooses experts. */
async function loadCorrections(shards: ShardDirectory, config: ModelConfig): Promise<Map<string, Float32Array>> {
  const corrections = new Map<string, Float32Array>();
  for (const layer of expertLayers(config)) {
    const { feedForward } = config.layers[layer];
    if (feedForward.kind !== "moe" || !feedForward.correctionBias) continue;
    const name = correctionName(layer);
    const { file, extents: [extent] } = shards.tensor(name);
    const values = new Float32Array(feedForward.router.numExperts);
    const descriptor = openSync(shards.filePaths[file], "r");
    try {
      await readWhole(descriptor, shards.filePaths[file], new Uint8Array(values.buffer), extent.offset);
    } finally {
      closeSync(descriptor);
    }
    corrections.set(name, values);
  }
  return corrections;
}

/** The routed experts of a model. A pass begins with `beginPass`; its layers come in order. */
export class RoutedExperts implements PassExperts, AsyncDisposable {
  readonly activations: ExpertActivations;
  readonly outputRows: number;
  readonly #parts: RoutedExpertsParts;
  readonly #formats: number[];
  /** Position of each layer among those with experts. */
  readonly #places: Map<number, number>;
  readonly #logitsSent: Event;
  #tokens = 0;
  #expectedSent = false;
  #place = 0;
  /** Experts of the layer still to be computed, and the extents of the first still to be used. */
  #order: number[] = [];
  #extents: readonly TapeExtent[] = [];
  #used = 0;

  private constructor(parts: RoutedExpertsParts) {
    const { workspace, shards, transfer: { context }, config } = parts;
    this.#parts = parts;
    this.activations = workspace.activations;
    this.outputRows = workspace.outputRows;
    this.#formats = shards.manifest.tensors.map(({ format }) => context.formatId(format));
    this.#places = new Map(expertLayers(config).map((layer, place) => [layer, place]));
    this.#logitsSent = context.event();
  }

  /**
   * Reserves the memory of a plan. No expert is read before it is used.
   * @throws {FormatError} where a file ends too early, {NativeError} where there is not enough memory.
   */
  static async open(options: RoutedExpertsOptions): Promise<RoutedExperts> {
    const { shards, config, transfer, table, plan, ops, passTokens } = options;
    await using resources = new AsyncDisposableStack();
    const corrections = await loadCorrections(shards, config);
    const { filePaths: paths, manifest } = shards;
    const cache = resources.use(
      await ExpertCache.open({
        paths,
        manifest,
        table,
        slots: plan.slots,
        stagingBytes: plan.stagingBytes,
        hostSlots: plan.hostSlots,
        transfer,
      }),
    );
    const workspace = resources.use(await ExpertWorkspace.reserve(transfer.context, transfer.memory, ops, config, passTokens));
    const experts = new RoutedExperts({ ...options, cache, workspace, corrections });
    resources.move();
    return experts;
  }

  /** What routing has cost since open. */
  get statistics(): ExpertStatistics {
    return this.#parts.cache.statistics;
  }

  /** Gives up the pass under way, as {@linkcode ExpertCache.abortPass}. */
  async abortPass(): Promise<void> {
    await this.#parts.cache.abortPass();
  }

  get readsAhead(): boolean {
    return this.#parts.cache.readsAhead;
  }

  /** Begins a pass of so many tokens. */
  beginPass(tokens: number): void {
    this.#tokens = tokens;
    this.#order = [];
  }

  router(y: bigint, x: bigint, name: string, biasName?: string): void {
    const { ops, shards, residentAddress } = this.#parts;
    const tensor = shards.tensorIndex(name);
    const { rows, cols } = shards.manifest.tensors[tensor];
    const weight = residentMatrix(this.#formats[tensor], residentAddress(name), shards.manifest.tensors[tensor]);
    const bias = biasName === undefined ? 0n : residentAddress(biasName);
    ops.matmul(y, rows, x, cols, this.#tokens, weight, bias, false, "exact");
  }

  correction(layer: number): Float32Array {
    const correction = this.#parts.corrections.get(correctionName(layer));
    if (!correction) throw new Error(`Cannot correct the scores of layer ${layer}: the architecture did not declare how`);
    return correction;
  }

  sendLogits(expected: boolean): void {
    const { workspace, ops, transfer, table } = this.#parts;
    const count = this.#tokens * table.numExperts;
    workspace.toHost(ops, "logits", count);
    if (expected) workspace.toHost(ops, "expectedLogits", count);
    this.#expectedSent = expected;
    this.#logitsSent.record(transfer.computing);
  }

  async receiveLogits(): Promise<{ logits: Float32Array; expected: Float32Array }> {
    const { workspace, table } = this.#parts;
    if (!this.#logitsSent.query()) await this.#logitsSent.synchronize();
    const count = this.#tokens * table.numExperts;
    return {
      logits: workspace.float32("logits", count),
      expected: workspace.float32("expectedLogits", this.#expectedSent ? count : 0),
    };
  }

  begin(layer: number, uses: readonly ExpertTokens[], { weights }: Routing, reorder: boolean): number[] {
    const { workspace, cache, ops, table: { topK } } = this.#parts;
    if (this.#order.length > 0) {
      throw new Error(`Cannot begin the experts of layer ${layer}: expert ${this.#order[0]} is not done`);
    }
    const count = weights.length;
    const ids = workspace.int32("tokenIds", count), factors = workspace.float32("weights", count);
    let at = 0;
    for (const { entries } of uses) {
      for (const entry of entries) {
        ids[at] = Math.floor(entry / topK);
        factors[at++] = weights[entry];
      }
    }
    workspace.toDevice(ops, "tokenIds", count);
    workspace.toDevice(ops, "weights", count);
    this.#place = this.#places.get(layer)!;
    const tokens = uses.map(({ expert, entries }) => ({ expert, tokens: entries.length }));
    this.#order = cache.beginLayer(this.#place, tokens, this.#tokens, reorder);
    this.#nextExpert();
    return [...this.#order];
  }

  #nextExpert(): void {
    const { numExperts, experts } = this.#parts.table;
    this.#used = 0;
    this.#extents = this.#order.length > 0 ? experts[this.#place * numExperts + this.#order[0]] : [];
  }

  expect(layer: number, experts: readonly number[]): void {
    this.#parts.cache.expect(this.#places.get(layer)!, experts);
  }

  async linear(y: bigint, x: bigint, rows: number, name: string, biasName?: string): Promise<void> {
    const { ops, shards, cache, precision, residentAddress } = this.#parts;
    const tensor = shards.tensorIndex(name);
    const entry = shards.manifest.tensors[tensor];
    const bias = biasName === undefined ? 0n : residentAddress(biasName);
    for (let row = 0; row < entry.rows;) {
      const next = this.#extents[this.#used];
      if (next?.tensor !== tensor) {
        throw new Error(`Cannot use ${name}: matrices of experts must be used in the order that was agreed`);
      }
      const extent = entry.extents[next.extent];
      const address = cache.acquire(this.#place, this.#order[0], this.#used);
      const weight: WeightExtent = {
        format: this.#formats[tensor],
        address: typeof address === "bigint" ? address : await address,
        bytes: BigInt(extent.bytes),
        rows: BigInt(extent.rows),
        cols: BigInt(entry.cols),
        outliers: BigInt(extent.outliers),
      };
      const offset = BigInt(row * 4);
      ops.matmul(y + offset, entry.rows, x, entry.cols, rows, weight, bias && bias + offset, row > 0, precision);
      cache.release();
      row += extent.rows;
      if (++this.#used < this.#extents.length) continue;
      this.#order.shift();
      this.#nextExpert();
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#parts.cache[Symbol.asyncDispose]();
    this.#logitsSent[Symbol.dispose]();
    this.#parts.workspace[Symbol.dispose]();
  }
}
