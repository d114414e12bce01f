/**
 * Blocks of an encoded tensor that are stored turned: they are dequantized, and then turned.
 * @module
 */
import { TurnedBlocks } from "../checkpoint/turned_blocks.ts";
import { type Dequantizer, dequantizerBytes, type EncodedRows } from "./encoded_rows.ts";

/** Bytes of a float32. */
const WORD = 4;

/** A matrix whose blocks of `blockRows` rows lie turned in an encoded tensor, of which `encoded` are the rows as they lie: see `TurnedBlocks`. */
export class TurnedEncoded {
  readonly encoded: EncodedRows;
  /** Rows of a block, which is read whole. */
  readonly blockRows: number;
  readonly #cols: number;

  /** `cols` are the elements of a row of the matrix. */
  constructor(encoded: EncodedRows, blockRows: number, cols: number) {
    this.encoded = encoded;
    this.blockRows = blockRows;
    this.#cols = cols;
  }

  /** Indexes of the checkpoint's files that it is read from. */
  get files(): readonly number[] {
    return this.encoded.files;
  }

  /** Bytes of the buffers that reading takes. */
  get bufferBytes(): { packed: number; plain: number } {
    const { packed, plain } = dequantizerBytes(this.encoded);
    return { packed, plain: plain + this.blockRows * this.#cols * WORD };
  }

  /**
   * Fills `into` with rows of the matrix as float32.
   * @throws {FormatError} where the file ends early, or cannot be read.
   */
  async read(dequantizer: Dequantizer, firstRow: number, rows: number, into: Uint8Array): Promise<void> {
    const source = {
      files: this.files,
      readRows: 1,
      read: (first: number, count: number, plain: Uint8Array) => dequantizer.read(this.encoded, first, count, plain),
    };
    await new TurnedBlocks(source, { blockRows: this.blockRows, cols: this.#cols, elementBytes: WORD }).read(
      firstRow,
      rows,
      into,
    );
  }
}
