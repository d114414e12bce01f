/**
 * Rows of 8-bit codes, in extents padded to whole blocks of 32 columns.
 * @module
 */
import type { Checkpoint, CheckpointTensor } from "../checkpoint/checkpoint.ts";

/** Reads rows of one byte a column into rows of a section that are padded to a multiple of 32 columns. */
export async function readPaddedRows(
  checkpoint: Checkpoint,
  tensor: CheckpointTensor,
  cols: number,
  firstRow: number,
  rows: number,
  section: Uint8Array<ArrayBuffer>,
  atRow: number,
): Promise<Uint8Array<ArrayBuffer>> {
  const padded = Math.ceil(cols / 32) * 32, into = section.subarray(atRow * padded, (atRow + rows) * padded);
  await checkpoint.read(tensor, firstRow * cols, into.subarray(0, rows * cols));
  // From the last row on, as each moves to where later ones lay.
  if (padded !== cols) {
    for (let row = rows - 1; row >= 0; row--) {
      into.copyWithin(row * padded, row * cols, (row + 1) * cols);
      into.fill(0, row * padded + cols, (row + 1) * padded);
    }
  }
  return into;
}
