/**
 * Rows of an 8-bit KV cache, written once more from what cuda/airkern.h says of them.
 * @module
 */
import { fromF16, toF16 } from "./reference.ts";

const BLOCK = 32;

/** Returns codes [ceil(n / 32) * 32] and float16 scales [ceil(n / 32)] of a row. */
export function toQ8(row: ArrayLike<number>): { codes: number[]; scales: number[] } {
  const codes: number[] = [], scales: number[] = [];
  for (let begin = 0; begin < row.length; begin += BLOCK) {
    const block = Array.from({ length: BLOCK }, (_, i) => begin + i < row.length ? row[begin + i] : 0);
    const bits = toF16(Math.fround(Math.max(...block.map(Math.abs)) / 127));
    const scale = fromF16(bits);
    if (!Number.isFinite(scale)) {
      scales.push(0x7e00);
      codes.push(...block.fill(0));
      continue;
    }
    scales.push(bits);
    const inverse = scale > 0 ? Math.fround(1 / scale) : 0;
    codes.push(...block.map((v) => Math.max(-127, Math.min(127, roundHalfEven(Math.fround(v * inverse))))));
  }
  return { codes, scales };
}

/** Returns the n elements that codes and scales stand for. */
export function fromQ8(codes: ArrayLike<number>, scales: ArrayLike<number>, n: number): Float32Array {
  return Float32Array.from({ length: n }, (_, i) => codes[i] * fromF16(scales[Math.floor(i / BLOCK)]));
}

/** Returns the bytes of a q8 cache of rows of `dim` elements. */
export function q8CacheBytes(pages: number, kvHeads: number, pageTokens: number, dim: number): number {
  return pages * kvHeads * pageTokens * Math.ceil(dim / BLOCK) * (BLOCK + 2);
}

/** Returns the bytes where a row's codes and scales begin. */
export function q8Offsets(
  page: number,
  head: number,
  offset: number,
  shape: { kvHeads: number; pageTokens: number; dim: number },
): { code: number; scale: number } {
  const blocks = Math.ceil(shape.dim / BLOCK), rows = shape.kvHeads * shape.pageTokens, row = head * shape.pageTokens + offset;
  const begin = page * rows * blocks * (BLOCK + 2);
  return { code: begin + row * blocks * BLOCK, scale: begin + rows * blocks * BLOCK + row * blocks * 2 };
}

function roundHalfEven(x: number): number {
  const below = Math.floor(x), rest = x - below;
  return rest > 0.5 || (rest === 0.5 && below % 2 !== 0) ? below + 1 : below;
}
