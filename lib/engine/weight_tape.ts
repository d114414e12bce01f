/**
 * The matrix products of a pass: takes each extent of the tape from the prefetcher, enqueues the product with it, and gives it up.
 * @module
 */
import type { Ops, Precision, RowGroups, WeightExtent } from "../ffi/ops.ts";
import type { TapeExtent } from "../memory/plan.ts";
import type { TensorEntry } from "../shard/manifest.ts";
import type { ShardDirectory } from "../shard/reader.ts";
import { Pacing } from "../stream/pacing.ts";
import type { Prefetcher } from "../stream/prefetcher.ts";
import type { Transfer } from "../stream/transfer.ts";

/** One extent of the tape as operations take it; its address changes from pass to pass. */
interface TapeWeight {
  tensor: number;
  firstRow: number;
  rows: number;
  weight: WeightExtent;
}

/** Walks the tape from its start, once a pass. */
export class WeightTape {
  readonly #shards: ShardDirectory;
  readonly #prefetcher: Prefetcher;
  readonly #pacing: Pacing | undefined;
  readonly #weights: TapeWeight[];
  #position = 0;

  constructor(transfer: Transfer, shards: ShardDirectory, tape: readonly TapeExtent[], prefetcher: Prefetcher) {
    const { context } = transfer;
    this.#shards = shards;
    this.#prefetcher = prefetcher;
    // A queue of the CPU library takes as much as is enqueued.
    this.#pacing = transfer.isUnified ? undefined : new Pacing(transfer);
    const { tensors } = shards.manifest;
    let firstRow = 0;
    this.#weights = tape.map(({ tensor, extent }) => {
      const { format, cols, extents } = tensors[tensor];
      const { rows, bytes, outliers } = extents[extent];
      firstRow = extent === 0 ? 0 : firstRow + extents[extent - 1].rows;
      const weight: WeightExtent = {
        format: context.formatId(format),
        address: 0n,
        bytes: BigInt(bytes),
        rows: BigInt(rows),
        cols: BigInt(cols),
        outliers: BigInt(outliers),
      };
      return { tensor, firstRow, rows, weight };
    });
  }

  /** Goes back to the start of the tape; the device must have passed all that was enqueued. */
  rewind(): void {
    this.#pacing?.reset();
    this.#position = 0;
  }

  /** Enqueues y: [tokens, rows] = x: [tokens, cols] times the named matrix transposed, plus the bias at an address unless 0n. */
  async linear(
    ops: Ops,
    y: bigint,
    x: bigint,
    tokens: number,
    name: string,
    bias: bigint,
    precision: Precision,
  ): Promise<void> {
    await this.#walk(name, (weight, row, { rows, cols }) => {
      const offset = BigInt(row * 4);
      ops.matmul(y + offset, rows, x, cols, tokens, weight, bias === 0n ? 0n : bias + offset, row > 0, precision);
    });
  }

  /** Enqueues the product with a matrix whose groups of rows multiply parts of x: [tokens, xStride], see airk_matmul_grouped; y: [tokens, rows]. */
  async linearGrouped(
    ops: Ops,
    y: bigint,
    x: bigint,
    xStride: number,
    tokens: number,
    name: string,
    groups: Omit<RowGroups, "firstRow">,
    precision: Precision,
  ): Promise<void> {
    await this.#walk(name, (weight, firstRow, { rows }) => {
      const offset = BigInt(firstRow * 4);
      ops.matmulGrouped(y + offset, rows, x, xStride, tokens, weight, 0n, { ...groups, firstRow }, precision);
    });
  }

  /** Gives each extent of the named matrix, with its first row, to a product, as they come to the device. */
  async #walk(name: string, product: (weight: WeightExtent, row: number, matrix: TensorEntry) => void): Promise<void> {
    const tensor = this.#shards.tensorIndex(name);
    const matrix = this.#shards.manifest.tensors[tensor];
    for (let row = 0; row < matrix.rows;) {
      const next = this.#weights[this.#position];
      if (next?.tensor !== tensor || next.firstRow !== row) {
        throw new Error(`Cannot use ${name}: matrices must be used in the order that the architecture declares`);
      }
      const device = this.#pacing?.step();
      if (device) await device;
      const address = this.#prefetcher.acquire(this.#position);
      next.weight.address = typeof address === "bigint" ? address : await address;
      product(next.weight, row, matrix);
      this.#prefetcher.release(this.#position++);
      row += next.rows;
    }
  }

  /** Returns the extents of the tape that come before the named matrix. */
  extentsBefore(name: string): number {
    const tensor = this.#shards.tensorIndex(name);
    return this.#weights.findIndex((weight) => weight.tensor === tensor);
  }
}
