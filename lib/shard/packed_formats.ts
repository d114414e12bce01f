/**
 * The formats that checkpoints come in already packed: their names and the sizes of their sections, as cuda/airkern.h has them.
 * @module
 */

/** Names of packed formats: a family and what differs within it. */
export type PackedFormatName =
  | `bnb4-${string}`
  | `int4-${string}`
  | `int8-${string}`
  | `fp8-${string}`
  | "mxfp4"
  | "nvfp4"
  | "nvfp4-product"
  | "q4_k"
  | "q5_k"
  | "q6_k"
  | "iq4_nl"
  | "q4_1"
  | "q5_0"
  | "q5_1"
  | "q2_k"
  | "q3_k"
  | "iq4_xs"
  | "tq2_0"
  | "iq2_xxs"
  | "iq2_xs"
  | "iq2_s"
  | "iq3_xxs"
  | "iq3_s"
  | "iq1_s"
  | "iq1_m";

/** What a packed format's name says. */
export interface Packing {
  family: "bnb4" | "int4" | "int8" | "fp8" | Exclude<PackedFormatName, `${string}-${string}`>;
  /** bnb4: elements of the flat tensor that share an absmax. int4, int8, fp8: columns that share a scale, 0 for the whole row. */
  group: number;
  /** bnb4: absmax that share a nested absmax, 0 where they are float32. fp8: rows that share a scale. */
  second: number;
  /** bnb4: what weights are rounded to. int4, int8: type of the scales. */
  type: "f32" | "f16" | "bf16" | "scb";
  /** int4, int8: zero points are stored. */
  zero: boolean;
  /** int4, int8: the group of each column is stored. */
  order: boolean;
  /** nvfp4: scales are multiplied by the global one, where compressed-tensors divides. */
  product: boolean;
}

const NAME =
  /^(?:(bnb4)-(\d+)(?:x(\d+))?-(f32|f16|bf16)|(int4|int8)-(\d+|row)-(f32|f16|bf16|scb)(-zero)?(-order)?|(fp8)-(\d+)x(\d+|row)|(nvfp4)(-product)?|(mxfp4|q[2-6]_k|iq4_nl|iq4_xs|q4_1|q5_0|q5_1|tq2_0|iq2_xxs|iq2_xs|iq2_s|iq3_xxs|iq3_s|iq1_s|iq1_m))$/;

/** Parses a decimal power of two in a range, as the native library does; NaN for anything else. */
function power(text: string, least: number, most: number): number {
  const value = Number(text);
  return /^[1-9]/.test(text) && value >= least && value <= most && Number.isInteger(Math.log2(value)) ? value : NaN;
}

/** Returns what a packed format's name says, or undefined where it is none. */
export function parsePacking(name: string): Packing | undefined {
  const match = NAME.exec(name);
  if (match === null) return undefined;
  const [, bnb4, block, nested, rounded, integer, group, scale, zero, order, fp8, rows, cols, nvfp4, product, plain] = match;
  const columns = (text: string) => text === "row" ? 0 : power(text, 32, 65536);
  const none = { group: 0, second: 0, type: "f32", zero: false, order: false, product: false } as const;
  let packing: Packing;
  if (bnb4 !== undefined) {
    packing = {
      ...none,
      family: "bnb4",
      group: power(block, 2, 4096),
      second: nested === undefined ? 0 : power(nested, 1, 4096),
      type: rounded as Packing["type"],
    };
  } else if (integer !== undefined) {
    if (scale === "scb" && (integer === "int4" || zero !== undefined || order !== undefined)) return undefined;
    if (group === "row" && order !== undefined) return undefined;
    packing = {
      ...none,
      family: integer as Packing["family"],
      group: columns(group),
      type: scale as Packing["type"],
      zero: zero !== undefined,
      order: order !== undefined,
    };
  } else if (fp8 !== undefined) packing = { ...none, family: "fp8", group: columns(cols), second: power(rows, 1, 128) };
  else packing = { ...none, family: (nvfp4 ?? plain) as Packing["family"], product: product !== undefined };
  return Number.isNaN(packing.group) || Number.isNaN(packing.second) ? undefined : packing;
}

