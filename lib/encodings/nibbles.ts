/**
 * Four-bit codes in the order that extents have them: in a block of 32 columns byte j holds element j low and element 16 + j high.
 * @module
 */

/** Bytes of a row's codes. */
export function codeRowBytes(cols: number): number {
  return Math.ceil(cols / 32) * 16;
}

/**
 * Writes a row of codes from one that has element 2j in the low nibble of byte j and 2j + 1 in its high one.
 * @param from The row, `cols / 2` bytes rounded up; missing elements of the last block become 0.
 */
export function fromLowFirst(from: Uint8Array, cols: number, into: Uint8Array): void {
  const whole = Math.floor(cols / 32);
  for (let block = 0; block < whole; block++) {
    const at = block * 16;
    for (let j = 0; j < 8; j++) {
      const first = from[at + j], second = from[at + j + 8];
      into[at + 2 * j] = first & 15 | (second & 15) << 4;
      into[at + 2 * j + 1] = first >> 4 | second & 0xf0;
    }
  }
  for (let col = whole * 32; col < cols; col++) setCode(into, col, from[col >> 1] >> (col & 1) * 4 & 15);
}

/** Sets one code of a row whose codes there are 0. */
export function setCode(row: Uint8Array, col: number, code: number): void {
  row[(col >> 5) * 16 + (col & 15)] |= col & 16 ? code << 4 : code;
}
