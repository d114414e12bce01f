/**
 * One forward pass: embeddings, decoder blocks, and logits where they are asked for.
 * @module
 */
import type { CachedSequence, KvCache } from "../cache/kv_cache.ts";
import { PAGE_TOKENS } from "../cache/kv_cache.ts";
import type { RecurrentStates, SequenceState } from "../cache/recurrent_states.ts";
import { firstVisible, viewKey } from "../cache/view.ts";
import { CancelledError, UsageError } from "../errors.ts";
import type { AttentionInput, Ops, Precision, RecurrentInput, RowGroups, WeightExtent } from "../ffi/ops.ts";
import { norm } from "../layers/norm.ts";
import type { Activations, Pass } from "../layers/pass.ts";
import type { RotaryTable } from "../layers/rope.ts";
import type { Architecture, ModelConfig, ModelTensors } from "../models/architecture.ts";
import { blankPositions } from "./blank_filling.ts";
import type { EmbeddingRows } from "./embedding_rows.ts";
import { viewOf } from "./layer_caches.ts";
import { depthInPass, fillMask, MOST_TOP_K, type PassLayout } from "./pass_layout.ts";
import type { RoutedExperts } from "./routed_experts.ts";
import type { WeightTape } from "./weight_tape.ts";
import type { KvWindow } from "./kv_window.ts";
import type { HostInts, Workspace } from "./workspace.ts";

/** What every pass of an engine works with. */
export interface ForwardParts {
  architecture: Architecture;
  config: ModelConfig;
  tensors: ModelTensors;
  precision: Precision;
  ops: Ops;
  workspace: Workspace;
  cache: KvCache;
  /** The part of the cache that is on the device, where the cache is in host memory and the device has memory of its own. */
  kvWindow: KvWindow | undefined;
  /** Each layer's place in the cache; undefined for a layer that has none. */
  kvLayers: readonly (number | undefined)[];
  /** Vectors that the host computes with, by name. */
  hostVectors: ReadonlyMap<string, Float32Array>;
  /** The states of recurrent layers, if there are any. */
  states: RecurrentStates | undefined;
  weights: WeightTape;
  /** The routed experts, if there are any. */
  experts: RoutedExperts | undefined;
  /** One for each of the config's ropes. */
  rotary: readonly RotaryTable[];
  embedding: EmbeddingRows;
  /** Id of the embedding's weight format. */
  embeddingFormat: number;
  /** The embeddings of positions, if there are any. */
  positions: WeightExtent | undefined;
}

/** A pass under way, as layers see it. */
export class ForwardPass implements Pass {
  readonly config: ModelConfig;
  readonly ops: Ops;
  readonly precision: Precision;
  readonly tokens: number;
  readonly activations: Activations;
  readonly ropes: readonly { cos: bigint; sin: bigint }[];
  readonly #parts: ForwardParts;
  readonly #layout: PassLayout;
  readonly #sequences: readonly CachedSequence[];
  readonly #signal: AbortSignal | undefined;
  readonly #attention: AttentionInput;
  readonly #recurrent: RecurrentInput;
  /** Of each group of layers, where the tokens go in the cache, and the sequences' pages. */
  readonly #slots: readonly HostInts[];
  readonly #pageTables: readonly HostInts[];
  /** Device addresses of the first position that each token sees, by the view's name. */
  readonly #firstVisible = new Map<string, bigint>();

