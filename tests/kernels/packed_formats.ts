/**
 * Extents of packed formats for tests: made from random numbers and decoded element by element, written from the layouts in
 * cuda/airkern.h and the documents of each format, with float32 roundings where those have them.
 * @module
 */
import { GRID_BLOCKS, gridElement, type GridName } from "./grid_blocks.ts";
import { fromBf16, fromF16, type Random, toBf16, toF16 } from "./reference.ts";

/** Names of packed formats, one or more of each family. */
export const PACKED_FORMATS = [
  "bnb4-64-bf16",
  "bnb4-64x256-bf16",
  "bnb4-64x4-f16",
  "bnb4-128-f32",
  "int4-128-f16",
  "int4-32-bf16-zero",
  "int4-row-f32",
  "int4-32-f16-zero-order",
  "int8-row-scb",
  "int8-32-f16",
  "int8-64-bf16-zero",
  "int8-32-f32-order",
  "fp8-128x128",
  "fp8-1xrow",
  "mxfp4",
  "nvfp4",
  "nvfp4-product",
  "q4_k",
  "q5_k",
  "q6_k",
  "iq4_nl",
  "q4_1",
  "q5_0",
  "q5_1",
  "q2_k",
  "q3_k",
  "iq4_xs",
  "tq2_0",
  "iq2_xxs",
  "iq2_xs",
  "iq2_s",
  "iq3_xxs",
  "iq3_s",
  "iq1_s",
  "iq1_m",
] as const;
/** Name of a packed format that is tested. */
export type PackedName = typeof PACKED_FORMATS[number];

const f = Math.fround;
const ROUND = { f32: f, f16: (v: number) => fromF16(toF16(v)), bf16: (v: number) => fromBf16(toBf16(v)) };
const E2M1 = [0, 0.5, 1, 1.5, 2, 3, 4, 6];
const IQ4_NL = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

/** Value of an e4m3 byte, without NaN. */
function e4m3(byte: number): number {
  const exponent = byte >> 3 & 15, mantissa = byte & 7, sign = byte & 128 ? -1 : 1;
  return sign * (exponent === 0 ? mantissa * 2 ** -9 : (8 + mantissa) * 2 ** (exponent - 10));
}

/** A packed extent: its bytes, and the value that each weight must have, to the bit. */
export interface PackedExtent {
  bytes: Uint8Array<ArrayBuffer>;
  weights: Float32Array<ArrayBuffer>;
}

