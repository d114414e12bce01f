/**
 * Rows of an encoded matrix: as an extent of the format that keeps them, or dequantized.
 * @module
 */
import type { RowPlacement } from "../checkpoint/tensor_rows.ts";
import { commonPower, type EncodedMatrix, type EncodedTensor } from "../encodings/encoding.ts";
import type { Context, HostBuffer, Stream } from "../ffi/context.ts";
import { Ops } from "../ffi/ops.ts";
import { extentBytes, extentSections, rowGranularity } from "./formats.ts";
import type { WeightFormatName } from "./manifest.ts";

/** Most bytes of float32 that are dequantized at once, where the format's blocks allow it. */
const DEQUANTIZED_BYTES = 4 * 1024 * 1024;

/** A matrix within an encoded tensor. */
export class EncodedRows {
  readonly encoding: string;
  /** The format that keeps its values. */
  readonly format: WeightFormatName;
  /** Indexes of the checkpoint's files that it is read from. */
  readonly files: readonly number[];
  /** Rows that an extent starts on a multiple of. */
  readonly granularity: number;
  readonly #matrix: EncodedMatrix;
  readonly #placement: RowPlacement;

  /** `rows` and `cols` are those of the matrix; its placement is checked. */
  constructor(tensor: EncodedTensor, readonly rows: number, readonly cols: number, placement: RowPlacement) {
    const { firstRow, runRows, rowStep } = placement;
    const oneRun = runRows >= rows;
    const whole = firstRow === 0 && oneRun;
    this.#matrix = tensor.cut(whole ? 0 : commonPower(firstRow, oneRun ? rows : commonPower(runRows, rowStep)));
    this.encoding = tensor.encoding;
    this.format = this.#matrix.format;
    this.granularity = rowGranularity(this.format, cols);
    this.#placement = placement;
    this.files = [...new Set(tensor.parts.map(({ file }) => file))].sort((a, b) => a - b);
  }

  /** Returns the bytes of an extent of so many rows. */
  bytes(rows: number): number {
    return extentBytes(this.format, rows, this.cols, 0);
  }

  /**
   * Fills `into` with an extent of rows [firstRow, firstRow + rows).
   * @param firstRow A multiple of {@linkcode granularity}.
   * @throws {FormatError} where the file ends early, or cannot be read.
   */
  async read(firstRow: number, rows: number, into: Uint8Array<ArrayBuffer>): Promise<void> {
    into.fill(0, 0, this.bytes(rows));
    const sections = extentSections(this.format, rows, this.cols, 0).map(({ offset, bytes }) =>
      into.subarray(offset, offset + bytes)
    );
    const { firstRow: first, runRows, rowStep } = this.#placement;
    for (let row = firstRow; row < firstRow + rows;) {
      const inRun = row % runRows, count = Math.min(runRows - inRun, firstRow + rows - row);
      await this.#matrix.read(first + Math.floor(row / runRows) * rowStep + inRun, count, sections, row - firstRow);
      row += count;
    }
  }
}

/** Returns the rows that {@linkcode Dequantizer} takes at once. */
function rowsAtOnce({ granularity, cols }: EncodedRows): number {
  return Math.max(1, Math.floor(DEQUANTIZED_BYTES / (cols * 4 * granularity))) * granularity;
}

/** Returns the bytes of the two buffers that a {@linkcode Dequantizer} needs for a matrix. */
export function dequantizerBytes(source: EncodedRows): { packed: number; plain: number } {
  const rows = Math.min(rowsAtOnce(source), source.rows);
  return { packed: source.bytes(rows), plain: rows * source.cols * 4 };
}

/** Dequantizes rows of encoded matrices, one call after the other. */
export class Dequantizer implements Disposable {
  readonly #context: Context;
  readonly #stream: Stream;
  #packed: HostBuffer | undefined;
  #plain: HostBuffer | undefined;
  #turn: Promise<unknown> = Promise.resolve();

  /** @param context Of a device that computes in the host's memory. */
  constructor(context: Context) {
    this.#context = context;
    this.#stream = context.stream();
  }

  /**
   * Fills `into` with rows [firstRow, firstRow + rows) as float32.
   * @throws {FormatError} as {@linkcode EncodedRows.read}.
   */
  read(source: EncodedRows, firstRow: number, rows: number, into: Uint8Array): Promise<void> {
    const mine = this.#turn.then(() => this.#read(source, firstRow, rows, into));
    this.#turn = mine.catch(() => {});
    return mine;
  }

  async #read(source: EncodedRows, firstRow: number, rows: number, into: Uint8Array): Promise<void> {
    const { granularity, cols } = source, rowBytes = cols * 4, atOnce = rowsAtOnce(source);
    const { packed: packedBytes, plain: plainBytes } = dequantizerBytes(source);
    const packed = this.#packed = await this.#atLeast(this.#packed, packedBytes);
    const plain = this.#plain = await this.#atLeast(this.#plain, plainBytes);
    for (let row = firstRow; row < firstRow + rows;) {
      const start = row - row % granularity, count = Math.min(atOnce, source.rows - start);
      await source.read(start, count, packed.view());
      new Ops(this.#stream).dequantize(plain.address, {
        format: this.#context.formatId(source.format),
        address: packed.address,
        bytes: BigInt(source.bytes(count)),
        rows: BigInt(count),
        cols: BigInt(cols),
        outliers: 0n,
      });
      await this.#stream.synchronize();
      const end = Math.min(start + count, firstRow + rows);
      into.set(plain.view((row - start) * rowBytes, (end - row) * rowBytes), (row - firstRow) * rowBytes);
      row = end;
    }
  }

  async #atLeast(buffer: HostBuffer | undefined, bytes: number): Promise<HostBuffer> {
    if (buffer !== undefined && buffer.bytes >= bytes) return buffer;
    buffer?.[Symbol.dispose]();
    return await this.#context.hostBuffer(bytes);
  }

  /** Frees the buffers. No read may be in flight. */
  [Symbol.dispose](): void {
    this.#stream[Symbol.dispose]();
    this.#packed?.[Symbol.dispose]();
    this.#plain?.[Symbol.dispose]();
  }
}
