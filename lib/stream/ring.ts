/**
 * A ring allocator: parts of one buffer, freed in the order they were allocated.
 * @module
 */

/** Hands out offsets into `capacityBytes` of memory. No part wraps around the end. */
export class Ring {
  readonly #parts: { offset: number; bytes: number }[] = [];
  #usedBytes = 0;
  #peakBytes = 0;

  constructor(readonly capacityBytes: number) {}

  /** Bytes allocated now. */
  get usedBytes(): number {
    return this.#usedBytes;
  }

  /** Most bytes that have been allocated at a time. */
  get peakBytes(): number {
    return this.#peakBytes;
  }

  /** Returns the offset of a new part, or undefined while there is no room for it. */
  allocate(bytes: number): number | undefined {
    const offset = this.#place(bytes);
    if (offset === undefined) return undefined;
    this.#parts.push({ offset, bytes });
    this.#usedBytes += bytes;
    this.#peakBytes = Math.max(this.#peakBytes, this.#usedBytes);
    return offset;
  }

  #place(bytes: number): number | undefined {
    // An empty ring starts over, so that every part up to the capacity fits sooner or later.
    if (this.#parts.length === 0) return bytes <= this.capacityBytes ? 0 : undefined;
    const { offset: first } = this.#parts[0];
    const last = this.#parts[this.#parts.length - 1];
    const end = last.offset + last.bytes;
    const wrapped = last.offset < first;
    if (wrapped) return end + bytes <= first ? end : undefined;
    if (end + bytes <= this.capacityBytes) return end;
    return bytes <= first ? 0 : undefined;
  }

  /** Frees the oldest part. */
  freeOldest(): void {
    const part = this.#parts.shift();
    if (part) this.#usedBytes -= part.bytes;
  }

  /** Frees all parts. */
  reset(): void {
    this.#parts.length = 0;
    this.#usedBytes = 0;
  }
}
