/**
 * Finds where stored tensors lie in a checkpoint, and checks that of each tensor they come from every row is used.
 * @module
 */
import type { Checkpoint, CheckpointTensor } from "../checkpoint/checkpoint.ts";
import type { RowPlacement } from "../checkpoint/tensor_rows.ts";
import type { EncodedTensor } from "../encodings/encoding.ts";
import { FormatError, UnsupportedError } from "../errors.ts";
import type { TensorSource, TensorSpec } from "../models/architecture.ts";

/** Where one stored tensor lies. */
export interface TensorPlace {
  source: CheckpointTensor | EncodedTensor;
  placement: RowPlacement;
  /** As {@linkcode TensorSource.turnedBlockRows}. */
  turnedBlockRows: number | undefined;
}

/** Returns whether a tensor's values are encoded. */
export function isEncoded(tensor: CheckpointTensor | EncodedTensor): tensor is EncodedTensor {
  return "parts" in tensor;
}

/** A spec, or a share of it, in rows of the tensor it comes from; a vector counts as a column of as many rows. */
interface SpecRows {
  spec: TensorSpec;
  tensorName: string;
  count: number;
  cols: number;
  index: number | undefined;
  firstRow: number;
  runRows: number;
  rowStep: number;
  transposed: boolean;
  turnedBlockRows: number | undefined;
  /** Dimensions of the tensor after its first, of which a vector is the elements. */
  vectorDims: number[];
}

/** Returns the shape of a checkpoint's tensor, or undefined where it has none of that name. */
type ShapeOf = (name: string) => readonly number[] | undefined;

/** Returns where a tensor lies in a checkpoint: where its family has it, or under the name that it is stored by, as GGUF files have theirs. */
function sourcesOf({ name, source, otherSources = [] }: TensorSpec, shapeOf: ShapeOf): readonly TensorSource[] {
  const has = ({ name, shape }: TensorSource): boolean => {
    const found = shapeOf(name);
    return found !== undefined && (shape === undefined || shape.length === found.length && shape.every((n, i) => n === found[i]));
  };
  const places = [source ?? { name }, ...otherSources].map((place) => "name" in place ? [place] : place);
  return places.find((sources) => sources.some(has)) ?? (has({ name }) ? [{ name }] : places[0]);
}

function rowsOf(spec: TensorSpec, shapeOf: ShapeOf): SpecRows[] {
  const sources = sourcesOf(spec, shapeOf);
  const [rows, cols] = spec.kind === "vector" ? [spec.cols, 1] : [spec.rows, spec.cols];
  const share = rows / sources.length;
  return sources.map((source) => {
    const { name, index, firstRow = 0, rowStep, runRows = 1, transposed = false, vectorCols, vectorRows, turnedBlockRows } =
      source;
    const vectorDims = [vectorRows, vectorCols].filter((size) => size !== undefined);
    const size = turnedBlockRows === undefined
      ? { count: share, cols }
      : { count: share / turnedBlockRows * cols, cols: turnedBlockRows };
    return {
      ...{ spec, tensorName: name, ...size, index, firstRow, transposed, turnedBlockRows, vectorDims },
      ...(rowStep === undefined ? { runRows: size.count, rowStep: size.count } : { runRows, rowStep }),
    };
  });
}

/** Returns the shape of a tensor of which all shares together use every row. */
function requiredShape(together: readonly SpecRows[], rows: number, stack: number | undefined): number[] {
  const [{ spec: { kind }, cols, transposed, vectorDims }] = together;
  const vector = [rows / vectorDims.reduce((product, size) => product * size, 1), ...vectorDims];
  const shape = kind === "vector" ? vector : transposed ? [cols, rows] : [rows, cols];
  return stack === undefined ? shape : [stack, ...shape];
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
 * Returns where each of the specs' tensors lies in the checkpoint: one place, or several for a vector that is joined.
 *
 * @param encoded Tensors whose values are encoded, by the names of the plain ones.
 * @throws {FormatError} for a tensor that is missing or has another shape than its specs need together, and for rows that none of them uses.
 * @throws {UnsupportedError} for an encoded tensor that would have to be turned, or is a vector.
 */
export function placeTensors(
  checkpoint: Checkpoint,
  specs: readonly TensorSpec[],
  encoded: ReadonlyMap<string, EncodedTensor> = new Map(),
): Map<TensorSpec, TensorPlace[]> {
  const places = new Map<TensorSpec, TensorPlace[]>(specs.map((spec) => [spec, []]));
  const shapeOf: ShapeOf = (name) => (encoded.get(name) ?? checkpoint.tensors.get(name))?.shape;
  const shares = specs.flatMap((spec) => rowsOf(spec, shapeOf));
  for (const [name, together] of Map.groupBy(shares, ({ tensorName }) => tensorName)) {
    const what = `Cannot use model ${checkpoint.path}: tensor ${JSON.stringify(name)}`;
    const rows = together.reduce((most, one) => Math.max(most, endRow(one)), 0);
    const stacked = together.some(({ index }) => index !== undefined);
    const stack = stacked ? 1 + together.reduce((most, { index = 0 }) => Math.max(most, index), 0) : undefined;
    const required = requiredShape(together, rows, stack);
    const source = encoded.get(name) ?? checkpoint.tensors.get(name);
    if (source === undefined) throw new FormatError(`${what} is missing; required with shape [${required.join(", ")}]`);
    // A vector of one element may be stored as a number.
    const isNumber = source.shape.length === 0 && required.length === 1 && required[0] === 1;
    if (
      isNumber ? isEncoded(source) : source.shape.length !== required.length || source.shape.some((n, i) => n !== required[i])
    ) {
      throw new FormatError(`${what} has shape [${source.shape.join(", ")}], required [${required.join(", ")}]`);
    }
    const [{ spec: { kind }, transposed: turned }] = together;
    const inRows = isEncoded(source) && (source.turned ?? false) === turned;
    if (isEncoded(source) && (!inRows || kind === "vector")) {
      const form = kind === "vector" ? "vectors" : "matrices stored as [cols, rows]";
      throw new UnsupportedError(`${what} is encoded as ${source.encoding}, which is not supported for ${form}`);
    }
    const byIndex = Map.groupBy(together, ({ index = 0 }) => index);
    for (let index = 0; index < (stack ?? 1); index++) {
      const row = unusedRow(byIndex.get(index) ?? [], rows);
      if (row === undefined) continue;
      throw new FormatError(`${what} has no place in the model for row ${row} of ${rows}${stacked ? ` at index ${index}` : ""}`);
    }
    for (const { spec, cols, index = 0, firstRow, runRows, rowStep, transposed, turnedBlockRows } of together) {
      const placement: RowPlacement = transposed && !inRows
        ? { firstRow, runRows, rowStep, transposed: { firstRow: index * cols, rowElements: rows } }
        : { firstRow: index * rows + firstRow, runRows, rowStep };
      places.get(spec)!.push({ source, placement, turnedBlockRows });
    }
  }
  return places;
}
