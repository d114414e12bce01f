/**
 * Columns of tensors that are stored turned, [cols of the matrix, rows]: a strip of each of their rows.
 * @module
 */
import type { Checkpoint, CheckpointTensor } from "../checkpoint/checkpoint.ts";

/** Reads in flight at once. */
const READ_DEPTH = 16;

/**
 * Returns elements [first, first + count) of each row of a matrix, or of one of a stack, [rows, count].
 * @param elementBytes Size of an element; strips start on a multiple of it.
 * @param index Which matrix of a stack [n, rows, elements].
 */
export async function readColumns(
  checkpoint: Checkpoint,
  tensor: CheckpointTensor,
  elementBytes: number,
  first: number,
  count: number,
  index = 0,
): Promise<Uint8Array<ArrayBuffer>> {
  const [rows, rowElements] = tensor.shape.slice(-2), bytes = count * elementBytes, firstLine = index * rows;
  const into = new Uint8Array(rows * bytes);
  if (count === rowElements) {
    await checkpoint.read(tensor, firstLine * bytes, into);
    return into;
  }
  let next = 0;
  const work = async () => {
    while (next < rows) {
      const row = next++;
      const offset = ((firstLine + row) * rowElements + first) * elementBytes;
      await checkpoint.read(tensor, offset, into.subarray(row * bytes, (row + 1) * bytes));
    }
  };
  const workers = await Promise.allSettled(Array.from({ length: Math.min(READ_DEPTH, rows) }, work));
  const failed = workers.find((worker) => worker.status === "rejected");
  if (failed) throw failed.reason;
  return into;
}

/** Turns [rows, cols] elements of 1, 2 or 4 bytes into [cols, rows]. */
export function turn(
  from: Uint8Array<ArrayBuffer>,
  rows: number,
  cols: number,
  elementBytes: number,
  into: Uint8Array<ArrayBuffer>,
): void {
  const Elements = elementBytes === 1 ? Uint8Array : elementBytes === 2 ? Uint16Array : Uint32Array;
  const source = new Elements(from.buffer, from.byteOffset, rows * cols),
    target = new Elements(into.buffer, into.byteOffset, rows * cols);
  for (let col = 0; col < cols; col++) for (let row = 0; row < rows; row++) target[col * rows + row] = source[row * cols + col];
}
