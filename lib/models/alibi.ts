/**
 * Slopes of ALiBi: Press et al. 2022, arXiv:2108.12409.
 * @module
 */

/** Returns [heads], the slope of each head: a geometric sequence, and for numbers of heads that are no power of two, every other of the next. */
export function alibiSlopes(heads: number): number[] {
  const power = 2 ** Math.floor(Math.log2(heads));
  return Array.from(
    { length: heads },
    (_, head) => head < power ? 2 ** (-8 * (head + 1) / power) : 2 ** (-4 * (2 * (head - power) + 1) / power),
  );
}

/** Returns [heads], the slopes of MPT: for numbers of heads that are no power of two, every other of the next power first, then those between. */
export function mptAlibiSlopes(heads: number, most: number): number[] {
  const power = 2 ** Math.ceil(Math.log2(heads));
  const slopes = Array.from({ length: power }, (_, i) => 2 ** (-most * (i + 1) / power));
  if (power === heads) return slopes;
  return [1, 0].flatMap((first) => slopes.filter((_, i) => i % 2 === first)).slice(0, heads);
}
