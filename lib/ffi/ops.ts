/**
 * Operations on device tensors, enqueued on one stream. Shapes are as in cuda/airkern.h: row-major float32 unless said otherwise.
 * Every tensor is given by its device address.
 * @module
 */
import type { Stream } from "./context.ts";
import {
  type Activation,
  ACTIVATIONS,
  type AttentionInput,
  type DeltaRuleInput,
  type LayerCache,
  type Precision,
  type RecurrentInput,
  type RopeLayout,
  type RowGroups,
  type WeightExtent,
  type XieluParameters,
} from "./op_types.ts";

export type {
  Activation,
  AttentionInput,
  DeltaRuleInput,
  LayerCache,
  Precision,
  RecurrentInput,
  RopeLayout,
  RowGroups,
  WeightExtent,
  XieluParameters,
};

/** Enqueues operations on a stream. None of them waits. */
export class Ops {
  readonly #stream: Stream;
  constructor(stream: Stream) {
    this.#stream = stream;
  }

  /** The stream that operations are enqueued on. */
  get stream(): Stream {
    return this.#stream;
  }

  #check(status: number, op: string): void {
    if (status !== 0) this.#stream.context.check(status, `run ${op}`);
  }

  get #symbols(): Stream["context"]["library"]["symbols"] {
    return this.#stream.context.library.symbols;
  }

  /** y: [tokens, cols] = rows ids[t] of the weight; ids: [tokens] i32. */
  embedding(y: bigint, weight: WeightExtent, ids: bigint, tokens: number): void {
    const { format, address, bytes, rows, cols, outliers } = weight;
    this.#check(
      this.#symbols.airk_embedding(this.#stream.handle, y, format, address, bytes, rows, cols, outliers, ids, BigInt(tokens)),
      "embedding",
    );
  }

  /** y: [rows, cols] = every weight of the extent. */
  dequantize(y: bigint, weight: WeightExtent): void {
    const { format, address, bytes, rows, cols, outliers } = weight;
    this.#check(
      this.#symbols.airk_dequantize(this.#stream.handle, y, format, address, bytes, rows, cols, outliers),
      "dequantize",
    );
  }

  /**
   * y: [tokens, rows] (row stride yStride) = x: [tokens, cols] (row stride xStride) times the weight transposed, plus bias: [rows] unless 0n.
   * `continues` says that the operation before was a product of the same x with an earlier extent of the same matrix.
   */
  matmul(
    y: bigint,
    yStride: number,
    x: bigint,
    xStride: number,
    tokens: number,
    weight: WeightExtent,
    bias: bigint,
    continues: boolean,
    precision: Precision,
  ): void {
    const { format, address, bytes, rows, cols, outliers } = weight;
    this.#check(
      this.#symbols.airk_matmul(
        this.#stream.handle,
        y,
        BigInt(yStride),
        x,
        BigInt(xStride),
        BigInt(tokens),
        format,
        address,
        bytes,
        rows,
        cols,
        outliers,
        bias,
        continues ? 1 : 0,
        precision === "fast" ? 1 : 0,
      ),
      "matmul",
    );
  }

  /**
   * The product by groups of rows: row firstRow + r of the matrix, row r of the extent, multiplies the part of x of its group
   * (firstRow + r) / groupRows, xGroupStride elements from the one before.
   */
  matmulGrouped(
    y: bigint,
    yStride: number,
    x: bigint,
    xStride: number,
    tokens: number,
    weight: WeightExtent,
    bias: bigint,
    groups: RowGroups,
    precision: Precision,
  ): void {
    const { format, address, bytes, rows, cols, outliers } = weight;
    this.#check(
      this.#symbols.airk_matmul_grouped(
        this.#stream.handle,
        y,
        BigInt(yStride),
        x,
        BigInt(xStride),
        BigInt(groups.xGroupStride),
        BigInt(tokens),
        format,
        address,
        bytes,
        rows,
        cols,
        outliers,
        bias,
        BigInt(groups.firstRow),
        BigInt(groups.groupRows),
        precision === "fast" ? 1 : 0,
      ),
      "matmul_grouped",
    );
  }

  /** y: [rows, cols] = x scaled to unit root mean square, times weight: [cols] unless 0n. */
  rmsnorm(y: bigint, x: bigint, weight: bigint, rows: number, cols: number, eps: number): void {
    this.#check(
      this.#symbols.airk_rmsnorm(this.#stream.handle, y, x, weight, BigInt(rows), BigInt(cols), eps),
      "rmsnorm",
    );
  }

  /**
   * y: [rows, cols] = x shifted and scaled to mean 0 and variance 1, times weight: [weightRows, cols] unless 0n, plus bias in the same shape
   * unless 0n; row r takes their row r % weightRows.
   */
  layernorm(
    y: bigint,
    x: bigint,
    weight: bigint,
    bias: bigint,
    rows: number,
    cols: number,
    eps: number,
    weightRows = 1,
  ): void {
    this.#check(
      this.#symbols.airk_layernorm(
        this.#stream.handle,
        y,
        x,
        weight,
        bias,
        BigInt(weightRows),
        BigInt(rows),
        BigInt(cols),
        eps,
      ),
      "layernorm",
    );
  }

  /** Rotates the heads of x in place; cos, sin: [tokens, rotaryDim / 2]. */
  rope(x: bigint, cos: bigint, sin: bigint, tokens: number, layout: RopeLayout): void {
    this.#check(
      this.#symbols.airk_rope(
        this.#stream.handle,
        x,
        BigInt(layout.stride),
        cos,
        sin,
        BigInt(tokens),
        BigInt(layout.heads),
        BigInt(layout.headDim),
        BigInt(layout.first),
        BigInt(layout.rotaryDim),
        layout.interleaved ? 1 : 0,
      ),
      "rope",
    );
  }

  /** Writes k: [tokens, kvHeads, headDim] and v: [tokens, kvHeads, valueDim], 0n where vCache is, into cache slots: [tokens] i32. */
  kvAppend(cache: LayerCache, k: bigint, v: bigint, slots: bigint, tokens: number): void {
    this.#check(
      this.#symbols.airk_kv_append(
        this.#stream.handle,
        cache.kCache,
        cache.vCache,
        cache.cacheType,
        k,
        v,
        slots,
        BigInt(tokens),
        BigInt(cache.kvHeads),
        BigInt(cache.headDim),
        BigInt(cache.valueDim),
        BigInt(cache.pageTokens),
      ),
      "kv_append",
    );
  }

  /** y: [tokens, heads, valueDim] = attention of q: [tokens, heads, headDim] over the cache. */
  attention(y: bigint, q: bigint, input: AttentionInput): void {
    this.#check(
      this.#symbols.airk_attention(
        this.#stream.handle,
        y,
        q,
        input.kCache,
        input.vCache,
        input.cacheType,
        input.sequences,
        BigInt(input.sequenceCount),
        input.pageTable,
        input.mask,
        input.firstVisible ?? 0n,
        input.sinks ?? 0n,
        input.slopes ?? 0n,
        BigInt(input.tokens),
        BigInt(input.heads),
        BigInt(input.kvHeads),
        BigInt(input.headDim),
        BigInt(input.valueDim),
        BigInt(input.pageTokens),
        BigInt(input.contextTokens),
        input.scale,
        input.softcap ?? 0,
        input.precision === "fast" ? 1 : 0,
      ),
      "attention",
    );
  }

  /** y[i] = activation(gate[i]) * up[i], or activation(gate[i]) where up is 0n. Without an activation, gate[i] * up[i]. */
  gated(y: bigint, gate: bigint, up: bigint, count: number, activation: Activation | undefined): void {
    this.#check(
      this.#symbols.airk_gated(this.#stream.handle, y, gate, up, BigInt(count), activation ? ACTIVATIONS[activation] : -1),
      `gated (${activation ?? "no activation"})`,
    );
  }

  /** y[i] += factor * x[i]. */
  add(y: bigint, x: bigint, count: number, factor = 1): void {
    this.#check(this.#symbols.airk_add(this.#stream.handle, y, x, BigInt(count), factor), "add");
  }

  /** y[i] = factor * x[i], then softcap * tanh(y[i] / softcap) unless softcap is 0. */
  scale(y: bigint, x: bigint, count: number, factor: number, softcap = 0): void {
    this.#check(this.#symbols.airk_scale(this.#stream.handle, y, x, BigInt(count), factor, softcap), "scale");
  }

  /** y[i] = x[i], or the nearest of -limit and limit where it lies beyond. */
  clamp(y: bigint, x: bigint, count: number, limit: number): void {
    this.#check(this.#symbols.airk_clamp(this.#stream.handle, y, x, BigInt(count), limit), "clamp");
  }

  /** y[i] = xIELU of x[i], with the addresses of its parameters, f32 [1] each. */
  xielu(y: bigint, x: bigint, { alphaP, alphaN, beta, eps }: XieluParameters, count: number): void {
    this.#check(this.#symbols.airk_xielu(this.#stream.handle, y, x, alphaP, alphaN, beta, eps, BigInt(count)), "xielu");
  }

  /** y: [rows, cols] (row stride yStride) = x: [rows, cols] (row stride xStride). */
  copy2d(y: bigint, yStride: number, x: bigint, xStride: number, rows: number, cols: number): void {
    this.#check(
      this.#symbols.airk_copy_2d(this.#stream.handle, y, BigInt(yStride), x, BigInt(xStride), BigInt(rows), BigInt(cols)),
      "copy_2d",
    );
  }

  /** y: [rows, cols] = x scaled to unit length. */
  l2norm(y: bigint, x: bigint, rows: number, cols: number, eps: number): void {
    this.#check(this.#symbols.airk_l2norm(this.#stream.handle, y, x, BigInt(rows), BigInt(cols), eps), "l2norm");
  }

  /** y: [rows, cols] = -exp(aLog) * log(1 + exp(x + bias)); aLog, bias: [cols]. */
  logDecay(y: bigint, x: bigint, aLog: bigint, bias: bigint, rows: number, cols: number): void {
    this.#check(
      this.#symbols.airk_log_decay(this.#stream.handle, y, x, aLog, bias, BigInt(rows), BigInt(cols)),
      "log_decay",
    );
  }

  /**
   * y: [tokens, cols] = activation of the causal convolution of x: [tokens, cols] with weight: [cols, kernel], plus bias: [cols] unless 0n.
   * state: [slots, kernel - 1, cols].
   */
  causalConv1d(
    y: bigint,
    x: bigint,
    weight: bigint,
    bias: bigint,
    state: bigint,
    input: RecurrentInput,
    cols: number,
    kernel: number,
    activation: Exclude<Activation, "swiglu_oai"> | undefined,
  ): void {
    this.#check(
      this.#symbols.airk_causal_conv1d(
        this.#stream.handle,
        y,
        x,
        weight,
        bias,
        state,
        input.stateSlots,
        BigInt(input.slots),
        input.sequences,
        BigInt(input.sequenceCount),
        BigInt(input.tokens),
        BigInt(cols),
        BigInt(kernel),
        activation === undefined ? -1 : ACTIVATIONS[activation],
      ),
      "causal_conv1d",
    );
  }

  /** y: [tokens, valueHeads, valueDim] = what the state: [slots, valueHeads, keyDim, valueDim] answers each token's query after its update. */
  gatedDeltaRule(y: bigint, state: bigint, delta: DeltaRuleInput, input: RecurrentInput): void {
    this.#check(
      this.#symbols.airk_gated_delta_rule(
        this.#stream.handle,
        y,
        delta.q,
        BigInt(delta.qStride),
        delta.k,
        BigInt(delta.kStride),
        delta.v,
        BigInt(delta.vStride),
        delta.logDecay,
        delta.beta,
        state,
        input.stateSlots,
        BigInt(input.slots),
        input.sequences,
        BigInt(input.sequenceCount),
        BigInt(input.tokens),
        BigInt(delta.keyHeads),
        BigInt(delta.valueHeads),
        BigInt(delta.keyDim),
        BigInt(delta.valueDim),
        delta.scale,
        delta.skip ?? 0n,
        delta.corrects === false ? 0 : 1,
        delta.keyHeadsTakeTurns ? 1 : 0,
      ),
      "gated_delta_rule",
    );
  }

  /** y: [count, cols] = rows ids: [count] i32 of x: [rows, cols]. */
  gatherRows(y: bigint, x: bigint, ids: bigint, count: number, rows: number, cols: number): void {
    this.#check(
      this.#symbols.airk_gather_rows(this.#stream.handle, y, x, ids, BigInt(count), BigInt(rows), BigInt(cols)),
      "gather_rows",
    );
  }

  /** y[ids[i], :] += weights[i] * x[i, :]; y: [rows, cols], x: [count, cols], ids: [count] i32, weights: [count], 0n for ones. */
  scatterAdd(y: bigint, x: bigint, ids: bigint, weights: bigint, count: number, rows: number, cols: number): void {
    this.#check(
      this.#symbols.airk_scatter_add(this.#stream.handle, y, x, ids, weights, BigInt(count), BigInt(rows), BigInt(cols)),
      "scatter_add",
    );
  }

  /** index: [rows] i32 = position of the largest element of each row of x: [rows, cols]. */
  argmax(index: bigint, x: bigint, rows: number, cols: number): void {
    this.#check(this.#symbols.airk_argmax(this.#stream.handle, index, x, BigInt(rows), BigInt(cols)), "argmax");
  }

  /** value: [rows, k], index: [rows, k] i32 = the k largest of each row of x: [rows, cols], descending. */
  topK(value: bigint, index: bigint, x: bigint, rows: number, cols: number, k: number): void {
    this.#check(
      this.#symbols.airk_top_k(this.#stream.handle, value, index, x, BigInt(rows), BigInt(cols), BigInt(k)),
      "top_k",
    );
  }

  /** Copies from a host buffer's address to the device. */
  copyToDevice(to: bigint, from: bigint, bytes: number): void {
    this.#check(
      this.#symbols.airk_copy_to_device(this.#stream.handle, to, Deno.UnsafePointer.create(from), BigInt(bytes)),
      "copy_to_device",
    );
  }

  /** Copies from the device to a host buffer's address. */
  copyToHost(to: bigint, from: bigint, bytes: number): void {
    this.#check(
      this.#symbols.airk_copy_to_host(this.#stream.handle, Deno.UnsafePointer.create(to), from, BigInt(bytes)),
      "copy_to_host",
    );
  }

  /** Copies within the device. */
  copyOnDevice(to: bigint, from: bigint, bytes: number): void {
    this.#check(this.#symbols.airk_copy_on_device(this.#stream.handle, to, from, BigInt(bytes)), "copy_on_device");
  }

  /** Sets every byte. */
  fill(to: bigint, value: number, bytes: number): void {
    this.#check(this.#symbols.airk_fill(this.#stream.handle, to, value, BigInt(bytes)), "fill");
  }
}
