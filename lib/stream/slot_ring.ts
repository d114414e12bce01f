/**
 * Divides a run of device memory into slots that are used in turn.
 * @module
 */
import type { Event } from "../ffi/context.ts";
import type { EventPool } from "./event_pool.ts";

/** A slot that was handed out. */
interface RingSlot {
  offset: number;
  bytes: number;
  /** Behind the last operation that reads it; undefined while more may come. */
  used?: Event;
}

/**
 * Hands out slots in a ring. A slot may be handed out anew before the device is done with what was there: whoever fills it must wait, on the
 * device, for the event that comes with it. In a ring that is the use longest ago, where the lowest free slot's would be the latest.
 */
export class SlotRing {
  readonly #events: EventPool;
  /** The oldest first. */
  readonly #slots: RingSlot[] = [];
  /** Slots at the beginning of the list are used; the rest are not. */
  #usedSlots = 0;
  /** Behind the last use of the slot that was taken back last. */
  #after: Event | undefined;
  #usedBytes = 0;
  #peakBytes = 0;

  constructor(readonly capacityBytes: number, events: EventPool) {
    this.#events = events;
  }

  /** Most bytes that were handed out at a time. */
  get peakBytes(): number {
    return this.#peakBytes;
  }

  /**
   * Returns a slot's offset and what must be waited for before it or any later one is filled, an event that is the caller's now; undefined
   * while what is in its way is in use.
   */
  allocate(bytes: number): { offset: number; after: Event | undefined } | undefined {
    let offset: number | undefined;
    while ((offset = this.#place(bytes)) === undefined) {
      if (this.#usedSlots === 0) return undefined;
      this.#usedSlots--;
      const { used, bytes: freed } = this.#slots.shift()!;
      this.#usedBytes -= freed;
      // Events are reached in order: the latest stands for all before it.
      if (this.#after) this.#events.giveBack(this.#after);
      this.#after = used;
    }
    this.#slots.push({ offset, bytes });
    this.#usedBytes += bytes;
    this.#peakBytes = Math.max(this.#peakBytes, this.#usedBytes);
    const after = this.#after;
    this.#after = undefined;
    return { offset, after };
  }

  /** Returns where the next slot has room at once. */
  #place(bytes: number): number | undefined {
    const first = this.#slots.at(0), last = this.#slots.at(-1);
    if (!first || !last) return bytes <= this.capacityBytes ? 0 : undefined;
    const head = last.offset + last.bytes;
    if (last.offset < first.offset) return first.offset - head >= bytes ? head : undefined;
    if (this.capacityBytes - head >= bytes) return head;
    return first.offset >= bytes ? 0 : undefined;
  }

  /** Gives back the oldest slot that is in use; the event, behind its last use, becomes the ring's own. */
  giveBack(used: Event): void {
    this.#slots[this.#usedSlots++].used = used;
  }

  /** Frees all slots; nothing may use them any more. */
  reset(): void {
    for (const { used } of this.#slots.splice(0)) if (used) this.#events.giveBack(used);
    if (this.#after) this.#events.giveBack(this.#after);
    this.#after = undefined;
    this.#usedSlots = this.#usedBytes = 0;
  }
}
