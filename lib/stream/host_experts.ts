/**
 * Expert extents that stay in host memory: the second tier of a device with memory of its own, which gets them again from there and not from disk.
 *
 * What is read on its way to the device is kept where there is room, or where something used less often can go. A device that looks for what to throw
 * out counts what is kept here as cheap to get again (ExpertFrequency.discount), so that the two tiers come to hold different experts.
 * @module
 */
import type { Event, HostBuffer } from "../ffi/context.ts";
import type { ExpertTable } from "../memory/plan.ts";
import type { ExpertFrequency } from "./expert_frequency.ts";
import type { HostRun } from "./slot_memory.ts";
import type { Transfer } from "./transfer.ts";

/** What is thrown out was used less often than this share of what comes: of experts used as often the latest would always seem to be worth more. */
const LESS = 3 / 4;

/** Slots looked up at a time to be thrown out. */
const VICTIMS = 16;

/** Slots of host memory, all as large as the largest extent. */
export class HostExperts implements Disposable {
  readonly #transfer: Transfer;
  readonly #buffer: HostBuffer;
  readonly #slotBytes: number;
  readonly #frequency: ExpertFrequency;
  /** [extents] the expert that each is of. */
  readonly #expertOf: Int32Array;
  /** [experts] extents that are not kept whole. */
  readonly #lacking: Int32Array;
  /** [extents] slot, or -1. */
  readonly #slotOf: Int32Array;
  /** [slots] extent, or -1. */
  readonly #extentIn: Int32Array;
  /** [slots] whether all bytes are there. */
  readonly #whole: Uint8Array;
  /** [slots] behind the latest copy from each. */
  readonly #copies: (Event | undefined)[];
  readonly #free: number[];
  #victims: number[] = [];

  private constructor(
    transfer: Transfer,
    buffer: HostBuffer,
    slots: number,
    slotBytes: number,
    { experts }: ExpertTable,
    frequency: ExpertFrequency,
  ) {
    this.#transfer = transfer;
    this.#buffer = buffer;
    this.#slotBytes = slotBytes;
    this.#frequency = frequency;
    this.#lacking = Int32Array.from(experts, ({ length }) => length);
    this.#expertOf = Int32Array.from(experts.flatMap((extents, expert) => extents.map(() => expert)));
    this.#slotOf = new Int32Array(this.#expertOf.length).fill(-1);
    this.#extentIn = new Int32Array(slots).fill(-1);
    this.#whole = new Uint8Array(slots);
    this.#copies = Array.from({ length: slots }, () => undefined);
    this.#free = Array.from({ length: slots }, (_, slot) => slots - 1 - slot);
  }

  /**
   * Reserves `slots` of `slotBytes` each, at least one.
   * @throws {NativeError} where there is not enough memory.
   */
  static async reserve(
    transfer: Transfer,
    slots: number,
    slotBytes: number,
    table: ExpertTable,
    frequency: ExpertFrequency,
  ): Promise<HostExperts> {
    return new HostExperts(transfer, await transfer.context.hostBuffer(slots * slotBytes), slots, slotBytes, table, frequency);
  }

  /** Whether all bytes of an extent are here. */
  has(extent: number): boolean {
    return this.#slotOf[extent] >= 0 && this.#whole[this.#slotOf[extent]] === 1;
  }

  /** Gives an extent a slot to be read into; false where nothing that can leave is used clearly less often. */
  admit(extent: number): boolean {
    const slot = this.#free.pop() ?? this.#pushOut(this.#frequency.share(this.#expertOf[extent]));
    if (slot === undefined) return false;
    this.#extentIn[slot] = extent;
    this.#slotOf[extent] = slot;
    return true;
  }

  /** Whether an extent has a slot that its bytes are on their way to. */
  isAwaited(extent: number): boolean {
    return this.#slotOf[extent] >= 0 && this.#whole[this.#slotOf[extent]] === 0;
  }

  /** Returns where an extent that has a slot lies. */
  run(extent: number): HostRun {
    const slot = this.#slotOf[extent], offset = slot * this.#slotBytes;
    return {
      address: this.#buffer.address + BigInt(offset),
      view: (start, bytes) => this.#buffer.view(offset + start, bytes),
      copied: (event) => {
        this.#settle(slot);
        this.#copies[slot] = event;
      },
    };
  }

  /** Says that all bytes of an extent are here. */
  arrive(extent: number): void {
    this.#whole[this.#slotOf[extent]] = 1;
    const expert = this.#expertOf[extent];
    if (--this.#lacking[expert] === 0) this.#frequency.discount(expert, true);
  }

  /** Takes back the slots of extents whose bytes never came; no copy may be under way any more. */
  reset(): void {
    this.#victims = [];
    this.#extentIn.forEach((extent, slot) => {
      this.#settle(slot);
      if (extent < 0 || this.#whole[slot] === 1) return;
      this.#remove(slot);
      this.#free.push(slot);
    });
  }

  /** Frees the memory; nothing may use it any more. */
  [Symbol.dispose](): void {
    this.#copies.forEach((_, slot) => this.#settle(slot));
    this.#buffer[Symbol.dispose]();
  }

  #settle(slot: number): void {
    const event = this.#copies[slot];
    if (event) this.#transfer.events.giveBack(event);
    this.#copies[slot] = undefined;
  }

  #remove(slot: number): void {
    const extent = this.#extentIn[slot], expert = this.#expertOf[extent];
    if (this.#whole[slot] === 1 && this.#lacking[expert]++ === 0) this.#frequency.discount(expert, false);
    this.#whole[slot] = 0;
    this.#slotOf[extent] = -1;
    this.#extentIn[slot] = -1;
  }

  /** Frees the slot of the extent used least, if that is clearly less often than `share` and nothing is copied from it; returns it. */
  #pushOut(share: number): number | undefined {
    for (let search = 0; search < 2; search++) {
      while (this.#victims.length > 0) {
        const slot = this.#victims.shift()!;
        if (!this.#canLeave(slot)) continue;
        if (this.#shareIn(slot) >= LESS * share) return undefined;
        this.#settle(slot);
        this.#remove(slot);
        return slot;
      }
      if (search === 0) this.#victims = this.#findVictims();
    }
    return undefined;
  }

  #shareIn(slot: number): number {
    return this.#frequency.share(this.#expertOf[this.#extentIn[slot]]);
  }

  #canLeave(slot: number): boolean {
    const copy = this.#copies[slot];
    if (this.#whole[slot] === 0) return false;
    try {
      return copy === undefined || this.#transfer.isReached(copy);
    } catch {
      // Cancelled, or the device failed: whoever uses what was copied gets the error.
      return false;
    }
  }

  /** Returns the slots whose extents are used least, the least first. */
  #findVictims(): number[] {
    const victims: number[] = [], shares: number[] = [];
    for (let slot = 0; slot < this.#extentIn.length; slot++) {
      if (this.#extentIn[slot] < 0) continue;
      const share = this.#shareIn(slot);
      let place = victims.length;
      while (place > 0 && share < shares[place - 1]) place--;
      if (place === VICTIMS || !this.#canLeave(slot)) continue;
      victims.splice(place, 0, slot);
      shares.splice(place, 0, share);
      if (victims.length > VICTIMS) victims.pop(), shares.pop();
    }
    return victims;
  }
}