  /** `sequences` are the items' caches, already extended by the pass's tokens; `states` are the items' too, where the model keeps any. */
  constructor(
    parts: ForwardParts,
    layout: PassLayout,
    sequences: readonly CachedSequence[],
    states: readonly SequenceState[],
    signal: AbortSignal | undefined,
  ) {
    const { config, workspace, cache } = parts;
    this.#parts = parts;
    this.#layout = layout;
    this.#sequences = sequences;
    this.#signal = signal;
    this.config = config;
    this.ops = parts.ops;
    this.precision = parts.precision;
    this.tokens = layout.tokens;
    this.activations = workspace.activations;
    const rotary = workspace.fillRotary(layout.tokens);
    this.ropes = rotary.map(({ cos, sin }) => ({ cos: cos.address, sin: sin.address }));
    this.#slots = workspace.fillSlots(layout.tokens);
    // All groups have as many pages of a sequence, given back or not.
    this.#pageTables = workspace.fillPageTables(sequences.reduce((sum, sequence) => sum + sequence.pages(0).length, 0));
    this.#attention = {
      kCache: 0n,
      vCache: 0n,
      cacheType: cache.nativeType,
      sequences: workspace.address("sequences"),
      sequenceCount: layout.items.length,
      pageTable: 0n,
      mask: layout.masked ? workspace.address("mask") : 0n,
      tokens: layout.tokens,
      heads: config.numHeads,
      kvHeads: config.numKvHeads,
      headDim: config.headDim,
      valueDim: config.sharedValueDim ?? config.headDim,
      pageTokens: PAGE_TOKENS,
      contextTokens: Math.max(...sequences.map((sequence) => sequence.tokens)),
      scale: 0,
      precision: parts.precision,
      slopes: config.alibiSlopes && workspace.address("slopes"),
    };
    this.#recurrent = {
      sequences: this.#attention.sequences,
      sequenceCount: layout.items.length,
      stateSlots: workspace.address("stateSlots"),
      slots: parts.states?.slots ?? 0,
      tokens: layout.tokens,
    };
    this.#describe(sequences, rotary);
    this.#describeViews(sequences);
    if (parts.states) this.#describeStates(states);
    if (config.alibiSlopes) workspace.fillFloat32("slopes", config.alibiSlopes.length).set(config.alibiSlopes);
  }

  /** Writes what the device has to know of the pass: where its tokens go in the cache, and their positions. */
  #describe(sequences: readonly CachedSequence[], rotary: ReturnType<Workspace["fillRotary"]>): void {
    const { workspace } = this.#parts;
    const ropes = rotary.map(({ cos, sin }, index) => ({
      ...{ table: this.#parts.rotary[index], positions: this.config.ropes[index].positions, cos: cos.values, sin: sin.values },
    }));
    const { tokens: passTokens, items } = this.#layout;
    const rows = workspace.fillInt32("sequences", items.length * 4);
    const positionRows = workspace.fillInt32("positionRows", this.config.learnedPositions ? passTokens : 0);
    const firstRow = this.config.learnedPositions?.firstRow ?? 0;
    let entries = 0;
    items.forEach(({ item, firstToken, tokens, blank }, index) => {
      const sequence = sequences[index];
      const before = sequence.tokens - tokens;
      rows.set([firstToken, tokens, before, entries], index * 4);
      this.#pageTables.forEach(({ values }, group) => values.set(sequence.pages(group), entries));
      entries += sequence.pages(0).length;
      for (let i = 0; i < tokens; i++) {
        this.#slots.forEach(({ values }, group) => values[firstToken + i] = sequence.slot(group, before + i));
        const place = before + depthInPass(item, i), spanTokens = item.ropeSpanTokens ?? sequence.tokens;
        if (positionRows.length > 0) positionRows[firstToken + i] = place + firstRow;
        const two = blank && blankPositions(blank, place);
        for (const { table, positions, cos, sin } of ropes) {
          table.fill(cos, sin, firstToken + i, positions && two ? two[positions] : place, spanTokens);
        }
      }
    });
    if (this.#layout.masked) fillMask(this.#layout, workspace.fillBytes("mask", passTokens * passTokens));
    workspace.fillInt32("logitRowIds", this.#layout.logitRows.length).set(this.#layout.logitRows);
  }

  /**
   * Writes which states the sequences read and write.
   * @throws {UsageError} for a mask: a state has seen all tokens before, in their order.
   */
  #describeStates(states: readonly SequenceState[]): void {
    this.#checkMasks(0, "its layers keep a state, which takes tokens one after the other");
    this.#parts.workspace.fillInt32("stateSlots", 2 * states.length).set(states.flatMap(({ slots }) => slots));
  }

  get experts(): RoutedExperts | undefined {
    return this.#parts.experts;
  }

  /**
   * Writes the first position that each token sees of each view that is narrower than a sequence.
   * @throws {UsageError} for a mask that cannot be combined with such a view or ALiBi, which count positions and not depths.
   */
  #describeViews(sequences: readonly CachedSequence[]): void {
    const { items, tokens: passTokens } = this.#layout;
    const { contextTokens } = this.#attention;
    for (const { view, address, values } of this.#parts.workspace.fillFirstVisible(passTokens)) {
      const { kind, tokens: viewTokens } = view;
      if (viewTokens >= contextTokens) continue;
      this.#checkMasks(kind === "window" ? viewTokens : 0, `its layers see a ${viewKey(view)}`);
      this.#firstVisible.set(viewKey(view), address);
      items.forEach(({ item, firstToken, tokens }, index) => {
        const before = sequences[index].tokens - tokens;
        for (let i = 0; i < tokens; i++) {
          values[firstToken + i] = firstVisible(view, before + depthInPass(item, i));
        }
      });
    }
    if (this.config.alibiSlopes) this.#checkMasks(0, "its attention counts distances of positions (ALiBi)");
  }

  /** Refuses masks of more than so many tokens. @throws {UsageError} */
  #checkMasks(mostTokens: number, reason: string): void {
    const masked = this.#layout.items.find(({ mask, tokens }) => mask && tokens > mostTokens);
    if (masked) throw new UsageError(`Cannot use a mask of ${masked.tokens} tokens with this model: ${reason}`);
  }

  /** Extents of the tape that the pass uses: without logits not those of the head. */
  get usedExtents(): number | undefined {
    const { weights, tensors } = this.#parts;
    return this.#layout.logitRows.length > 0 ? undefined : weights.extentsBefore(tensors.headName);
  }

  /** Whether every sequence brings one token. */
  get isDecode(): boolean {
    return this.tokens === this.#layout.items.length;
  }

  hostVector(name: string): Float32Array {
    const vector = this.#parts.hostVectors.get(name);
    if (!vector) throw new Error(`Cannot compute with ${name}: it was not read for the host`);
    return vector;
  }

  vector(name: string): bigint {
    return this.#parts.workspace.vectorAddress(name);
  }

  linear(y: bigint, x: bigint, name: string, biasName?: string): Promise<void> {
    this.#checkSignal();
    const bias = biasName === undefined ? 0n : this.vector(biasName);
    return this.#parts.weights.linear(this.ops, y, x, this.tokens, name, bias, this.precision);
  }

  linearGrouped(y: bigint, x: bigint, xStride: number, name: string, groups: Omit<RowGroups, "firstRow">): Promise<void> {
    this.#checkSignal();
    return this.#parts.weights.linearGrouped(this.ops, y, x, xStride, this.tokens, name, groups, this.precision);
  }

  appendKeysValues(layer: number, key: bigint, value: bigint): AttentionInput {
    const { cache, kvWindow, config, kvLayers } = this.#parts;
    const place = kvLayers[layer];
    if (place === undefined) throw new Error(`Cannot append to layer ${layer}: it has no keys and values`);
    const { keys, values } = kvWindow?.enter(place) ?? { keys: cache.keys(place), values: cache.values(place) };
    const { attention } = config.layers[layer], { scale, softcap } = attention, view = viewOf(attention);
    const group = cache.shape.layers[place], { numKvHeads, headDim, valueDim } = cache.group(place);
    const input = {
      ...this.#attention,
      pageTable: this.#pageTables[group].address,
      kvHeads: numKvHeads,
      headDim,
      valueDim,
      kCache: keys,
      vCache: values,
      firstVisible: view && this.#firstVisible.get(viewKey(view)),
      scale,
      softcap,
    };
    this.ops.kvAppend(input, key, value, this.#slots[group].address, this.tokens);
    kvWindow?.appended(place);
    return input;
  }

  recurrentStates(layer: number): { states: readonly bigint[]; input: RecurrentInput } {
    const { states } = this.#parts;
    if (!states) throw new Error(`Cannot use the states of layer ${layer}: the model keeps none`);
    return { states: states.addresses(layer), input: this.#recurrent };
  }

  /** Enqueues the whole pass. When it resolves, all is enqueued and the stream has yet to finish it. */
  async run(): Promise<void> {
    const { architecture, config, weights, kvWindow } = this.#parts;
    weights.rewind();
    kvWindow?.beginPass(this.#sequences, this.#layout.items.map(({ tokens }) => tokens));
    this.experts?.beginPass(this.tokens);
    await this.#embed();
    for (let layer = 0; layer < config.numLayers; layer++) await architecture.block(this, layer);
    this.#checkSignal();
    if (this.#layout.logitRows.length > 0) await this.#logits();
  }

  async #embed(): Promise<void> {
    const { workspace, embedding, embeddingFormat, positions, config } = this.#parts;
    const { rows, bytes } = await embedding.gather(
      this.#layout.ids,
      workspace.fillBytes("embeddingRows", embedding.extentBytes(this.tokens)),
      workspace.fillInt32("embeddingIndexes", this.tokens),
    );
    workspace.upload(this.ops);
    const extent: WeightExtent = {
      format: embeddingFormat,
      address: workspace.address("embeddingRows"),
      bytes: BigInt(bytes),
      rows: BigInt(rows),
      cols: BigInt(config.hiddenSize),
      outliers: 0n,
    };
    const { hidden, normed } = this.activations, { embeddingMultiplier, hiddenSize } = config;
    this.ops.embedding(hidden, extent, workspace.address("embeddingIndexes"), this.tokens);
    if (embeddingMultiplier !== 1) this.ops.scale(hidden, hidden, this.tokens * hiddenSize, embeddingMultiplier);
    if (positions) {
      this.ops.embedding(normed, positions, workspace.address("positionRows"), this.tokens);
      this.ops.add(hidden, normed, this.tokens * hiddenSize);
    }
    if (config.embeddingNorm) norm(this, hidden, hidden, "", config.embeddingNorm);
  }

  /** Norm and head of the rows that were asked for alone; the likeliest token of those that want no more. */
  async #logits(): Promise<void> {
    const { workspace, tensors, config, weights } = this.#parts;
    const { hidden, normed } = this.activations;
    const rows = this.#layout.logitRows.length, logits = workspace.address("logits");
    this.ops.gatherRows(normed, hidden, workspace.address("logitRowIds"), rows, this.tokens, config.hiddenSize);
    norm(this, normed, normed, "", config.finalNorm, rows);
    const bias = config.headBias ? this.vector(tensors.headBiasName) : 0n;
    await weights.linear(this.ops, logits, normed, rows, tensors.headName, bias, this.precision);
    const { logitsMultiplier, logitsSoftcap, vocabSize } = config;
    if (logitsMultiplier !== 1 || logitsSoftcap !== 0) {
      this.ops.scale(logits, logits, rows * vocabSize, logitsMultiplier, logitsSoftcap);
    }
    for (const { item, firstRow, rows } of this.#layout.items) {
      const rowBytes = config.vocabSize * 4;
      if (rows === 0) continue;
      if (typeof item.output === "object") {
        this.#topK(logits, firstRow, rows, item.output.topK);
        continue;
      }
      if (item.output !== "argmax") {
        workspace.download(this.ops, "logits", firstRow * rowBytes, rows * rowBytes);
        continue;
      }
      this.ops.argmax(
        workspace.address("argmax") + BigInt(firstRow * 4),
        logits + BigInt(firstRow * rowBytes),
        rows,
        config.vocabSize,
      );
      workspace.download(this.ops, "argmax", firstRow * 4, rows * 4);
    }
  }

  /** Finds the likeliest tokens of rows of logits and brings them back. */
  #topK(logits: bigint, firstRow: number, rows: number, k: number): void {
    const { workspace, config: { vocabSize } } = this.#parts;
    const offset = firstRow * MOST_TOP_K * 4, at = BigInt(offset), x = logits + BigInt(firstRow * vocabSize * 4);
    this.ops.topK(workspace.address("topValues") + at, workspace.address("topIds") + at, x, rows, vocabSize, k);
    for (const name of ["topValues", "topIds"] as const) workspace.download(this.ops, name, offset, rows * k * 4);
  }

  #checkSignal(): void {
    if (this.#signal?.aborted) {
      throw new CancelledError("Cannot finish the pass: it was cancelled", { cause: this.#signal.reason });
    }
  }
}
