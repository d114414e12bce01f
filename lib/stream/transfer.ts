/**
 * The way into the memory that a device computes from.
 * @module
 */
import type { Context, DeviceAllocator, Event, Stream } from "../ffi/context.ts";
import { Ops } from "../ffi/ops.ts";
import { EventPool } from "./event_pool.ts";

/**
 * What everybody needs who brings weights to a device: its context, the stream that computes, where its memory comes from, a stream that copies
 * beside it, and events. On a unified device nothing is copied, and there is no such stream.
 */
export class Transfer implements Disposable {
  readonly context: Context;
  /** Stream whose operations use the weights. */
  readonly computing: Stream;
  /** Gives out device memory: the context, or a reservation. */
  readonly memory: DeviceAllocator;
  readonly events: EventPool;
  readonly #copying: Stream | undefined;
  readonly #ops: Ops | undefined;

  constructor(context: Context, computing: Stream, memory: DeviceAllocator = context) {
    this.context = context;
    this.computing = computing;
    this.memory = memory;
    this.events = new EventPool(context);
    if (context.description.unifiedMemory) return;
    this.#copying = context.stream();
    this.#ops = new Ops(this.#copying);
  }

  /** Whether host memory is device memory. */
  get isUnified(): boolean {
    return this.#copying === undefined;
  }

  /** Enqueues a copy from a host buffer's address to the device, beside the computation; not on a unified device. */
  copy(to: bigint, from: bigint, bytes: number): void {
    this.#ops!.copyToDevice(to, from, bytes);
  }

  /** Returns an event behind all copies enqueued so far; to be given back to `events`, as the next. */
  copied(): Event {
    return this.events.record(this.#copying!);
  }

  /** Returns an event behind all operations enqueued so far. */
  computed(): Event {
    return this.events.record(this.computing);
  }

  /** Makes copies enqueued from now on wait for an event. */
  copyAfter(event: Event): void {
    this.#copying!.wait(event);
  }

  /** Makes operations enqueued from now on wait for an event. */
  computeAfter(event: Event): void {
    this.computing.wait(event);
  }

  /** Returns whether what is before an event is done. @throws {NativeError} where it was cancelled or the device failed. */
  isReached(event: Event): boolean {
    return event.query();
  }

  /** Waits for the copies enqueued so far. @throws {NativeError} where they were cancelled or the device failed. */
  async finishCopies(): Promise<void> {
    if (this.isUnified) return;
    const event = this.copied();
    try {
      await event.synchronize();
    } finally {
      this.events.giveBack(event);
    }
  }

  /** Waits until both streams have passed what is on them, also where that was cancelled or the device failed. */
  async settle(): Promise<void> {
    for (const stream of this.#copying ? [this.#copying, this.computing] : [this.computing]) {
      let event: Event | undefined;
      try {
        event = this.events.record(stream);
        await event.synchronize();
      } catch {
        // In either case the stream has passed them, and whoever enqueued them gets the error.
      } finally {
        if (event) this.events.giveBack(event);
      }
    }
  }

  [Symbol.dispose](): void {
    this.events[Symbol.dispose]();
    this.#copying?.[Symbol.dispose]();
  }
}
