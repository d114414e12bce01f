/**
 * The sizes of weight extents, as cuda/airkern.h lays them out; needed where no native library is loaded.
 * @module
 */
import type { PlainFormatName, WeightFormatName } from "./manifest.ts";
import {
  packedColumnUnit,
  packedExtentUnit,
  packedRowByRow,
  packedSections,
  type Packing,
  parsePacking,
} from "./packed_formats.ts";

/** Sections of an extent start on a multiple of this many bytes from its start. */
const SECTION_ALIGNMENT = 64;

/** Bytes of each section of an extent, in order. */
const SECTIONS: Record<PlainFormatName, (rows: number, cols: number, outliers: number) => number[]> = {
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

/** Names of the weight formats that are not packed ones of others' checkpoints. */
export const PLAIN_FORMATS = Object.keys(SECTIONS) as readonly PlainFormatName[];

function isPlain(format: string): format is PlainFormatName {
  return Object.hasOwn(SECTIONS, format);
}

/** Returns whether a text is the name of a weight format. */
export function isWeightFormat(name: string): name is WeightFormatName {
  return isPlain(name) || parsePacking(name) !== undefined;
}

function packing(format: WeightFormatName): Packing {
  const found = parsePacking(format);
  if (found === undefined) throw new RangeError(`Cannot size an extent: ${format} is no weight format`);
  return found;
}

/** Returns where each section of an extent lies, in bytes from its start, in the order of cuda/airkern.h. */
export function extentSections(
  format: WeightFormatName,
  rows: number,
  cols: number,
  outliers: number,
): { offset: number; bytes: number }[] {
  let end = 0;
  const sizes = isPlain(format) ? SECTIONS[format](rows, cols, outliers) : packedSections(packing(format), rows, cols);
  return sizes.map((bytes) => {
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

/** Returns what the columns of a matrix of a format must be a multiple of. */
export function columnUnit(format: WeightFormatName): number {
  return isPlain(format) ? 1 : packedColumnUnit(packing(format));
}

/**
 * Returns the bytes that one row has in each section of an extent, in order, or undefined where rows share what is stored: blocks that span
 * rows, outliers, scales of several rows.
 */
export function rowSectionBytes(format: WeightFormatName, cols: number): number[] | undefined {
  if (isPlain(format)) return format === "nf4" || format === "q4o" ? undefined : SECTIONS[format](1, cols, 0);
  const found = packing(format);
  return packedRowByRow(found) ? packedSections(found, 1, cols) : undefined;
}

/** Returns the least number of rows of `cols` elements that hold a multiple of `elements`. */
export function rowsOfWhole(elements: number, cols: number): number {
  let a = elements, b = cols;
  while (b !== 0) [a, b] = [b, a % b];
  return elements / a;
}

/** Returns the least number of rows that every extent of a format but the last is a multiple of, for matrices of this width. */
export function rowGranularity(format: WeightFormatName, cols: number): number {
  // Blocks of nf4 and bnb4 run over the flat tensor, so an extent has to start on one.
  if (isPlain(format)) return format === "nf4" ? rowsOfWhole(64, cols) : 1;
  const { elements, rows } = packedExtentUnit(packing(format));
  return Math.max(rowsOfWhole(elements, cols), rows);
}
