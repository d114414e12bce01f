/**
 * Elements of a tensor that do not lie in its own order: a matrix that was turned, some of its columns, one repeated.
 * @module
 */
import type { SafetensorsTensor } from "./safetensors.ts";

/** Reads in flight at once. */
const READ_DEPTH = 16;

/** Fills `into` from a position of the tensor's file. */
export type PositionalRead = (into: Uint8Array<ArrayBuffer>, position: number) => Promise<void>;

/** A tensor whose elements lie `strides` apart. */
export type StridedTensor = SafetensorsTensor & { strides: readonly number[] };

/**
 * Fills `into` with a strided tensor's bytes in its own order, from `offset` on. Whole rows are read: each by itself where its elements lie
 * together, else column by column.
 */
export async function readStrided(tensor: StridedTensor, offset: number, into: Uint8Array, read: PositionalRead): Promise<void> {
  const shape = tensor.shape.length < 2 ? [1, ...tensor.shape] : tensor.shape;
  const strides = tensor.shape.length < 2 ? [0, ...tensor.strides] : tensor.strides;
  const count = shape.reduce((product, n) => product * n, 1), size = tensor.bytes / count;
  const cols = shape.at(-1)!, rowBytes = cols * size, matrixRows = shape.at(-2)!;
  const first = Math.floor(offset / rowBytes), end = Math.ceil((offset + into.length) / rowBytes);
  for (let row = first; row < end;) {
    const inMatrix = row % matrixRows, rows = Math.min(end - row, matrixRows - inMatrix);
    let matrix = Math.floor(row / matrixRows), origin = inMatrix * strides.at(-2)!;
    for (let axis = shape.length - 3; axis >= 0; axis--) {
      origin += matrix % shape[axis] * strides[axis];
      matrix = Math.floor(matrix / shape[axis]);
    }
    const part = {
      position: tensor.offset + origin * size,
      rows,
      cols,
      size,
      rowStride: strides.at(-2)!,
      colStride: strides.at(-1)!,
    };
    const values = await readMatrix(part, read);
    const from = Math.max(0, offset - row * rowBytes), to = Math.min(rows * rowBytes, offset + into.length - row * rowBytes);
    into.set(values.subarray(from, to), row * rowBytes + from - offset);
    row += rows;
  }
}

/** Rows of a matrix; strides count elements of `size` bytes. */
interface MatrixPart {
  position: number;
  rows: number;
  cols: number;
  size: number;
  rowStride: number;
  colStride: number;
}

async function readMatrix(part: MatrixPart, read: PositionalRead): Promise<Uint8Array<ArrayBuffer>> {
  const { position, rows, cols, size, rowStride, colStride } = part;
  const values = new Uint8Array(rows * cols * size);
  const byRow = colStride === 1 || cols === 1, lines = byRow ? rows : cols;
  const lineStride = byRow ? rowStride : colStride, elements = byRow ? cols : rows, step = byRow ? 1 : rowStride;
  const readLine = async (line: number) => {
    const at = position + line * lineStride * size;
    if (byRow) return await read(values.subarray(line * cols * size, (line + 1) * cols * size), at);
    const column = new Uint8Array(((elements - 1) * step + 1) * size);
    await read(column, at);
    for (let row = 0; row < rows; row++) {
      for (let byte = 0; byte < size; byte++) values[(row * cols + line) * size + byte] = column[row * step * size + byte];
    }
  };
  for (let line = 0; line < lines; line += READ_DEPTH) {
    const outcomes = await Promise.allSettled(
      Array.from({ length: Math.min(READ_DEPTH, lines - line) }, (_, i) => readLine(line + i)),
    );
    for (const outcome of outcomes) if (outcome.status === "rejected") throw outcome.reason;
  }
  return values;
}
