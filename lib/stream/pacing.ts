/**
 * Keeps the host from running too far ahead of a device.
 * @module
 */
import type { Event } from "../ffi/context.ts";
import type { Transfer } from "./transfer.ts";

/**
 * Steps between two marks, and marks that may be ahead of the device. CUDA takes about a thousand launches before a further one blocks the thread that
 * makes it, which here is the event loop; a step is a product of an extent, with what lies between two of them some two launches.
 */
const MARK_STEPS = 64;
const MOST_MARKS = 4;

/** Counts steps of enqueueing, and says when to wait for the device. */
export class Pacing {
  readonly #transfer: Transfer;
  #steps = 0;
  /** Events behind every so many steps, the oldest first. */
  #marks: Event[] = [];

  constructor(transfer: Transfer) {
    this.#transfer = transfer;
  }

  /** Counts a step that is about to be enqueued. Returns what to wait for before that; mostly nothing. */
  step(): Promise<void> | undefined {
    if (++this.#steps % MARK_STEPS !== 0) return undefined;
    this.#marks.push(this.#transfer.computed());
    return this.#marks.length > MOST_MARKS ? this.#waitForOldest() : undefined;
  }

  async #waitForOldest(): Promise<void> {
    const event = this.#marks.shift()!;
    try {
      await event.synchronize();
    } finally {
      this.#transfer.events.giveBack(event);
    }
  }

  /** Forgets what was enqueued, all of which the device has passed. */
  reset(): void {
    for (const event of this.#marks.splice(0)) this.#transfer.events.giveBack(event);
  }
}
