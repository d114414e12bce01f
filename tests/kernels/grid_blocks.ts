/**
 * GGUF's IQ types whose codes are points, for tests: decoded element by element, written from the comments of ggml-common.h and gguf-py's quants.py.
 * The points themselves are those of cpu/gguf_grids.h, which come from gguf-py's tables.
 * @module
 */
import { fromF16 } from "./reference.ts";

/** Bytes of a block's sections: small numbers, what does not fit the codes, codes. */
export const GRID_BLOCKS = {
  iq2_xxs: [2, 0, 64],
  iq2_xs: [10, 0, 64],
  iq2_s: [10, 8, 64],
  iq3_xxs: [2, 32, 64],
  iq3_s: [6, 40, 64],
  iq1_s: [2, 16, 32],
  iq1_m: [8, 16, 32],
} as const;

/** Name of such a type. */
export type GridName = keyof typeof GRID_BLOCKS;

const HEADER = Deno.readTextFileSync(new URL("../../cpu/gguf_grids.h", import.meta.url));

function points(name: string): number[] {
  const text = new RegExp(`#define AIRK_GRID_${name} \\{([^}]*)\\}`).exec(HEADER)![1];
  return text.replaceAll("\\", "").split(",").map(Number);
}

const GRIDS = {
  iq2_xxs: points("IQ2_XXS"),
  iq2_xs: points("IQ2_XS"),
  iq2_s: points("IQ2_S"),
  iq3_xxs: points("IQ3_XXS"),
  iq3_s: points("IQ3_S"),
  iq1_s: points("IQ1"),
  iq1_m: points("IQ1"),
};

const VALUES = {
  iq2_xxs: [8, 25, 43],
  iq2_xs: [8, 25, 43],
  iq2_s: [8, 25, 43],
  iq3_xxs: [4, 12, 20, 28, 36, 44, 52, 62],
  iq3_s: [1, 3, 5, 7, 9, 11, 13, 15],
  iq1_s: [-1, 0, 1],
  iq1_m: [-1, 0, 1],
};

/** Seven stored signs and the eighth, with which their number is even. */
function eightSigns(seven: number): number {
  let ones = 0;
  for (let i = 0; i < 7; i++) ones += seven >> i & 1;
  return seven | (ones % 2) << 7;
}

/** Returns element `i` of 256. @param head, high, code Where the block's sections start. */
export function gridElement(name: GridName, view: DataView, head: number, high: number, code: number, i: number): number {
  const f = Math.fround,
    byte = (at: number) => view.getUint8(at),
    sub = i >> 5,
    group = i >> 3 & 3,
    n = 4 * sub + group,
    j = i % 8;
  const half = (at: number) => fromF16(view.getUint16(at, true));
  const nibble = (at: number, which: number) => byte(at) >> 4 * which & 15;
  const [bits, mask] = name.startsWith("iq3") ? [3, 7] : [2, 3];
  const valueOf = (index: number, at: number) => VALUES[name][GRIDS[name][index] >> bits * at & mask];
  let index: number, signs = 0, scale: number, shift = 0;
  switch (name) {
    case "iq2_xxs": {
      const word = view.getUint32(code + 8 * sub + 4, true);
      index = byte(code + 8 * sub + group);
      signs = eightSigns(word >>> 7 * group & 127);
      scale = f(half(head) * (0.5 + (word >>> 28)) * 0.25);
      break;
    }
    case "iq2_xs": {
      const both = view.getUint16(code + 2 * n, true);
      index = both & 511;
      signs = eightSigns(both >> 9);
      scale = f(half(head) * (0.5 + nibble(head + 2 + sub, group >> 1)) * 0.25);
      break;
    }
    case "iq2_s":
      index = byte(code + n) | (byte(high + sub) >> 2 * group & 3) << 8;
      signs = byte(code + 32 + n);
      scale = f(half(head) * (0.5 + nibble(head + 2 + sub, group >> 1)) * 0.25);
      break;
    case "iq3_xxs": {
      const word = view.getUint32(high + 4 * sub, true);
      index = byte(code + 2 * n + (j >> 2));
      signs = eightSigns(word >>> 7 * group & 127);
      scale = f(half(head) * (0.5 + (word >>> 28)) * 0.5);
      break;
    }
    case "iq3_s": {
      const which = 2 * group + (j >> 2);
      index = byte(code + 8 * sub + which) | (byte(high + sub) >> which & 1) << 8;
      signs = byte(high + 8 + n);
      scale = f(half(head) * (1 + 2 * nibble(head + 2 + (sub >> 1), sub % 2)));
      break;
    }
    case "iq1_s": {
      const both = view.getUint16(high + 2 * sub, true);
      index = byte(code + n) | (both >> 3 * group & 7) << 8;
      scale = f(half(head) * (2 * (both >> 12 & 7) + 1));
      shift = both & 0x8000 ? -0.125 : 0.125;
      break;
    }
    case "iq1_m": {
      const four = nibble(high + (n >> 1), n % 2), step = (at: number) => view.getUint16(head + 2 * at, true);
      index = byte(code + n) | (four & 7) << 8;
      const bits16 = step(0) >> 12 | step(1) >> 12 << 4 | step(2) >> 12 << 8 | step(3) >> 12 << 12;
      scale = f(fromF16(bits16) * (2 * (step(sub >> 1) >> 3 * (2 * (sub % 2) + (group >> 1)) & 7) + 1));
      shift = four & 8 ? -0.125 : 0.125;
      break;
    }
  }
  const value = valueOf(index, bits === 3 ? j % 4 : j);
  return f(scale * (name.startsWith("iq1") ? value + shift : signs >> j & 1 ? -value : value));
}
