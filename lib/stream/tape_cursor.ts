/**
 * Goes over the positions of a tape again and again, one pass after the other, some of which end early.
 * @module
 */

/** Where whoever prepares extents is: some way into this pass, or into the next. */
export class TapeCursor {
  readonly #positions: readonly number[];
  /** Extents passed since the beginning, those left out included. */
  #index = 0;
  /** The part of a pass that is left out, as indexes like that. */
  #gap: { from: number; to: number } | undefined;

  /** `positions`: those of the tape that matter here, in order. */
  constructor(positions: readonly number[]) {
    this.#positions = positions;
  }

  /** Returns the position that comes next; undefined where it is beyond so many passes. */
  next(passes: number): number | undefined {
    this.#leap();
    const { length } = this.#positions;
    return this.#index < passes * length ? this.#positions[this.#index % length] : undefined;
  }

  /** Goes on behind that position. */
  advance(): void {
    this.#index++;
  }

  /**
   * Leaves out what a pass (number, from 0) has from `position` on, but for what was passed already. Returns the position at which the pass ends
   * then: `position`, or behind the last that was passed.
   */
  cut(pass: number, position: number): number {
    this.#leap();
    const { length } = this.#positions;
    const start = pass * length, end = start + length;
    const kept = this.#positions.findIndex((other) => other >= position);
    const from = kept < 0 ? end : start + kept;
    if (this.#index >= end) return length > 0 && from < end ? this.#positions[length - 1] + 1 : position;
    if (from < end) this.#gap = { from: Math.max(from, this.#index), to: end };
    return this.#index > from ? this.#positions[this.#index - 1 - start] + 1 : position;
  }

  /** Goes over what is left out, once it is what comes next. */
  #leap(): void {
    if (this.#gap?.from !== this.#index) return;
    this.#index = this.#gap.to;
    this.#gap = undefined;
  }

  /** Goes back to the start of the first pass. */
  rewind(): void {
    this.#index = 0;
    this.#gap = undefined;
  }
}
