/**
 * How the extents that do not stay where the device computes from get there in time.
 * @module
 */
import type { TapeExtent } from "../memory/plan.ts";
import type { DeviceSpan } from "../ffi/context.ts";
import type { HostSlots } from "./host_slots.ts";
import type { ReadAhead } from "./read_ahead.ts";
import { SlotRing } from "./slot_ring.ts";
import { TapeCursor } from "./tape_cursor.ts";
import type { Transfer } from "./transfer.ts";

/** Brings extents to the device in the order of the tape, ahead of their use. */
export interface WeightFeed {
  /** Returns the device address of the next extent, which is at `position`, once operations on it may be enqueued; else undefined. */
  take(position: number): bigint | undefined;
  /** Gives the extent that was taken last up: its memory is used again once all operations enqueued so far are done. */
  giveBack(): void;
  /** Says how many passes since the last rewind may be prepared for, and goes on. */
  expect(passes: number): void;
  /** Says that a pass does not use what the tape has from a position on, as {@linkcode ReadAhead.cut}. */
  cut(pass: number, position: number): number;
  /** Goes on with what has been read. */
  advance(): void;
  /** Goes back to the start of the tape; nothing may be in flight. */
  rewind(): void;
}

/** On a unified device: the slots that extents are read into are computed from. */
export class UnifiedFeed implements WeightFeed {
  readonly #transfer: Transfer;
  readonly #slots: HostSlots;
  readonly #reads: ReadAhead;

  constructor(transfer: Transfer, slots: HostSlots, reads: ReadAhead) {
    this.#transfer = transfer;
    this.#slots = slots;
    this.#reads = reads;
  }

  take(): bigint | undefined {
    const slot = this.#reads.first;
    return slot && slot.unreadBytes === 0 ? this.#slots.address(slot.offset) : undefined;
  }

  giveBack(): void {
    this.#reads.giveBack(this.#transfer.computed());
  }

  expect(passes: number): void {
    this.#reads.expect(passes);
  }

  cut(pass: number, position: number): number {
    return this.#reads.cut(pass, position);
  }

  advance(): void {}

  rewind(): void {
    this.#reads.rewind();
  }
}

/** What {@linkcode CopyingFeed} works with. */
export interface CopyingFeedOptions {
  transfer: Transfer;
  tape: readonly TapeExtent[];
  /** Positions of the tape that do not stay in device memory, in order. */
  copied: readonly number[];
  /** Host addresses of those of them that stay in host memory. */
  pinned: ReadonlyMap<number, bigint>;
  slots: HostSlots;
  reads: ReadAhead;
  /** Device memory for the slots that are computed from. */
  deviceSlots: DeviceSpan;
}

/** An extent in a device slot. */
interface DeviceSlot {
  position: number;
  address: bigint;
  /** Behind the copy into it. */
  copied: ReturnType<Transfer["copied"]>;
}

/**
 * On a device with memory of its own: each extent is copied into a device slot from host memory, where it stays or has been read to. Copies
 * are enqueued as soon as the bytes are there and the slot before in the ring is given up; all further waiting is the device's.
 */
export class CopyingFeed implements WeightFeed {
  readonly #options: CopyingFeedOptions;
  readonly #ring: SlotRing;
  /** Extents whose copies are enqueued and that were not taken yet, in order. */
  #copies: DeviceSlot[] = [];
  readonly #cursor: TapeCursor;
  #expectedPasses = 0;

  constructor(options: CopyingFeedOptions) {
    this.#options = options;
    this.#cursor = new TapeCursor(options.copied);
    this.#ring = new SlotRing(options.deviceSlots.bytes, options.transfer.events);
  }

  take(position: number): bigint | undefined {
    const slot = this.#copies.at(0);
    if (!slot) return undefined;
    if (slot.position !== position) {
      throw new Error(`Cannot take extent ${position}: the next in a device slot is ${slot.position}`);
    }
    this.#copies.shift();
    const { transfer } = this.#options;
    transfer.computeAfter(slot.copied);
    transfer.events.giveBack(slot.copied);
    return slot.address;
  }

  giveBack(): void {
    this.#ring.giveBack(this.#options.transfer.computed());
  }

  expect(passes: number): void {
    this.#expectedPasses = passes;
    this.advance();
    // Behind the copies, which give slots back.
    this.#options.reads.expect(passes);
  }

  advance(): void {
    while (this.#copyNext()) this.#cursor.advance();
  }

  cut(pass: number, position: number): number {
    // What has begun to be read is in slots that are given back by copying.
    return this.#cursor.cut(pass, this.#options.reads.cut(pass, position));
  }

  /** Enqueues the next copy, where its bytes are there and it has a place to go to. */
  #copyNext(): boolean {
    const { transfer, tape, pinned, slots, reads, deviceSlots } = this.#options;
    const position = this.#cursor.next(this.#expectedPasses);
    if (position === undefined) return false;
    const staying = pinned.get(position), slot = reads.first;
    if (staying === undefined && !(slot?.position === position && slot.unreadBytes === 0)) return false;
    const bytes = tape[position].paddedBytes;
    const place = this.#ring.allocate(bytes);
    if (!place) return false;
    const address = deviceSlots.address + BigInt(place.offset);
    if (place.after) {
      transfer.copyAfter(place.after);
      transfer.events.giveBack(place.after);
    }
    transfer.copy(address, staying ?? slots.address(slot!.offset), bytes);
    if (staying === undefined) reads.giveBack(transfer.copied());
    this.#copies.push({ position, address, copied: transfer.copied() });
    return true;
  }

  rewind(): void {
    const { transfer, reads } = this.#options;
    for (const { copied } of this.#copies.splice(0)) transfer.events.giveBack(copied);
    this.#ring.reset();
    reads.rewind();
    this.#cursor.rewind();
    this.#expectedPasses = 0;
  }
}
