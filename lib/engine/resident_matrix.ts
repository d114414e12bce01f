/**
 * Matrices that stay in memory beside norms and biases: routers, and embeddings of positions.
 * @module
 */
import type { WeightExtent } from "../ffi/ops.ts";
import type { TensorEntry } from "../shard/manifest.ts";

/** Returns such a matrix, of a format with id `format`, as one extent: in these formats it is its extents one after the other. */
export function residentMatrix(
  format: number,
  address: bigint,
  { rows, cols, extents }: Pick<TensorEntry, "rows" | "cols" | "extents">,
): WeightExtent {
  const bytes = BigInt(extents.reduce((sum, { bytes }) => sum + bytes, 0));
  return { format, address, bytes, rows: BigInt(rows), cols: BigInt(cols), outliers: 0n };
}
