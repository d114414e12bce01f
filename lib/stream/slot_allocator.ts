/**
 * Divides one buffer into slots.
 * @module
 */

/** One allocated part. */
interface Slot {
  offset: number;
  bytes: number;
}

/**
 * Hands out offsets into `capacityBytes` of memory, always the lowest that has room.
 *
 * Not a ring, though slots are mostly freed in the order they were allocated: as long as computing keeps up with the disk, the same few MiB are
 * used again and again and stay in the processor's cache. On the machine of BENCHMARKS.md direct reads into 8 MiB used over and over run at
 * 3.5 GB/s, into a ring of 32 MiB or more at 2.4 GB/s.
 */
export class SlotAllocator {
  readonly #byOffset: Slot[] = [];
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

  /** Returns the offset of a new slot, or undefined while there is no room for it. */
  allocate(bytes: number): number | undefined {
    let offset = 0, index = 0;
    for (const slot of this.#byOffset) {
      if (slot.offset - offset >= bytes) break;
      offset = slot.offset + slot.bytes;
      index++;
    }
    if (offset + bytes > this.capacityBytes) return undefined;
    const slot = { offset, bytes };
    this.#byOffset.splice(index, 0, slot);
    this.#usedBytes += bytes;
    this.#peakBytes = Math.max(this.#peakBytes, this.#usedBytes);
    return offset;
  }

  /** Frees the slot at an offset. */
  free(offset: number): void {
    const index = this.#byOffset.findIndex((slot) => slot.offset === offset);
    if (index < 0) throw new Error(`Cannot free the slot at ${offset}: none begins there`);
    this.#usedBytes -= this.#byOffset.splice(index, 1)[0].bytes;
  }

  /** Frees all slots. */
  reset(): void {
    this.#byOffset.length = 0;
    this.#usedBytes = 0;
  }
}
