/**
 * Memory that extents are brought into and computed from: weights that stay, or slots that are filled again and again in any order.
 * @module
 */
import type { DeviceSpan, Event, HostBuffer } from "../ffi/context.ts";
import type { HostSlots } from "./host_slots.ts";
import type { Transfer } from "./transfer.ts";

/** A run of bytes on its way into slot memory. */
export interface Landing {
  /** Returns where a part of the run is to be read into. */
  target(start: number, bytes: number): Uint8Array<ArrayBuffer>;
  /**
   * To be called once, when all of it has been read: sends it on to the device where that has memory of its own. With `isUsed` false `use` will not
   * be called, since whoever uses it waits for all copies by other means.
   */
  arrive(options?: { isUsed: boolean }): void;
  /** To be called after that and before operations on it are enqueued: they wait for what is still on its way. */
  use(): void;
}

/** Host memory of somebody else that a run of bytes is read into, or lies in, on its way to a device with memory of its own. */
export interface HostRun {
  address: bigint;
  /** Returns a part as JavaScript sees it. */
  view(start: number, bytes: number): Uint8Array<ArrayBuffer>;
  /** Gets an event behind the copy, which becomes the run's own: until that is reached its bytes must stay. */
  copied(event: Event): void;
}

/** On a unified device one run of host memory that the device reads in place; else device memory, filled through host slots. */
export class SlotMemory implements Disposable {
  readonly bytes: number;
  readonly #transfer: Transfer;
  readonly #host: HostBuffer | undefined;
  readonly #device: DeviceSpan | undefined;
  readonly #staging: HostSlots | undefined;

  private constructor(
    transfer: Transfer,
    bytes: number,
    host: HostBuffer | undefined,
    device: DeviceSpan | undefined,
    staging: HostSlots | undefined,
  ) {
    this.#transfer = transfer;
    this.bytes = bytes;
    this.#host = host;
    this.#device = device;
    this.#staging = staging;
  }

  /**
   * Reserves `bytes` of memory; none for 0. `staging` has host slots for what is on its way to a device with memory of its own; they must be
   * this memory's own, or those of somebody who never holds them while it waits for this memory to be filled.
   *
   * @throws {NativeError} where there is not enough.
   */
  static async reserve(transfer: Transfer, bytes: number, staging: HostSlots | undefined): Promise<SlotMemory> {
    if (bytes === 0) return new SlotMemory(transfer, 0, undefined, undefined, staging);
    if (transfer.isUnified) {
      return new SlotMemory(transfer, bytes, await transfer.context.hostBuffer(bytes), undefined, undefined);
    }
    return new SlotMemory(transfer, bytes, undefined, transfer.memory.deviceBuffer(bytes), staging);
  }

  /** Returns the address that operations take. */
  deviceAddress(offset: number): bigint {
    return (this.#host ?? this.#device)!.address + BigInt(offset);
  }

  /**
   * Begins to fill `bytes` at `offset`, of which operations enqueued before must be done (an event behind them is reached). Returns undefined
   * while the staging has no room: it calls its owner's `onRoom` then. With a `run` its memory is used and not the staging's; on a unified device
   * there is none.
   */
  land(offset: number, bytes: number, run?: HostRun): Landing | undefined {
    const host = this.#host;
    if (host) return { target: (start, length) => host.view(offset + start, length), arrive: () => {}, use: () => {} };
    const from = run ?? this.#stagingRun(bytes);
    if (!from) return undefined;
    const transfer = this.#transfer;
    let copied: Event | undefined;
    return {
      target: (start, length) => from.view(start, length),
      arrive: ({ isUsed } = { isUsed: true }) => {
        transfer.copy(this.deviceAddress(offset), from.address, bytes);
        from.copied(transfer.copied());
        if (isUsed) copied = transfer.copied();
      },
      use: () => {
        if (!copied) return;
        transfer.computeAfter(copied);
        transfer.events.giveBack(copied);
        copied = undefined;
      },
    };
  }

  #stagingRun(bytes: number): HostRun | undefined {
    const staging = this.#staging!, slot = staging.allocate(bytes);
    if (slot === undefined) return undefined;
    return {
      address: staging.address(slot),
      view: (start, length) => staging.view(slot + start, length),
      copied: (event) => staging.giveBack(slot, event),
    };
  }

  [Symbol.dispose](): void {
    this.#host?.[Symbol.dispose]();
    this.#device?.[Symbol.dispose]();
  }
}
