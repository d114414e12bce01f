/**
 * Weight extents for tests: made from random numbers and decoded in float64, both written from the layouts in cuda/airkern.h.
 * @module
 */
import { fromBf16, fromF16, type Random, toBf16, toF16 } from "./reference.ts";

/** The names of all weight formats. */
export const FORMATS = ["f32", "f16", "bf16", "q8", "nf4", "q4o"] as const;
export type FormatName = typeof FORMATS[number];

/** Where the sections of an extent start, by their names in the header, and its length. */
export function sections(format: FormatName, rows: number, cols: number, outliers: number): Record<string, number> {
  const blocks = Math.ceil(cols / 32), groups = Math.ceil(rows / 64);
  const lists: Record<FormatName, [string, number][]> = {
    f32: [["values", rows * cols * 4]],
    f16: [["values", rows * cols * 2]],
    bf16: [["values", rows * cols * 2]],
    q8: [["scale", rows * blocks * 2], ["code", rows * blocks * 32]],
    nf4: [["absmax", Math.ceil(rows * cols / 64) * 4], ["code", Math.ceil(rows * cols / 2)]],
    q4o: [
      ["code_table", 64],
      ["column_scale", cols],
      ["row_scale", rows * 2],
      ["block_scale", rows * blocks],
      ["code", rows * blocks * 16],
      ["outlier_base", groups * 4],
      ["outlier_start", rows * 2],
      ["outlier_col", outliers * 2],
      ["outlier", outliers * 2],
    ],
  };
  const starts: Record<string, number> = {};
  let end = 0;
  for (const [name, bytes] of lists[format]) {
    starts[name] = Math.ceil(end / 64) * 64;
    end = starts[name] + bytes;
  }
  return { ...starts, bytes: end };
}

/** NF4 of the QLoRA paper (arXiv:2305.14314, appendix E). */
export const NF4 = Float32Array.from([
  -1.0,
  -0.6961928009986877,
  -0.5250730514526367,
  -0.39491748809814453,
  -0.28444138169288635,
  -0.18477343022823334,
  -0.09105003625154495,
  0.0,
  0.07958029955625534,
  0.16093020141124725,
  0.24611230194568634,
  0.33791524171829224,
  0.44070982933044434,
  0.5626170039176941,
  0.7229568362236023,
  1.0,
]);

const CODE_TABLE = [-111, -84, -65, -50, -36, -24, -13, -1, 10, 22, 34, 48, 62, 80, 100, 127];