/** Lays sections out on multiples of 64 bytes. */
class Extent {
  readonly #sections: { offset: number; bytes: number }[] = [];
  #end = 0;
  add(bytes: number): number {
    const offset = Math.ceil(this.#end / 64) * 64;
    this.#sections.push({ offset, bytes });
    this.#end = offset + bytes;
    return offset;
  }
  get bytes(): number {
    return this.#end;
  }
}

/** Returns an extent of random weights. Columns must be a multiple of 256 where blocks are as long. */
export function packedExtent(numbers: Random, format: PackedName, rows: number, cols: number): PackedExtent {
  const [family, ...parameters] = format.split("-");
  const zero = parameters.includes("zero"),
    order = parameters.includes("order"),
    blocks = Math.ceil(cols / 32),
    extent = new Extent();
  const weights = new Float32Array(rows * cols);
  const random = (bytes: Uint8Array, from: number, count: number) => {
    for (let i = 0; i < count; i++) bytes[from + i] = numbers.integer(256);
  };
  const finish = (fill: (bytes: Uint8Array, view: DataView) => (row: number, col: number) => number) => {
    const bytes = new Uint8Array(extent.bytes), at = fill(bytes, new DataView(bytes.buffer));
    for (let r = 0; r < rows; r++) for (let c = 0; c < cols; c++) weights[r * cols + c] = at(r, c);
    return { bytes, weights };
  };
  /** A nibble of [rows][blocks * 16] codes, element j of a block low and 16 + j high. */
  const nibble = (bytes: Uint8Array, code: number, r: number, c: number) => {
    const byte = bytes[code + (r * blocks + (c >> 5)) * 16 + c % 16];
    return c % 32 < 16 ? byte & 15 : byte >> 4;
  };
  const signedE2m1 = (code: number) => (code & 8 ? -1 : 1) * E2M1[code & 7];

  switch (family) {
    case "bnb4": {
      const [sizes, type] = parameters as [string, keyof typeof ROUND], [block, nested] = sizes.split("x").map(Number);
      const count = Math.ceil(rows * cols / block), map = extent.add(64);
      const nestedMap = nested ? extent.add(1024) : 0, offset = nested ? extent.add(4) : 0;
      const groups = nested ? Math.ceil(count / nested) : 0, groupScale = nested ? extent.add(groups * 4) : 0;
      const absmax = extent.add(nested ? count : count * 4), code = extent.add(Math.ceil(rows * cols / 2));
      return finish((bytes, view) => {
        for (let i = 0; i < 16; i++) view.setFloat32(map + i * 4, numbers.normal(), true);
        // In one shape that no product is made of: results that are subnormals of float16 or beyond its range.
        (rows === 3 ? [1e-7, 3e-5, 1e5, 0, -0] : []).forEach((value, i) => view.setFloat32(map + i * 12, value, true));
        for (let i = 0; i < (nested ? 256 : 0); i++) view.setFloat32(nestedMap + i * 4, numbers.normal(), true);
        for (let i = 0; i < groups; i++) view.setFloat32(groupScale + i * 4, Math.abs(numbers.normal()), true);
        if (nested) {
          view.setFloat32(offset, 0.37, true);
          random(bytes, absmax, count);
        } else for (let i = 0; i < count; i++) view.setFloat32(absmax + i * 4, Math.abs(numbers.normal()), true);
        random(bytes, code, Math.ceil(rows * cols / 2));
        return (r, c) => {
          const element = r * cols + c, index = Math.floor(element / block);
          const byte = bytes[code + (element >> 1)],
            value = view.getFloat32(map + 4 * (element % 2 ? byte & 15 : byte >> 4), true);
          const scale = nested
            ? f(
              f(
                view.getFloat32(nestedMap + 4 * bytes[absmax + index], true) *
                  view.getFloat32(groupScale + 4 * Math.floor(index / nested), true),
              ) + view.getFloat32(offset, true),
            )
            : view.getFloat32(absmax + 4 * index, true);
          return ROUND[type](f(value * scale));
        };
      });
    }
    case "int4":
    case "int8": {
      const [group, type] = parameters, eight = family === "int8";
      const groups = group === "row" ? 1 : Math.ceil(cols / Number(group)), size = type === "f16" || type === "bf16" ? 2 : 4;
      const scale = extent.add(rows * groups * size), zeros = zero ? extent.add(rows * groups * (eight ? 2 : 1)) : 0;
      const columns = order ? extent.add(cols * 2) : 0;
      const code = extent.add(rows * blocks * (eight ? 32 : 16));
      return finish((bytes, view) => {
        for (let i = 0; i < rows * groups; i++) {
          const value = numbers.normal() * 0.01;
          if (size === 4) view.setFloat32(scale + i * 4, value, true);
          else view.setUint16(scale + i * 2, type === "f16" ? toF16(value) : toBf16(value), true);
          if (zero && eight) view.setInt16(zeros + i * 2, numbers.integer(258) - 128, true);
          else if (zero) bytes[zeros + i] = numbers.integer(17);
        }
        for (let c = 0; c < (order ? cols : 0); c++) view.setUint16(columns + c * 2, numbers.integer(groups), true);
        random(bytes, code, rows * blocks * (eight ? 32 : 16));
        return (r, c) => {
          const own = order ? view.getUint16(columns + c * 2, true) : group === "row" ? 0 : Math.floor(c / Number(group));
          const i = r * groups + own;
          const step = size === 4
            ? view.getFloat32(scale + i * 4, true)
            : (type === "f16" ? fromF16 : fromBf16)(view.getUint16(scale + i * 2, true));
          const value = eight ? view.getInt8(code + r * blocks * 32 + c) : nibble(bytes, code, r, c);
          const least = zero ? (eight ? view.getInt16(zeros + i * 2, true) : bytes[zeros + i]) : eight ? 0 : 8;
          const scaled = f((value - least) * step);
          return type === "scb" ? f(scaled * f(1 / 127)) : scaled;
        };
      });
    }
    case "fp8": {
      const [shared, width] = parameters[0].split("x"), groups = width === "row" ? 1 : Math.ceil(cols / Number(width));
      const scaleRows = Math.ceil(rows / Number(shared)),
        scale = extent.add(scaleRows * groups * 4),
        code = extent.add(rows * blocks * 32);
      return finish((bytes, view) => {
        for (let i = 0; i < scaleRows * groups; i++) view.setFloat32(scale + i * 4, Math.abs(numbers.normal()), true);
        for (let i = 0; i < rows * blocks * 32; i++) bytes[code + i] = numbers.integer(2) * 128 + numbers.integer(127);
        // Beyond the last column NaN is as good as anything.
        for (let r = 0; r < rows; r++) bytes.fill(0x7f, code + r * blocks * 32 + cols, code + (r + 1) * blocks * 32);
        return (r, c) => {
          const i = Math.floor(r / Number(shared)) * groups + (width === "row" ? 0 : Math.floor(c / Number(width)));
          return f(e4m3(bytes[code + r * blocks * 32 + c]) * view.getFloat32(scale + i * 4, true));
        };
      });
    }
    case "mxfp4": {
      const scale = extent.add(rows * blocks), code = extent.add(rows * blocks * 16);
      return finish((bytes) => {
        for (let i = 0; i < rows * blocks; i++) bytes[scale + i] = 110 + numbers.integer(20);
        bytes[scale] = 0;
        random(bytes, code, rows * blocks * 16);
        return (r, c) => f(signedE2m1(nibble(bytes, code, r, c)) * 2 ** (bytes[scale + r * blocks + (c >> 5)] - 127));
      });
    }
    case "nvfp4": {
      const global = extent.add(4), scale = extent.add(rows * blocks * 2), code = extent.add(rows * blocks * 16);
      return finish((bytes, view) => {
        const product = parameters.includes("product");
        view.setFloat32(global, product ? 1 / 1234.5 : 1234.5, true);
        for (let i = 0; i < rows * blocks * 2; i++) bytes[scale + i] = 1 + numbers.integer(126);
        // A scale of no column may be NaN.
        if (cols % 32 > 0 && cols % 32 <= 16) { for (let r = 1; r <= rows; r++) bytes[scale + r * blocks * 2 - 1] = 0x7f; }
        random(bytes, code, rows * blocks * 16);
        return (r, c) => {
          const own = e4m3(bytes[scale + r * blocks * 2 + (c >> 4)]), shared = view.getFloat32(global, true);
          const step = f(product ? own * shared : own / shared);
          return f(signedE2m1(nibble(bytes, code, r, c)) * step);
        };
      });
    }
    case "iq4_nl": {
      const scale = extent.add(rows * blocks * 2), code = extent.add(rows * blocks * 16);
      return finish((bytes, view) => {
        for (let i = 0; i < rows * blocks; i++) view.setUint16(scale + i * 2, toF16(numbers.normal() * 0.01), true);
        random(bytes, code, rows * blocks * 16);
        return (r, c) =>
          f(IQ4_NL[nibble(bytes, code, r, c)] * fromF16(view.getUint16(scale + (r * blocks + (c >> 5)) * 2, true)));
      });
    }
    case "q4_1":
    case "q5_0":
    case "q5_1": {
      const minimum = family !== "q5_0", count = rows * blocks, fifth = family !== "q4_1";
      const scale = extent.add(count * (minimum ? 4 : 2)),
        high = fifth ? extent.add(count * 4) : 0,
        code = extent.add(count * 16);
      return finish((bytes, view) => {
        for (let i = 0; i < count * (minimum ? 2 : 1); i++) view.setUint16(scale + i * 2, toF16(numbers.normal() * 0.01), true);
        random(bytes, code, count * 16);
        if (fifth) random(bytes, high, count * 4);
        return (r, c) => {
          const block = r * blocks + (c >> 5), half = (at: number) => fromF16(view.getUint16(scale + at * 2, true));
          const bit = fifth ? view.getUint32(high + block * 4, true) >>> c % 32 & 1 : 0,
            value = nibble(bytes, code, r, c) + 16 * bit;
          return minimum ? f(f(half(2 * block) * value) + half(2 * block + 1)) : f(half(block) * (value - 16));
        };
      });
    }
    case "q2_k":
    case "q3_k":
    case "tq2_0":
    case "iq4_xs":
      return finish(longBlocks(numbers, family, rows, cols, extent, random));
    case "iq2_xxs":
    case "iq2_xs":
    case "iq2_s":
    case "iq3_xxs":
    case "iq3_s":
    case "iq1_s":
    case "iq1_m":
      return finish(gridBlocks(numbers, family, rows, cols, extent, random));
    default:
      return finish(kBlocks(numbers, format as "q4_k" | "q5_k" | "q6_k", rows, cols, extent, random));
  }
}

/** ggml's blocks of 256 whose scales lie apart, by the comments of ggml-common.h and cuda/airkern.h. */
function longBlocks(
  numbers: Random,
  family: "q2_k" | "q3_k" | "tq2_0" | "iq4_xs",
  rows: number,
  cols: number,
  extent: Extent,
  random: (bytes: Uint8Array, from: number, count: number) => void,
) {
  const count = rows * cols / 256, codeBytes = family === "iq4_xs" ? 128 : 64;
  const headBytes = { q2_k: 20, q3_k: 14, iq4_xs: 8, tq2_0: 2 }[family];
  const head = extent.add(count * headBytes), high = family === "q3_k" ? extent.add(count * 32) : 0;
  const code = extent.add(count * codeBytes);
  return (bytes: Uint8Array, view: DataView) => {
    random(bytes, head, count * headBytes);
    if (family === "q3_k") random(bytes, high, count * 32);
    random(bytes, code, count * codeBytes);
    for (let i = 0; i < count; i++) {
      const halves = { q2_k: [16, 18], q3_k: [12], iq4_xs: [0], tq2_0: [0] }[family];
      for (const at of halves) view.setUint16(head + i * headBytes + at, toF16(numbers.normal() * 0.001), true);
      // ggml's ternary codes are 0, 1 and 2.
      if (family === "tq2_0") {
        for (let j = 0; j < 64; j++) bytes[code + i * 64 + j] &= ~(bytes[code + i * 64 + j] >> 1 & 0x55);
      }
    }
    return (r: number, c: number) => {
      const index = r * (cols / 256) + Math.floor(c / 256),
        i = c % 256,
        own = head + index * headBytes,
        s = (k: number) => bytes[own + k];
      const half = (at: number) => fromF16(view.getUint16(own + at, true));
      if (family === "iq4_xs") {
        const part = i >> 5,
          byte = bytes[code + index * 128 + part * 16 + i % 16],
          value = IQ4_NL[i % 32 < 16 ? byte & 15 : byte >> 4];
        const scale = (s(4 + (part >> 1)) >> 4 * (part % 2) & 15) | (view.getUint16(own + 2, true) >> 2 * part & 3) << 4;
        return f(f(half(0) * (scale - 32)) * value);
      }
      const low = bytes[code + index * 64 + 32 * (i >> 7) + i % 32] >> 2 * (i >> 5 & 3) & 3, run = i >> 4;
      if (family === "tq2_0") return f(half(0) * (low - 1));
      if (family === "q2_k") return f(f(f(half(16) * (s(run) & 15)) * low) - f(half(18) * (s(run) >> 4)));
      const scale = (run < 8 ? s(run) & 15 : s(run - 8) >> 4) | (s(8 + run % 4) >> 2 * (run >> 2) & 3) << 4;
      const bit = bytes[high + index * 32 + i % 32] >> (i >> 5) & 1;
      return f(f(half(12) * (scale - 32)) * (low - (bit ? 0 : 4)));
    };
  };
}

function gridBlocks(
  numbers: Random,
  family: GridName,
  rows: number,
  cols: number,
  extent: Extent,
  random: (bytes: Uint8Array, from: number, count: number) => void,
) {
  const count = rows * cols / 256, [headBytes, highBytes, codeBytes] = GRID_BLOCKS[family];
  const head = extent.add(count * headBytes), high = highBytes > 0 ? extent.add(count * highBytes) : 0;
  const code = extent.add(count * codeBytes);
  return (bytes: Uint8Array, view: DataView) => {
    random(bytes, head, count * headBytes);
    random(bytes, high, high === 0 ? 0 : count * highBytes);
    random(bytes, code, count * codeBytes);
    for (let i = 0; i < count; i++) {
      const at = head + i * headBytes, scale = toF16(numbers.normal() * 0.001);
      if (family !== "iq1_m") view.setUint16(at, scale, true);
      // Four bits of it above those of each four of the steps.
      else for (let k = 0; k < 4; k++) bytes[at + 2 * k + 1] = bytes[at + 2 * k + 1] & 15 | (scale >> 4 * k & 15) << 4;
    }
    return (r: number, c: number) => {
      const index = r * (cols / 256) + Math.floor(c / 256);
      return gridElement(family, view, head + index * headBytes, high + index * highBytes, code + index * codeBytes, c % 256);
    };
  };
}

/** ggml's blocks of 256, by the comments of ggml-common.h. */
function kBlocks(
  numbers: Random,
  format: "q4_k" | "q5_k" | "q6_k",
  rows: number,
  cols: number,
  extent: Extent,
  random: (bytes: Uint8Array, from: number, count: number) => void,
) {
  const size = { q4_k: 144, q5_k: 176, q6_k: 210 }[format], perRow = cols / 256;
  const base = extent.add(rows * perRow * size);
  return (bytes: Uint8Array, view: DataView) => {
    random(bytes, base, rows * perRow * size);
    for (let i = 0; i < rows * perRow; i++) {
      const scales = format === "q6_k" ? [208] : [0, 2];
      for (const at of scales) view.setUint16(base + i * size + at, toF16(numbers.normal() * 0.001), true);
    }
    return (r: number, c: number) => {
      const block = base + (r * perRow + Math.floor(c / 256)) * size, i = c % 256;
      const half = (at: number) => fromF16(view.getUint16(block + at, true));
      if (format === "q6_k") {
        const n = i >> 7, l = i % 32, quarter = (i % 128) >> 5;
        const low = bytes[block + 64 * n + (quarter % 2 ? 32 : 0) + l] >> (quarter < 2 ? 0 : 4) & 15;
        const high = bytes[block + 128 + 32 * n + l] >> (2 * quarter) & 3;
        return f(f(half(208) * view.getInt8(block + 192 + (i >> 4))) * ((low | high << 4) - 32));
      }
      const j = i >> 5, s = (k: number) => bytes[block + 4 + k];
      const scale = j < 4 ? s(j) & 63 : (s(j + 4) & 15) | (s(j - 4) >> 6) << 4;
      const minimum = j < 4 ? s(j + 4) & 63 : s(j + 4) >> 4 | (s(j) >> 6) << 4;
      const codes = block + (format === "q4_k" ? 16 : 48);
      let code = bytes[codes + (i >> 6) * 32 + i % 32] >> (j % 2 ? 4 : 0) & 15;
      if (format === "q5_k") code += (bytes[block + 16 + i % 32] >> j & 1) * 16;
      return f(f(f(half(0) * scale) * code) - f(half(2) * minimum));
    };
  };
}
