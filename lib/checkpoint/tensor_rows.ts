/**
 * Rows of a matrix that lies somewhere within a checkpoint's tensor: a range of it, every n-th run of rows, one of a stack, or turned by 90 degrees.
 * @module
 */
import type { Checkpoint, CheckpointTensor } from "./checkpoint.ts";

/** Reads in flight at once where a range of rows is in many places. */
const READ_DEPTH = 16;

/** Bytes of turned rows that are read at once, so that the buffer beside the result stays small. */
const STRIP_BYTES = 4 * 1024 * 1024;

/** Where the rows of a matrix lie in a tensor. */
export interface RowPlacement {
  /** Row of the tensor, counted through all matrices of a stack, that is row 0; of a turned matrix, its first column. */
  firstRow: number;
  /** Rows of a run, and rows from the start of one run to the next. */
  runRows: number;
  rowStep: number;
  /** Of a turned matrix: its first row in the tensor, counted through a stack, and the elements that each row of the tensor has. */
  transposed?: { firstRow: number; rowElements: number };
}

/** Rows that can be read in ranges. */
export interface RowReader {
  /** Fewest neighbouring rows that are worth a read. */
  readonly readRows: number;
  /** Every file of the checkpoint that is read from, as indexes into its files, ascending. */
  readonly files: readonly number[];
  /**
   * Fills `into` with rows, as they are stored.
   * @throws {FormatError} where the file ends early, or cannot be read.
   */
  read(firstRow: number, rows: number, into: Uint8Array): Promise<void>;
}

/** A vector that is in several places. */
export class JoinedVector implements RowReader {
  readonly readRows = 1;
  readonly files: readonly number[];
  readonly #parts: readonly RowReader[];

  /** `parts` are vectors of equal lengths. */
  constructor(parts: readonly RowReader[]) {
    this.#parts = parts;
    this.files = [...new Set(parts.flatMap(({ files }) => files))].sort((a, b) => a - b);
  }

  /** Fills `into` with the vector, its only row. */
  async read(_firstRow: number, _rows: number, into: Uint8Array): Promise<void> {
    const bytes = into.length / this.#parts.length;
    await inParallel(this.#parts.map((part, i) => () => part.read(0, 1, into.subarray(i * bytes, (i + 1) * bytes))));
  }
}

/** A matrix within a checkpoint's tensor. */
export class TensorRows implements RowReader {
  readonly tensor: CheckpointTensor;
  readonly files: readonly number[];
  readonly #checkpoint: Checkpoint;
  readonly #placement: RowPlacement;
  readonly #cols: number;
  readonly #rowsTogether: number;
  readonly #elementBytes: number;

  /**
   * `cols` are the elements of a row. A vector is a column in the tensor and a row when it is read: its `cols` is 1, and `rowsTogether` its length,
   * else 1.
   */
  constructor(
    checkpoint: Checkpoint,
    tensor: CheckpointTensor,
    shape: { cols: number; rowsTogether: number; elementBytes: number },
    placement: RowPlacement,
  ) {
    this.tensor = tensor;
    this.files = [tensor.file];
    this.#checkpoint = checkpoint;
    this.#placement = placement;
    this.#cols = shape.cols;
    this.#rowsTogether = shape.rowsTogether;
    this.#elementBytes = shape.elementBytes;
  }

  /** Those of a turned matrix lie beside each other. */
  get readRows(): number {
    return this.#placement.transposed ? 64 : 1;
  }

  /**
   * Fills `into` with rows of the matrix, in the tensor's element type.
   * @throws {FormatError} where the file ends early, or cannot be read.
   */
  async read(firstRow: number, rows: number, into: Uint8Array): Promise<void> {
    firstRow *= this.#rowsTogether;
    rows *= this.#rowsTogether;
    if (this.#placement.transposed) return await this.#readTransposed(this.#placement.transposed, firstRow, rows, into);
    const { runRows, rowStep } = this.#placement;
    const rowBytes = this.#cols * this.#elementBytes;
    const runs: (() => Promise<void>)[] = [];
    for (let row = firstRow; row < firstRow + rows;) {
      const inRun = row % runRows;
      const count = Math.min(runRows - inRun, firstRow + rows - row);
      const offset = (this.#placement.firstRow + Math.floor(row / runRows) * rowStep + inRun) * rowBytes;
      const part = into.subarray((row - firstRow) * rowBytes, (row - firstRow + count) * rowBytes);
      runs.push(() => this.#checkpoint.read(this.tensor, offset, part));
      row += count;
    }
    await inParallel(runs);
  }

  /** Row r of the matrix is column r of the tensor: reads a part of each of the tensor's rows and turns them. */
  async #readTransposed(
    { firstRow: firstCol, rowElements }: NonNullable<RowPlacement["transposed"]>,
    firstRow: number,
    rows: number,
    into: Uint8Array,
  ): Promise<void> {
    const size = this.#elementBytes, cols = this.#cols;
    const { runRows, rowStep } = this.#placement;
    // Elements of a tensor's row from the first to the last that is needed.
    const place = (row: number): number => this.#placement.firstRow + Math.floor(row / runRows) * rowStep + row % runRows;
    const first = place(firstRow), span = place(firstRow + rows - 1) + 1 - first;
    const stripCols = Math.max(1, Math.min(cols, Math.floor(STRIP_BYTES / (span * size))));
    const strip = new Uint8Array(stripCols * span * size);
    const source = elements(strip, size), target = elements(into.subarray(0, rows * cols * size), size);
    for (let col = 0; col < cols; col += stripCols) {
      const count = Math.min(stripCols, cols - col);
      await inParallel(Array.from({ length: count }, (_, i) => () => {
        const offset = ((firstCol + col + i) * rowElements + first) * size;
        return this.#checkpoint.read(this.tensor, offset, strip.subarray(i * span * size, (i + 1) * span * size));
      }));
      for (let row = 0; row < rows; row++) {
        const from = place(firstRow + row) - first, to = row * cols + col;
        for (let i = 0; i < count; i++) target[to + i] = source[i * span + from];
      }
    }
  }
}

/** Returns elements of `size` bytes as integers to be moved. Memory that a checkpoint is read into starts on a multiple of 8 bytes. */
function elements(bytes: Uint8Array, size: number): Uint8Array | Uint16Array | Uint32Array {
  const { buffer, byteOffset, byteLength } = bytes;
  if (size === 4) return new Uint32Array(buffer, byteOffset, byteLength / 4);
  return size === 2 ? new Uint16Array(buffer, byteOffset, byteLength / 2) : bytes;
}

/** Runs jobs, a bounded number at a time, and waits for those under way when one fails. */
async function inParallel(jobs: readonly (() => Promise<void>)[]): Promise<void> {
  if (jobs.length === 1) return await jobs[0]();
  let next = 0;
  const work = async (): Promise<void> => {
    while (next < jobs.length) await jobs[next++]();
  };
  const workers = await Promise.allSettled(Array.from({ length: Math.min(READ_DEPTH, jobs.length) }, work));
  const failed = workers.find((worker) => worker.status === "rejected");
  if (failed) throw failed.reason;
}
