/**
 * Weights of 8-bit floats (e4m3) whose scales, one for a block of rows and columns, lie in a tensor beside them.
 * @module
 */
import type { Checkpoint, CheckpointTensor } from "../checkpoint/checkpoint.ts";
import { readByteRows, spreadRows } from "./byte_rows.ts";
import { commonPower, type Companions, type EncodedTensor, floatsOf } from "./encoding.ts";
import { readPaddedRows } from "./padded_rows.ts";

/** How many rows and columns share a scale; 0 for all of a matrix. */
export interface ScaleBlock {
  rows: number;
  cols: number;
}

/** Returns the number of scales along both dimensions of a matrix. */
export function scaleShape(rows: number, cols: number, block: ScaleBlock): [number, number] {
  return [block.rows === 0 ? 1 : Math.ceil(rows / block.rows), block.cols === 0 ? 1 : Math.ceil(cols / block.cols)];
}

/**
 * Returns a matrix, or a stack of them, of e4m3 codes whose weights are code * scale.
 * @param scale Its shape was checked: as many scales as {@linkcode scaleShape} says for each matrix.
 */
export function fp8Tensor(
  checkpoint: Checkpoint,
  name: string,
  encoding: string,
  codes: CheckpointTensor,
  scale: CheckpointTensor,
  block: ScaleBlock,
  companions: Companions,
): EncodedTensor {
  const [rows, cols] = codes.shape.slice(-2);
  if (block.cols !== 0 && !(block.cols >= 32 && block.cols <= 65_536 && Number.isInteger(Math.log2(block.cols)))) {
    throw companions.unsupported(
      `shares scales between ${block.cols} columns, supported are powers of two from 32 to 65536, or all`,
    );
  }
  const [scaleRows, groups] = scaleShape(rows, cols, block);
  let scales: Promise<Float32Array> | undefined;
  /** Scales of a row of the stack. */
  const rowOfScales = (row: number) =>
    Math.floor(row / rows) * scaleRows + (block.rows === 0 ? 0 : Math.floor(row % rows / block.rows));
  return {
    name,
    encoding,
    shape: codes.shape,
    parts: companions.parts,
    cut(unitRows) {
      // Rows that share scales in the format: as many as in the file, as far as matrices and runs are cut there.
      const whole = commonPower(commonPower(block.rows || 1, codes.shape.length === 3 ? rows : 0), unitRows);
      const together = block.rows > 1 ? Math.min(128, whole) : 1;
      return {
        format: `fp8-${together}x${block.cols === 0 ? "row" : `${block.cols}`}` as `fp8-${string}`,
        async read(firstRow, count, [scaleSection, codeSection], atRow) {
          scales ??= companions.read(scale).then((bytes) => floatsOf(bytes, scale.dtype));
          const [values] = await Promise.all([
            scales,
            readPaddedRows(checkpoint, codes, cols, firstRow, count, codeSection, atRow),
          ]);
          const into = new Float32Array(scaleSection.buffer, scaleSection.byteOffset, scaleSection.byteLength / 4);
          for (let row = 0; row < count; row += together) {
            const from = rowOfScales(firstRow + row) * groups, to = (atRow + row) / together * groups;
            into.set(values.subarray(from, from + groups), to);
          }
        },
      };
    },
  };
}

/**
 * Returns a stack of matrices of e4m3 codes that lie turned, [n, cols, rows], and share a scale in each row, or each matrix, or all together.
 * @param scale Its shape was checked: n * rows, n or 1 elements.
 */
export function turnedFp8Tensor(
  checkpoint: Checkpoint,
  name: string,
  encoding: string,
  codes: CheckpointTensor,
  scale: CheckpointTensor,
  companions: Companions,
): EncodedTensor {
  const [matrices, cols, rows] = codes.shape, rowBytes = Math.ceil(cols / 32) * 32;
  let scales: Promise<Float32Array> | undefined;
  return {
    name,
    encoding,
    shape: codes.shape,
    turned: true,
    parts: companions.parts,
    cut: () => ({
      format: "fp8-1xrow",
      async read(firstRow, count, [scaleSection, codeSection], atRow) {
        scales ??= companions.read(scale).then((bytes) => floatsOf(bytes, scale.dtype));
        const values = await scales, rowsTogether = matrices * rows / values.length;
        const into = new Float32Array(scaleSection.buffer, scaleSection.byteOffset, scaleSection.byteLength / 4);
        for (let row = 0; row < count; row++) into[atRow + row] = values[Math.floor((firstRow + row) / rowsTogether)];
        spreadRows(await readByteRows(checkpoint, codes, true, firstRow, count), cols, codeSection, rowBytes, atRow);
      },
    }),
  };
}
