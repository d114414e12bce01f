/**
 * Integer weights with a scale, and perhaps a zero point, for each row's groups of columns: rows of them into extents of int4 and int8.
 * @module
 */
import type { Checkpoint } from "../checkpoint/checkpoint.ts";
import type { Dtype } from "../checkpoint/safetensors.ts";
import { UnsupportedError } from "../errors.ts";
import type { PackedFormatName } from "../shard/packed_formats.ts";
import type { Companions } from "./encoding.ts";
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

/**
 * Returns the columns that share a scale, 0 for all, in a matrix of so many groups; the last group may be smaller than the others.
 * @param groupSize What the config says: -1 for all; undefined where it does not.
 * @throws {FormatError} where that would be another number of groups.
 * @throws {UnsupportedError} for groups that no format can have.
 */
export function groupColumns(groupSize: number | undefined, groups: number, cols: number, companions: Companions): number {
  const columns = groupSize ?? Math.ceil(cols / groups), group = columns <= 0 || columns >= cols ? 0 : columns;
  if (group !== 0 && !isGroupSize(group)) {
    throw companions.unsupported(
      `has ${groups} groups of ${group} columns, supported are groups of a power of two from 32 to 65536`,
    );
  }
  const required = group === 0 ? 1 : Math.ceil(cols / group);
  if (groups !== required) {
    throw companions.refuse(`has scales of ${groups} groups, required ${required} for ${cols} columns and group_size ${columns}`);
  }
  return group;
}

/**
 * Returns the `group_size` of a `quantization_config`, or undefined where it has none.
 * @throws {UnsupportedError} where it is no number of columns.
 */
export function groupSizeOf(checkpoint: Checkpoint, config: Record<string, unknown>): number | undefined {
  const size = config.group_size ?? config.q_group_size;
  if (size === undefined || size === null) return undefined;
  if (typeof size === "number" && Number.isInteger(size) && (size === -1 || size > 0)) return size;
  throw new UnsupportedError(
    `Cannot use model ${checkpoint.path}: quantization_config has group_size ${
      JSON.stringify(size)
    }, supported: -1, powers of two from 32 to 65536`,
  );
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
