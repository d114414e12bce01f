/**
 * Rows of matrices whose elements are bytes, whichever way they lie in a checkpoint.
 * @module
 */
import type { Checkpoint, CheckpointTensor } from "../checkpoint/checkpoint.ts";
import { readColumns, turn } from "./column_reads.ts";

/**
 * Returns rows of a matrix or of a stack of them, one after the other without padding.
 * @param turned Whether it is stored [n, bytes of a row, rows] instead of [n, rows, bytes of a row].
 * @param firstRow Counted through the stack.
 */
export async function readByteRows(
  checkpoint: Checkpoint,
  tensor: CheckpointTensor,
  turned: boolean,
  firstRow: number,
  count: number,
): Promise<Uint8Array<ArrayBuffer>> {
  const [height, width] = tensor.shape.slice(-2), rowBytes = turned ? height : width;
  const into = new Uint8Array(count * rowBytes);
  if (!turned) {
    await checkpoint.read(tensor, firstRow * rowBytes, into);
    return into;
  }
  for (let row = 0; row < count;) {
    const index = Math.floor((firstRow + row) / width), first = firstRow + row - index * width;
    const lines = Math.min(count - row, width - first);
    const strip = await readColumns(checkpoint, tensor, 1, first, lines, index);
    turn(strip, rowBytes, lines, 1, into.subarray(row * rowBytes, (row + lines) * rowBytes));
    row += lines;
  }
  return into;
}

/** Writes rows without padding to rows of a section that are wider. */
export function spreadRows(
  from: Uint8Array,
  rowBytes: number,
  section: Uint8Array,
  sectionRowBytes: number,
  atRow: number,
): void {
  for (let at = 0, to = atRow * sectionRowBytes; at < from.length; at += rowBytes, to += sectionRowBytes) {
    section.set(from.subarray(at, at + rowBytes), to);
  }
}