/** Returns the name of a packing. */
export function packingName({ family, group, second, type, zero, order, product }: Packing): PackedFormatName {
  const columns = group === 0 ? "row" : `${group}`;
  switch (family) {
    case "bnb4":
      return `bnb4-${group}${second === 0 ? "" : `x${second}`}-${type}`;
    case "int4":
    case "int8":
      return `${family}-${columns}-${type}${zero ? "-zero" : ""}${order ? "-order" : ""}`;
    case "fp8":
      return `fp8-${second}x${columns}`;
    case "nvfp4":
      return product ? "nvfp4-product" : "nvfp4";
    default:
      return family;
  }
}

/** Bytes of each section that a block of 256 columns has, of GGUF's whose scales are apart. */
const LONG_BLOCKS = {
  q2_k: [20, 64],
  q3_k: [14, 32, 64],
  iq4_xs: [8, 128],
  tq2_0: [2, 64],
  iq2_xxs: [2, 64],
  iq2_xs: [10, 64],
  iq2_s: [10, 8, 64],
  iq3_xxs: [2, 32, 64],
  iq3_s: [6, 40, 64],
  iq1_s: [2, 16, 32],
  iq1_m: [8, 16, 32],
} as const;

/** Returns the bytes of each section of an extent, in order. */
export function packedSections(packing: Packing, rows: number, cols: number): number[] {
  const { family, group, second, type, zero, order } = packing;
  const blocks = Math.ceil(cols / 32), groups = group === 0 ? 1 : Math.ceil(cols / group);
  const scaleBytes = type === "f16" || type === "bf16" ? 2 : 4;
  switch (family) {
    case "bnb4": {
      const absmax = Math.ceil(rows * cols / group), code = Math.ceil(rows * cols / 2);
      return second === 0 ? [64, absmax * 4, code] : [64, 1024, 4, Math.ceil(absmax / second) * 4, absmax, code];
    }
    case "int4":
      return [rows * groups * scaleBytes, ...(zero ? [rows * groups] : []), ...(order ? [cols * 2] : []), rows * blocks * 16];
    case "int8":
      return [rows * groups * scaleBytes, ...(zero ? [rows * groups * 2] : []), ...(order ? [cols * 2] : []), rows * blocks * 32];
    case "fp8":
      return [Math.ceil(rows / second) * groups * 4, rows * blocks * 32];
    case "mxfp4":
      return [rows * blocks, rows * blocks * 16];
    case "nvfp4":
      return [4, rows * blocks * 2, rows * blocks * 16];
    case "iq4_nl":
      return [rows * blocks * 2, rows * blocks * 16];
    case "q4_1":
      return [rows * blocks * 4, rows * blocks * 16];
    case "q5_0":
      return [rows * blocks * 2, rows * blocks * 4, rows * blocks * 16];
    case "q5_1":
      return [rows * blocks * 4, rows * blocks * 4, rows * blocks * 16];
    case "q4_k":
      return [rows * cols / 256 * 144];
    case "q5_k":
      return [rows * cols / 256 * 176];
    case "q6_k":
      return [rows * cols / 256 * 210];
    default:
      return LONG_BLOCKS[family].map((bytes) => rows * cols / 256 * bytes);
  }
}

/** Returns what the columns of a matrix must be a multiple of. */
export function packedColumnUnit({ family }: Packing): number {
  return family in LONG_BLOCKS || /^q\d_k$/.test(family) ? 256 : 1;
}

/** Returns the least number of elements (bnb4) or rows (fp8) that every extent but the last holds a multiple of. */
export function packedExtentUnit({ family, group, second }: Packing): { elements: number; rows: number } {
  if (family === "bnb4") return { elements: group * Math.max(1, second), rows: 1 };
  return { elements: 1, rows: family === "fp8" ? second : 1 };
}

/** Returns whether every section holds the same number of bytes for each row, so that rows can be read one by one. */
export function packedRowByRow({ family, second, order }: Packing): boolean {
  return !order && family !== "bnb4" && family !== "nvfp4" && !(family === "fp8" && second !== 1);
}