/** Returns the bytes of an extent of random weights; rows of q4o have 0 to 5 outliers, or as many as `outliersOf` says. */
export function randomExtent(
  numbers: Random,
  format: FormatName,
  rows: number,
  cols: number,
  outliersOf: (row: number) => number = () => numbers.integer(6),
): { bytes: Uint8Array<ArrayBuffer>; outliers: number } {
  const blocks = Math.ceil(cols / 32);
  const rowOutliers = Array.from({ length: rows }, (_, row) => {
    if (format !== "q4o") return [];
    const count = outliersOf(row);
    const columns = count <= 5
      ? Array.from({ length: count }, () => numbers.integer(cols))
      : numbers.permutation(cols).slice(0, count);
    return [...new Set(columns)].sort((a, b) => a - b);
  });
  const outliers = rowOutliers.reduce((sum, list) => sum + list.length, 0);
  const at = sections(format, rows, cols, outliers);
  const bytes = new Uint8Array(at.bytes), view = new DataView(bytes.buffer);
  const fill = (from: number, count: number) => {
    for (let i = 0; i < count; i++) bytes[from + i] = numbers.integer(256);
  };
  switch (format) {
    case "f32":
      for (let i = 0; i < rows * cols; i++) view.setFloat32(i * 4, numbers.normal(), true);
      break;
    case "f16":
    case "bf16":
      for (let i = 0; i < rows * cols; i++) view.setUint16(i * 2, (format === "f16" ? toF16 : toBf16)(numbers.normal()), true);
      break;
    case "q8":
      for (let i = 0; i < rows * blocks; i++) view.setUint16(at.scale + i * 2, toBf16(numbers.normal() * 0.01), true);
      for (let r = 0; r < rows; r++) fill(at.code + r * blocks * 32, cols);
      break;
    case "nf4":
      for (let i = 0; i < Math.ceil(rows * cols / 64); i++) view.setFloat32(at.absmax + i * 4, Math.abs(numbers.normal()), true);
      fill(at.code, Math.ceil(rows * cols / 2));
      break;
    case "q4o": {
      CODE_TABLE.forEach((value, i) => view.setInt8(at.code_table + i, value));
      for (let c = 0; c < cols; c++) bytes[at.column_scale + c] = 110 + numbers.integer(36);
      for (let r = 0; r < rows; r++) view.setUint16(at.row_scale + r * 2, toBf16(1e-4 * (1 + numbers.uniform())), true);
      fill(at.block_scale, rows * blocks);
      fill(at.code, rows * blocks * 16);
      let next = 0, base = 0;
      rowOutliers.forEach((list, r) => {
        if (r % 64 === 0) view.setUint32(at.outlier_base + r / 64 * 4, base = next, true);
        view.setUint16(at.outlier_start + r * 2, next - base, true);
        for (const col of list) {
          view.setUint16(at.outlier_col + next * 2, col, true);
          view.setUint16(at.outlier + next * 2, toF16(numbers.normal() * 100), true);
          next++;
        }
      });
    }
  }
  return { bytes, outliers };
}

/** Returns the weights [rows, cols] of an extent. */
export function decodeExtent(
  format: FormatName,
  bytes: Uint8Array<ArrayBuffer>,
  rows: number,
  cols: number,
  outliers: number,
): Float64Array {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const at = sections(format, rows, cols, outliers), blocks = Math.ceil(cols / 32);
  const weights = new Float64Array(rows * cols);
  const u16 = (section: string, i: number) => view.getUint16(at[section] + i * 2, true);
  for (let r = 0; r < rows; r++) {
    for (let c = 0; c < cols; c++) {
      const i = r * cols + c, block = r * blocks + Math.floor(c / 32);
      switch (format) {
        case "f32":
          weights[i] = view.getFloat32(i * 4, true);
          break;
        case "f16":
          weights[i] = fromF16(u16("values", i));
          break;
        case "bf16":
          weights[i] = fromBf16(u16("values", i));
          break;
        case "q8":
          weights[i] = fromBf16(u16("scale", block)) * view.getInt8(at.code + r * blocks * 32 + c);
          break;
        case "nf4":
          weights[i] = NF4[bytes[at.code + (i >> 1)] >> (i % 2 ? 0 : 4) & 15] *
            view.getFloat32(at.absmax + Math.floor(i / 64) * 4, true);
          break;
        case "q4o": {
          const inBlock = c % 32, byte = bytes[at.code + block * 16 + inBlock % 16];
          const code = view.getInt8(at.code_table + (inBlock < 16 ? byte & 15 : byte >> 4));
          weights[i] = view.getInt8(at.block_scale + block) * code;
        }
      }
    }
  }
  if (format !== "q4o") return weights;
  for (let r = 0; r < rows; r++) {
    const start = (row: number) =>
      row === rows ? outliers : view.getUint32(at.outlier_base + (row >> 6) * 4, true) + u16("outlier_start", row);
    for (let i = start(r); i < start(r + 1); i++) weights[r * cols + u16("outlier_col", i)] += 128 * fromF16(u16("outlier", i));
    for (let c = 0; c < cols; c++) {
      weights[r * cols + c] *= fromBf16(u16("row_scale", r)) * 2 ** ((bytes[at.column_scale + c] - 128) / 16);
    }
  }
  return weights;
}
