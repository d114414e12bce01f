/**
 * Reads the extents of a tape that stream from disk, ahead of their use.
 * @module
 */
import type { Event } from "../ffi/context.ts";
import type { TapeExtent } from "../memory/plan.ts";
import type { DirectFiles } from "./direct_file.ts";
import type { HostSlots } from "./host_slots.ts";
import { PieceCutter } from "./piece.ts";
import type { Run } from "./piece.ts";
import { ReadPump } from "./read_pump.ts";
import { TapeCursor } from "./tape_cursor.ts";

/** What {@linkcode ReadAhead} works with. */
export interface ReadAheadOptions {
  tape: readonly TapeExtent[];
  /** Positions of the tape that stream, in order; they are read again and again. */
  streamed: readonly number[];
  /** Where on disk an extent lies. */
  locate(position: number): { file: number; position: number };
  slots: HostSlots;
  files: DirectFiles;
  /** Reads in flight. */
  depth: number;
  /** Bytes of one read. */
  pieceBytes: number;
  /** Called when the first extent has become readable. */
  onArrival(): void;
  onFailure(error: unknown): void;
}

/** An extent in a slot, from the first read until it is given back. */
export interface ReadSlot {
  position: number;
  offset: number;
  unreadBytes: number;
}

/**
 * Reads extents in the order of the tape into slots, as far as passes are expected and slots are free. Weights do not depend on the input, so
 * it runs on across the end of a pass into the next one.
 */
export class ReadAhead {
  readonly #options: ReadAheadOptions;
  readonly #pump: ReadPump;
  readonly #cutter: PieceCutter;
  readonly #cursor: TapeCursor;
  #expectedPasses = 0;
  #slots: ReadSlot[] = [];
  #stopped = false;

  constructor(options: ReadAheadOptions) {
    this.#options = options;
    this.#cursor = new TapeCursor(options.streamed);
    this.#cutter = new PieceCutter(() => this.#nextRun(), options.pieceBytes);
    this.#pump = new ReadPump(
      options.files,
      options.depth,
      () => this.#stopped ? undefined : this.#cutter.next(),
      options.onFailure,
    );
  }

  /** Bytes read since the beginning. */
  get bytesRead(): number {
    return this.#pump.bytesRead;
  }

  /** Time in which at least one read was in flight. */
  get busyMs(): number {
    return this.#pump.busyMs;
  }

  /** The oldest extent that is not given back. */
  get first(): Readonly<ReadSlot> | undefined {
    return this.#slots.at(0);
  }

  /** Says how many passes since the last `stop` may be read for, and reads on. */
  expect(passes: number): void {
    this.#expectedPasses = passes;
    this.#pump.start();
  }

  /**
   * Says that a pass (number since the last `rewind`, from 0) does not use what the tape has from `position` on, so that it is not read unless that has begun.
   * Returns the position up to which extents come nevertheless.
   */
  cut(pass: number, position: number): number {
    return this.#cursor.cut(pass, position);
  }

  /** Gives the first extent back: its slot is used again once the event is reached. */
  giveBack(event: Event): void {
    this.#options.slots.giveBack(this.#slots.shift()!.offset, event);
  }

  /** Starts no more reads. */
  halt(): void {
    this.#stopped = true;
  }

  /** Waits for the reads in flight. */
  async idle(): Promise<void> {
    await this.#pump.idle();
    await this.#options.slots.idle();
  }

  /** Goes back to the start of the tape; nothing may be in flight, nor use what was read. */
  rewind(): void {
    this.#cutter.reset();
    this.#options.slots.reset();
    this.#slots = [];
    this.#cursor.rewind();
    this.#expectedPasses = 0;
    this.#stopped = false;
  }

  /** Returns the next extent to read, with its slot; undefined while there is no room or no pass to read for. */
  #nextRun(): Run | undefined {
    const { tape, slots, locate } = this.#options;
    // Of a small model the slots may hold several passes: no more than the next is expected.
    const position = this.#cursor.next(this.#expectedPasses);
    if (position === undefined) return undefined;
    const bytes = tape[position].paddedBytes;
    const offset = slots.allocate(bytes);
    if (offset === undefined) return undefined;
    this.#cursor.advance();
    const slot: ReadSlot = { position, offset, unreadBytes: bytes };
    this.#slots.push(slot);
    return {
      ...locate(position),
      bytes,
      target: (start, length) => slots.view(offset + start, length),
      done: (readBytes) => {
        slot.unreadBytes -= readBytes;
        if (slot.unreadBytes === 0 && slot === this.#slots[0]) this.#options.onArrival();
      },
    };
  }
}
