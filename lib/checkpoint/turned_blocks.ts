/**
 * Rows of a matrix that is cut into blocks, each stored turned by 90 degrees.
 * @module
 */
import type { RowReader } from "./tensor_rows.ts";

/**
 * A matrix whose blocks of `blockRows` rows, one below the other, are stored as [cols, blockRows] each: row r of a block is column r of its part of the
 * source, `cols` rows of it.
 */
export class TurnedBlocks implements RowReader {
  readonly #source: RowReader;
  readonly #blockRows: number;
  readonly #cols: number;
  readonly #elementBytes: number;

  /** `source`: rows of `blockRows` elements. `cols` are the elements of a row of the matrix. */
  constructor(source: RowReader, shape: { blockRows: number; cols: number; elementBytes: number }) {
    this.#source = source;
    this.#blockRows = shape.blockRows;
    this.#cols = shape.cols;
    this.#elementBytes = shape.elementBytes;
  }

  /** Indexes of the checkpoint's files that it is read from. */
  get files(): readonly number[] {
    return this.#source.files;
  }

  /** Fewest neighbouring rows that are worth a read: a block is read whole. */
  get readRows(): number {
    return this.#blockRows;
  }

  /**
   * Fills `into` with rows of the matrix, in the source's element type.
   * @throws {FormatError} where the file ends early, or cannot be read.
   */
  async read(firstRow: number, rows: number, into: Uint8Array): Promise<void> {
    const blockRows = this.#blockRows, cols = this.#cols, size = this.#elementBytes;
    const block = new Uint8Array(cols * blockRows * size);
    for (let row = firstRow; row < firstRow + rows;) {
      const index = Math.floor(row / blockRows), inBlock = row - index * blockRows;
      const count = Math.min(blockRows - inBlock, firstRow + rows - row);
      await this.#source.read(index * cols, cols, block);
      for (let r = 0; r < count; r++) {
        for (let c = 0; c < cols; c++) {
          const from = (c * blockRows + inBlock + r) * size, to = ((row - firstRow + r) * cols + c) * size;
          for (let byte = 0; byte < size; byte++) into[to + byte] = block[from + byte];
        }
      }
      row += count;
    }
  }
}
