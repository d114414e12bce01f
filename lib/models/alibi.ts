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
