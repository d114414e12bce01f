/**
 * Codes of a few bits that follow each other in 32-bit words from the lowest bit on, some of them across two words.
 * @module
 */

/** Returns the words that so many codes take. */
export function streamWords(codes: number, bits: number): number {
  return Math.ceil(codes * bits / 32);
}

/**
 * Returns code `index` of a stream.
 * @param first Index of the stream's first word.
 * @param stride Words from one word of the stream to the next.
 */
export function streamCode(words: Uint32Array, first: number, stride: number, index: number, bits: number): number {
  const bit = index * bits, shift = bit % 32, word = first + Math.floor(bit / 32) * stride;
  const low = words[word] >>> shift, mask = (1 << bits) - 1;
  return (shift + bits > 32 ? low | words[word + stride] << (32 - shift) : low) & mask;
}
