/**
 * Operations on device tensors, enqueued on one stream. Shapes are as in cuda/airkern.h: row-major float32 unless said otherwise.
 * Every tensor is given by its device address.
 * @module
 */
import type { Stream } from "./context.ts";

/** A weight extent in device memory: a run of whole rows of one matrix. */
export interface WeightExtent {
  /** Id from {@linkcode Context.formatId}. */
  format: number;
  address: bigint;
  bytes: bigint;
  rows: bigint;
  cols: bigint;
  outliers: bigint;
}

/** How the matrix products may round their activations: `exact` keeps float32, `fast` may use 16-bit operands. */
export type Precision = "exact" | "fast";

/** The KV cache of one layer, and how this pass's tokens lie in it. */
export interface AttentionInput {
  kCache: bigint;
  vCache: bigint;
  /** AIRK_F16 or AIRK_F32. */
  cacheType: number;
  /** i32 [sequenceCount, 4], see airk_attention. */
  sequences: bigint;
  sequenceCount: number;
  /** i32, page numbers. */
  pageTable: bigint;
  /** 0n for causal order, else u8 [tokens, tokens]. */
  mask: bigint;
  tokens: number;
  heads: number;
  kvHeads: number;
  headDim: number;
  pageTokens: number;
  contextTokens: number;
  scale: number;
}

/** Enqueues operations on a stream. None of them waits. */
export class Ops {
  readonly #stream: Stream;
  constructor(stream: Stream) {
    this.#stream = stream;
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

  /** y: [rows, cols] = x scaled to unit root mean square, times weight: [cols]. */
  rmsnorm(y: bigint, x: bigint, weight: bigint, rows: number, cols: number, eps: number): void {
    this.#check(
      this.#symbols.airk_rmsnorm(this.#stream.handle, y, x, weight, BigInt(rows), BigInt(cols), eps),
      "rmsnorm",
    );
  }

  /** Rotates x: [tokens, heads, headDim] in place; cos, sin: [tokens, rotaryDim / 2]. */
  rope(x: bigint, cos: bigint, sin: bigint, tokens: number, heads: number, headDim: number, rotaryDim: number): void {
    this.#check(
      this.#symbols.airk_rope(
        this.#stream.handle,
        x,
        cos,
        sin,
        BigInt(tokens),
        BigInt(heads),
        BigInt(headDim),
        BigInt(rotaryDim),
      ),
      "rope",
    );
  }

  /** Writes k, v: [tokens, kvHeads, headDim] into cache slots: [tokens] i32. */
  kvAppend(
    kCache: bigint,
    vCache: bigint,
    cacheType: number,
    k: bigint,
    v: bigint,
    slots: bigint,
    tokens: number,
    kvHeads: number,
    headDim: number,
    pageTokens: number,
  ): void {
    this.#check(
      this.#symbols.airk_kv_append(
        this.#stream.handle,
        kCache,
        vCache,
        cacheType,
        k,
        v,
        slots,
        BigInt(tokens),
        BigInt(kvHeads),
        BigInt(headDim),
        BigInt(pageTokens),
      ),
      "kv_append",
    );
  }

  /** y: [tokens, heads, headDim] = attention of q: [tokens, heads, headDim] over the cache. */
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
        BigInt(input.tokens),
        BigInt(input.heads),
        BigInt(input.kvHeads),
        BigInt(input.headDim),
        BigInt(input.pageTokens),
        BigInt(input.contextTokens),
        input.scale,
      ),
      "attention",
    );
  }

  /** y[i] = silu(gate[i]) * up[i]. */
  swiglu(y: bigint, gate: bigint, up: bigint, count: number): void {
    this.#check(this.#symbols.airk_swiglu(this.#stream.handle, y, gate, up, BigInt(count)), "swiglu");
  }

  /** y[i] += x[i]. */
  add(y: bigint, x: bigint, count: number): void {
    this.#check(this.#symbols.airk_add(this.#stream.handle, y, x, BigInt(count)), "add");
  }

  /** y: [count, cols] = rows ids: [count] i32 of x: [rows, cols]. */
  gatherRows(y: bigint, x: bigint, ids: bigint, count: number, rows: number, cols: number): void {
    this.#check(
      this.#symbols.airk_gather_rows(this.#stream.handle, y, x, ids, BigInt(count), BigInt(rows), BigInt(cols)),
      "gather_rows",
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
