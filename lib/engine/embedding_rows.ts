/**
 * Gathers embedding rows from their file. A pass needs as many rows as it has tokens, so the embedding (405B: 2 to 4 GB) is never read whole.
 * @module
 */
import { closeSync, openSync } from "node:fs";
import { FormatError, UnsupportedError } from "../errors.ts";
import { rowSectionBytes } from "../shard/formats.ts";
import type { TensorEntry } from "../shard/manifest.ts";
import { readWhole, runBounded } from "./positional_reads.ts";

/** Reads under way at once: random small reads gain from depth, and Deno's pool has 32 threads for everything. */
const READ_DEPTH = 8;

const SECTION_ALIGNMENT = 64;

/** Returns the bytes of one row in each section of an extent, see cuda/airkern.h. */
function sectionsOf({ name, format, cols }: Pick<TensorEntry, "name" | "format" | "cols">): number[] {
  const sections = rowSectionBytes(format, cols);
  if (sections !== undefined) return sections;
  throw new UnsupportedError(
    `Cannot gather rows of ${name} stored as ${format}: its rows share blocks or scales; quantize the model to q4o, nf4 or q8`,
  );
}

/** Returns the bytes that one row of an embedding takes. */
export function embeddingRowBytes(tensor: Pick<TensorEntry, "name" | "format" | "cols">): number {
  return sectionsOf(tensor).reduce((sum, bytes) => sum + bytes, 0);
}

/** Returns where each section begins in an extent of `rows` rows. */
function sectionOffsets(sections: readonly number[], rows: number): number[] {
  let end = 0;
  return sections.map((bytes) => {
    const offset = end;
    end = Math.ceil((offset + bytes * rows) / SECTION_ALIGNMENT) * SECTION_ALIGNMENT;
    return offset;
  });
}

/** The embedding matrix in its file. */
export class EmbeddingRows implements Disposable {
  readonly #descriptor: number;
  readonly #path: string;
  readonly #sections: number[];
  readonly #tensor: TensorEntry;
  #bytesRead = 0;
  #closed = false;

  private constructor(descriptor: number, path: string, tensor: TensorEntry) {
    this.#descriptor = descriptor;
    this.#path = path;
    this.#tensor = tensor;
    this.#sections = sectionsOf(tensor);
  }

  /** Opens the file at `path` that holds `tensor`. */
  static open(path: string, tensor: TensorEntry): EmbeddingRows {
    const descriptor = openSync(path, "r");
    try {
      return new EmbeddingRows(descriptor, path, tensor);
    } catch (error) {
      closeSync(descriptor);
      throw error;
    }
  }

  /** Bytes read since it was opened. */
  get bytesRead(): number {
    return this.#bytesRead;
  }

  /** Returns the bytes of an extent of as many rows. */
  extentBytes(rows: number): number {
    return sectionOffsets(this.#sections, rows).at(-1)! + rows * this.#sections.at(-1)!;
  }

  /**
   * Reads the rows of `ids` once each into `extent` and writes for each id its row there to `indexes`. Returns the extent's rows and bytes.
   */
  async gather(
    ids: Int32Array,
    extent: Uint8Array<ArrayBuffer>,
    indexes: Int32Array,
  ): Promise<{ rows: number; bytes: number }> {
    const rowOf = new Map<number, number>();
    for (let i = 0; i < ids.length; i++) {
      let row = rowOf.get(ids[i]);
      if (row === undefined) rowOf.set(ids[i], row = rowOf.size);
      indexes[i] = row;
    }
    const offsets = sectionOffsets(this.#sections, rowOf.size);
    const jobs: (() => Promise<void>)[] = [];
    for (const [id, row] of rowOf) {
      const source = this.#locate(id);
      this.#sections.forEach((bytes, section) => {
        const at = offsets[section] + row * bytes;
        const position = source.offset + sectionOffsets(this.#sections, source.rows)[section] + source.row * bytes;
        jobs.push(() => readWhole(this.#descriptor, this.#path, extent.subarray(at, at + bytes), position));
        this.#bytesRead += bytes;
      });
    }
    await runBounded(jobs, READ_DEPTH);
    return { rows: rowOf.size, bytes: this.extentBytes(rowOf.size) };
  }

  /** Finds the extent that holds a row of the matrix, and the row's index in it. */
  #locate(id: number): { offset: number; rows: number; row: number } {
    let row = id;
    for (const { offset, rows } of this.#tensor.extents) {
      if (row < rows) return { offset, rows, row };
      row -= rows;
    }
    throw new FormatError(`Cannot read row ${id} of ${this.#tensor.name}: its extents end before`);
  }

  [Symbol.dispose](): void {
    if (this.#closed) return;
    this.#closed = true;
    closeSync(this.#descriptor);
  }
}
