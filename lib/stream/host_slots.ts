/**
 * Slots in host memory: files are read into them, and a device computes or copies from them.
 * @module
 */
import { NativeError } from "../errors.ts";
import { AIRK_CANCELLED } from "../ffi/abi.ts";
import type { Event, HostBuffer } from "../ffi/context.ts";
import { SlotAllocator } from "./slot_allocator.ts";
import type { Transfer } from "./transfer.ts";

/** Who is told what {@linkcode HostSlots} come to know. */
export interface HostSlotsOwner {
  /** Called where there was no room and now there may be. */
  onRoom(): void;
  /** Called where the device failed. */
  onFailure(error: unknown): void;
}

/** Host memory that is cut into slots; a slot is free again once the event that it was given back with is reached. */
export class HostSlots implements Disposable {
  readonly #buffer: HostBuffer | undefined;
  readonly #transfer: Transfer;
  #owner: HostSlotsOwner;
  readonly #allocator: SlotAllocator;
  /** Slots given back, the oldest first. */
  #released: { offset: number; event: Event }[] = [];
  #wait: Promise<void> | undefined;

  private constructor(transfer: Transfer, buffer: HostBuffer | undefined, bytes: number, owner: HostSlotsOwner) {
    this.#transfer = transfer;
    this.#buffer = buffer;
    this.#allocator = new SlotAllocator(bytes);
    this.#owner = owner;
  }

  /**
   * Reserves `bytes` of aligned memory; none for 0.
   * @throws {NativeError} where there is not enough.
   */
  static async reserve(transfer: Transfer, bytes: number, owner: HostSlotsOwner): Promise<HostSlots> {
    return new HostSlots(transfer, bytes > 0 ? await transfer.context.hostBuffer(bytes) : undefined, bytes, owner);
  }

  /** Hands the slots to somebody else. */
  lend(owner: HostSlotsOwner): void {
    this.#owner = owner;
  }

  /** Most bytes that were in use at a time. */
  get peakBytes(): number {
    return this.#allocator.peakBytes;
  }

  /** Returns a part as JavaScript sees it. */
  view(offset: number, bytes: number): Uint8Array<ArrayBuffer> {
    return this.#buffer!.view(offset, bytes);
  }

  /** Returns the address of a part, which is a device address too where memory is unified. */
  address(offset: number): bigint {
    return this.#buffer!.address + BigInt(offset);
  }

  /** Returns a free slot, taking back what is reached; else undefined, and sees to it that `onRoom` is called. */
  allocate(bytes: number): number | undefined {
    // While the oldest event is waited for it must not be lent anew.
    while (!this.#wait && this.#released.length > 0 && this.#isReached(this.#released[0].event)) {
      const { offset, event } = this.#released.shift()!;
      this.#transfer.events.giveBack(event);
      this.#allocator.free(offset);
    }
    const offset = this.#allocator.allocate(bytes);
    if (offset === undefined && !this.#wait && this.#released.length > 0) this.#waitForRoom(this.#released[0].event);
    return offset;
  }

  /** Gives a slot back: it is free once the event, which becomes the slots' own, is reached. */
  giveBack(offset: number, event: Event): void {
    this.#released.push({ offset, event });
  }

  /** Waits for one event at a time, so that at most one thread of Deno's pool is held. */
  #waitForRoom(event: Event): void {
    this.#wait = event.synchronize().catch((error) => {
      if (!this.#isReachedAfterAll(error)) this.#owner.onFailure(error);
    }).then(() => {
      this.#wait = undefined;
      this.#owner.onRoom();
    });
  }

  #isReached(event: Event): boolean {
    try {
      return this.#transfer.isReached(event);
    } catch (error) {
      return this.#isReachedAfterAll(error);
    }
  }

  /** A cancelled operation no longer reads; whoever cancelled it gives the pass up. A device that failed ends streaming. */
  #isReachedAfterAll(error: unknown): boolean {
    if (error instanceof NativeError && error.status === AIRK_CANCELLED) return true;
    this.#owner.onFailure(error);
    return false;
  }

  /** Waits until no event is waited for any more. */
  async idle(): Promise<void> {
    await this.#wait;
  }

  /** Frees all slots; nothing may read or fill them any more. */
  reset(): void {
    for (const { event } of this.#released.splice(0)) this.#transfer.events.giveBack(event);
    this.#allocator.reset();
  }

  /** Frees the memory; nothing may use it any more. */
  [Symbol.dispose](): void {
    this.reset();
    this.#buffer?.[Symbol.dispose]();
  }
}
