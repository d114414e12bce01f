/**
 * Events that are used again and again.
 * @module
 */
import type { Context, Event, Stream } from "../ffi/context.ts";

/** Lends events, so that none is made in the loop. */
export class EventPool implements Disposable {
  readonly #context: Context;
  readonly #spare: Event[] = [];

  constructor(context: Context) {
    this.#context = context;
  }

  /** Returns an event behind what is on a stream now, to be given back once nobody asks for it any more. */
  record(stream: Stream): Event {
    const event = this.#spare.pop() ?? this.#context.event();
    try {
      event.record(stream);
    } catch (error) {
      this.#spare.push(event);
      throw error;
    }
    return event;
  }

  /** Takes an event back. A stream that waits for it goes on waiting for what it stood for. */
  giveBack(event: Event): void {
    this.#spare.push(event);
  }

  /** Frees the events that are not lent. */
  [Symbol.dispose](): void {
    for (const event of this.#spare.splice(0)) event[Symbol.dispose]();
  }
}
