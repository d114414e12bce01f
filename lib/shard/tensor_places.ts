/**
 * Finds where stored tensors lie in a checkpoint, and checks that of each tensor they come from every row is used.
 * @module
 */
import type { Checkpoint, CheckpointTensor } from "../checkpoint/checkpoint.ts";
import type { RowPlacement } from "../checkpoint/tensor_rows.ts";
import type { EncodedTensor } from "../encodings/encoding.ts";
import { FormatError, UnsupportedError } from "../errors.ts";
import type { TensorSpec } from "../models/architecture.ts";

/** Where one stored tensor lies. */
export interface TensorPlace {
  source: CheckpointTensor | EncodedTensor;
  placement: RowPlacement;
}

/** Returns whether a tensor's values are encoded. */
export function isEncoded(tensor: CheckpointTensor | EncodedTensor): tensor is EncodedTensor {
  return "parts" in tensor;
}

/** A spec in rows of the tensor it comes from; a vector counts as a column of as many rows. */
interface SpecRows {
  spec: TensorSpec;
  count: number;
  cols: number;
  index: number;
  firstRow: number;
  runRows: number;
  rowStep: number;
}

function rowsOf(spec: TensorSpec): SpecRows {
  const { kind, source } = spec;
  const [count, cols] = kind === "vector" ? [spec.cols, 1] : [spec.rows, spec.cols];
  const runRows = source?.rowStep === undefined ? count : source.runRows ?? 1;
  return {
    spec,
    count,
    cols,
    index: source?.index ?? 0,
    firstRow: source?.firstRow ?? 0,
    runRows,
    rowStep: source?.rowStep ?? count,
  };
}

/** Returns the row after the last that a spec uses. */
function endRow({ count, firstRow, runRows, rowStep }: SpecRows): number {
  const last = count - 1;
  return firstRow + Math.floor(last / runRows) * rowStep + last % runRows + 1;
}

/** Returns the first row that none of the specs uses, or undefined. */
function unusedRow(specs: readonly SpecRows[], rows: number): number | undefined {
  const used = new Uint8Array(rows);
  for (const { count, firstRow, runRows, rowStep } of specs) {
    for (let row = 0, at = firstRow; row < count; row += runRows, at += rowStep) {
      used.fill(1, at, at + Math.min(runRows, count - row));
    }
  }
  const unused = used.indexOf(0);
  return unused < 0 ? undefined : unused;
}

/**
 * Returns where each of the specs' tensors lies in the checkpoint.
 *
 * @param encoded Tensors whose values are encoded, by the names of the plain ones.
 * @throws {FormatError} for a tensor that is missing or has another shape than its specs need together, and for rows that none of them uses.
 * @throws {UnsupportedError} for an encoded tensor that would have to be turned, or is a vector.
 */
export function placeTensors(
  checkpoint: Checkpoint,
  specs: readonly TensorSpec[],
  encoded: ReadonlyMap<string, EncodedTensor> = new Map(),
): Map<TensorSpec, TensorPlace> {
  const places = new Map<TensorSpec, TensorPlace>();
  for (const [name, together] of Map.groupBy(specs.map(rowsOf), ({ spec }) => spec.source?.name ?? spec.name)) {
    const what = `Cannot use model ${checkpoint.path}: tensor ${JSON.stringify(name)}`;
    const { spec: { kind, source: { transposed = false } = {} }, cols } = together[0];
    const rows = together.reduce((most, one) => Math.max(most, endRow(one)), 0);
    const matrix = kind === "vector" ? [rows] : transposed ? [cols, rows] : [rows, cols];
    const stacked = together.some(({ spec }) => spec.source?.index !== undefined);
    const stack = stacked ? 1 + together.reduce((most, { index }) => Math.max(most, index), 0) : 1;
    const required = stacked ? [stack, ...matrix] : matrix;
    const source = encoded.get(name) ?? checkpoint.tensors.get(name);
    if (source === undefined) throw new FormatError(`${what} is missing; required with shape [${required.join(", ")}]`);
    if (source.shape.length !== required.length || source.shape.some((n, i) => n !== required[i])) {
      throw new FormatError(`${what} has shape [${source.shape.join(", ")}], required [${required.join(", ")}]`);
    }
    const inRows = isEncoded(source) && (source.turned ?? false) === transposed;
    if (isEncoded(source) && (!inRows || kind === "vector")) {
      const form = kind === "vector" ? "vectors" : "matrices stored as [cols, rows]";
      throw new UnsupportedError(`${what} is encoded as ${source.encoding}, which is not supported for ${form}`);
    }
    const byIndex = Map.groupBy(together, ({ index }) => index);
    for (let index = 0; index < stack; index++) {
      const row = unusedRow(byIndex.get(index) ?? [], rows);
      if (row === undefined) continue;
      throw new FormatError(`${what} has no place in the model for row ${row} of ${rows}${stacked ? ` at index ${index}` : ""}`);
    }
    for (const { spec, cols, index, firstRow, runRows, rowStep } of together) {
      const placement: RowPlacement = transposed && !inRows
        ? { firstRow, runRows, rowStep, transposed: { firstRow: index * cols, rowElements: rows } }
        : { firstRow: index * rows + firstRow, runRows, rowStep };
      places.set(spec, { source, placement });
    }
  }
  return places;
}
