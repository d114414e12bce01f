/**
 * The sizes of weight extents, as cuda/airkern.h lays them out; needed where no native library is loaded.
 * @module
 */
import type { WeightFormatName } from "./manifest.ts";

/** Sections of an extent start on a multiple of this many bytes from its start. */
const SECTION_ALIGNMENT = 64;

/** Bytes of each section of an extent, in order. */
const SECTIONS: Record<WeightFormatName, (rows: number, cols: number, outliers: number) => number[]> = {
  f32: (rows, cols) => [rows * cols * 4],
  f16: (rows, cols) => [rows * cols * 2],
  bf16: (rows, cols) => [rows * cols * 2],
  q8: (rows, cols) => {
    const blocks = Math.ceil(cols / 32);
    return [rows * blocks * 2, rows * blocks * 32];
  },
  nf4: (rows, cols) => [Math.ceil(rows * cols / 64) * 4, Math.ceil(rows * cols / 2)],
  q4o: (rows, cols, outliers) => {
    const blocks = Math.ceil(cols / 32);
    return [
      64,
      cols,
      rows * 2,
      rows * blocks,
      rows * blocks * 16,
      Math.ceil(rows / 64) * 4,
      rows * 2,
      outliers * 2,
      outliers * 2,
    ];
  },
};

/** Names of the weight formats. */
export const WEIGHT_FORMATS = Object.keys(SECTIONS) as readonly WeightFormatName[];

/** Returns where each section of an extent lies, in bytes from its start, in the order of cuda/airkern.h. */
export function extentSections(
  format: WeightFormatName,
  rows: number,
  cols: number,
  outliers: number,
): { offset: number; bytes: number }[] {
  let end = 0;
  return SECTIONS[format](rows, cols, outliers).map((bytes) => {
    const offset = Math.ceil(end / SECTION_ALIGNMENT) * SECTION_ALIGNMENT;
    end = offset + bytes;
    return { offset, bytes };
  });
}

/** Returns the length in bytes of an extent, not padded at its end: what airk_extent_bytes says. */
export function extentBytes(format: WeightFormatName, rows: number, cols: number, outliers: number): number {
  const last = extentSections(format, rows, cols, outliers).at(-1)!;
  return last.offset + last.bytes;
}

/** Returns the least number of rows that every extent of a format but the last is a multiple of, for matrices of this width. */
export function rowGranularity(format: WeightFormatName, cols: number): number {
  if (format !== "nf4") return 1;
  // nf4 blocks of 64 run over the flat tensor, so an extent has to start on one.
  let a = 64, b = cols;
  while (b !== 0) [a, b] = [b, a % b];
  return 64 / a;
}
