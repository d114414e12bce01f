/**
 * Integer weights with a scale, and perhaps a zero point, for each row's groups of columns: rows of them into extents of int4 and int8.
 * @module
 */
import type { Dtype } from "../checkpoint/safetensors.ts";
import type { PackedFormatName } from "../shard/packed_formats.ts";
import { codeRowBytes } from "./nibbles.ts";

/** What the extents of one matrix hold. */
export interface ScaledIntegers {
  bits: 4 | 8;
  cols: number;
  /** Columns that share a scale; 0 for all. */
  group: number;
  /** Type of the scales. */
  type: "f32" | "f16" | "bf16";
  zero: boolean;
  /** Group of each column, where that is not its place divided by `group`. */
  order?: Uint16Array<ArrayBuffer>;
}

/** Names of the element types of scales in formats' names. */
export const SCALE_TYPES: Partial<Record<Dtype, ScaledIntegers["type"]>> = { F32: "f32", F16: "f16", BF16: "bf16" };

/** Returns whether a format can have groups of this many columns. */
export function isGroupSize(columns: number): boolean {
  return columns >= 32 && columns <= 65_536 && Number.isInteger(Math.log2(columns));
}

/** Returns the format's name. */
export function integerFormat({ bits, group, type, zero, order }: ScaledIntegers): PackedFormatName {
  return `int${bits}-${group === 0 ? "row" : `${group}`}-${type}${zero ? "-zero" : ""}${
    order ? "-order" : ""
  }` as PackedFormatName;
}

/** Number of scales of a row. */
export function groupsOf({ cols, group }: ScaledIntegers): number {
  return group === 0 ? 1 : Math.ceil(cols / group);
}

/** The sections of an extent, from one of its rows on. */
export interface IntegerSections {
  /** Bytes of scales. */
  scale: Uint8Array<ArrayBuffer>;
  /** Zero points: u8 where bits are 4, else i16. Empty where there are none. */
  zero: Uint8Array<ArrayBuffer> | Int16Array<ArrayBuffer>;
  code: Uint8Array<ArrayBuffer>;
}

/** Returns the sections from a row of the extent on, and writes the order of columns. */
export function integerSections(
  format: ScaledIntegers,
  sections: readonly Uint8Array<ArrayBuffer>[],
  atRow: number,
): IntegerSections {
  const { bits, cols, type, zero, order } = format, groups = groupsOf(format), first = atRow * groups;
  const [scale, ...rest] = sections;
  const zeroSection = zero ? rest.shift()! : new Uint8Array(0);
  if (order) rest.shift()!.set(new Uint8Array(order.buffer, order.byteOffset, order.byteLength));
  const codeBytes = bits === 4 ? codeRowBytes(cols) : Math.ceil(cols / 32) * 32;
  return {
    scale: scale.subarray(first * (type === "f32" ? 4 : 2)),
    zero: bits === 4
      ? zeroSection.subarray(first)
      : new Int16Array(zeroSection.buffer, zeroSection.byteOffset, zeroSection.byteLength / 2).subarray(first),
    code: rest[0].subarray(atRow * codeBytes),
  };
}
