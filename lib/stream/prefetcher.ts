/**
 * Brings the weights of every pass into memory ahead of their use.
 *
 * A pass is a tape of extents in their order of use. Resident ones are read once, at open; the others go through slots, each
 * read from disk while earlier ones are computed on. Weights do not depend on the input, so the reader runs on across the end of a pass
 * into the beginning of the next, and the disk waits only when all slots are full.
 * @module
 */
import { join } from "node:path";
import { CancelledError, NativeError } from "../errors.ts";
import { AIRK_CANCELLED } from "../ffi/abi.ts";
import type { Context, Event, Stream } from "../ffi/context.ts";
import type { Plan, TapeExtent } from "../memory/plan.ts";
import type { Manifest } from "../shard/manifest.ts";
import { DirectFiles, type FileIo } from "./direct_file.ts";
import { PieceCutter } from "./piece.ts";
import type { Piece, Run } from "./piece.ts";
import { READ_DEPTH, READ_PIECE_BYTES, ReadPump } from "./read_pump.ts";
import { SlotAllocator } from "./slot_allocator.ts";
import { SlotMemory } from "./slot_memory.ts";

/** What {@linkcode Prefetcher.open} takes. */
export interface PrefetcherOptions {
  /** A shard directory. */
  path: string;
  manifest: Pick<Manifest, "files" | "tensors">;
  tape: readonly TapeExtent[];
  plan: Pick<Plan, "resident" | "residentBytes" | "slotBytes">;
  context: Context;
  /** Stream whose operations read the extents. */
  stream: Stream;
  /** Reads in flight. */
  depth?: number;
  /** Bytes of one read, a multiple of the extent alignment. */
  pieceBytes?: number;
  /** Stops loading the resident extents. */
  signal?: AbortSignal;
  /** Told as resident extents arrive, with their bytes so far. */
  onLoad?: (doneBytes: number) => void;
  io?: FileIo;
}

/** What streaming has cost, in a pass or since open. */
export interface StreamStatistics {
  /** Bytes of streamed extents read; those read ahead count where they were read. */
  bytesRead: number;
  /** Time in which at least one read was in flight. */
  readBusyMs: number;
  /** Time that callers waited for extents, and how often they had to. */
  stallMs: number;
  stalls: number;
}

function aborted(): CancelledError {
  return new CancelledError("Cannot finish the pass: it was aborted");
}

/** An extent's place in memory, from the first read to its release. */
interface Slot {
  position: number;
  offset: number;
  unreadBytes: number;
}

/**
 * The prefetch loop over one tape.
 *
 * A pass is `beginPass`, then for every position of the tape in order `acquire`, enqueueing the operations that use the extent,
 * `release`; then `endPass`. A pass that cannot be finished is given up with `abortPass`, after which the next begins at position 0
 * again. A read that fails makes the waiting `acquire` and all later ones throw its error.
 */
export class Prefetcher implements AsyncDisposable {
  readonly #options: PrefetcherOptions;
  readonly #files: DirectFiles;
  readonly #residentMemory: SlotMemory;
  readonly #slotMemory: SlotMemory;
  readonly #allocator: SlotAllocator;
  readonly #pump: ReadPump;
  readonly #cutter: PieceCutter;
  /** Device address of each resident extent, undefined of those that stream. */
  readonly #addresses: (bigint | undefined)[];
  /** Positions that stream, in order; they are read again and again. */
  readonly #streamed: number[];
  /** Extents begun to be read since the tape was last rewound. */
  #begunExtents = 0;
  #begunPasses = 0;
  #expectAnother = false;
  /** Extents in slots that are not released, in tape order. */
  #slots: Slot[] = [];
  /** Events behind the last use of the released extents, oldest first; the oldest slots in the same order. */
  #released: Event[] = [];
  readonly #spareEvents: Event[] = [];
  #releaseWait: Promise<void> | undefined;
  #inPass = false;
  #nextPosition = 0;
  #held = false;
  #waiter: PromiseWithResolvers<bigint> | undefined;
  #failure: { error: unknown } | undefined;
  #stopping: Promise<void> | undefined;
  #disposed = false;
  #stallMs = 0;
  #stalls = 0;
  #passStart: StreamStatistics = { bytesRead: 0, readBusyMs: 0, stallMs: 0, stalls: 0 };

  /** Use {@linkcode Prefetcher.open}. */
  protected constructor(options: PrefetcherOptions) {
    const { tape, plan, context } = options;
    this.#options = options;
    this.#streamed = [...tape.keys()].filter((position) => !plan.resident[position]);
    for (const position of this.#streamed) {
      if (tape[position].paddedBytes > plan.slotBytes) {
        throw new Error(
          `Cannot stream extent ${position}: it has ${tape[position].paddedBytes} bytes, the slots have ${plan.slotBytes}`,
        );
      }
    }
    const pieceBytes = options.pieceBytes ?? READ_PIECE_BYTES;
    this.#files = new DirectFiles(options.manifest.files.map(({ name }) => join(options.path, name)), { io: options.io });
    this.#allocator = new SlotAllocator(plan.slotBytes);
    this.#cutter = new PieceCutter(() => this.#nextRun(), pieceBytes);
    this.#pump = new ReadPump(this.#files, options.depth ?? READ_DEPTH, () => this.#nextPiece(), (error) => this.#fail(error));
    this.#residentMemory = new SlotMemory(context, plan.residentBytes);
    try {
      this.#slotMemory = new SlotMemory(context, this.#streamed.length > 0 ? plan.slotBytes : 0);
    } catch (error) {
      this.#residentMemory[Symbol.dispose]();
      throw error;
    }
    let offset = 0;
    this.#addresses = tape.map(({ paddedBytes }, position) => {
      if (!plan.resident[position]) return undefined;
      offset += paddedBytes;
      return this.#residentMemory.deviceAddress(offset - paddedBytes);
    });
  }

  /**
   * Reserves the memory of a plan and reads its resident extents.
   *
   * @throws {FormatError} where a file ends too early, {AirkernError} where it cannot be read, {NativeError} where there is not enough memory,
   * {CancelledError} where the signal says so.
   */
  static async open(options: PrefetcherOptions): Promise<Prefetcher> {
    const prefetcher = new this(options);
    try {
      await prefetcher.#loadResident();
    } catch (error) {
      await prefetcher[Symbol.asyncDispose]();
      throw error;
    }
    return prefetcher;
  }

  async #loadResident(): Promise<void> {
    const { tape, plan, signal, onLoad, depth = READ_DEPTH, pieceBytes = READ_PIECE_BYTES } = this.#options;
    let position = 0, offset = 0, doneBytes = 0;
    const done = (readBytes: number): void => onLoad?.(doneBytes += readBytes);
    let failure: { error: unknown } | undefined;
    const nextRun = (): Run | undefined => {
      while (position < tape.length && !plan.resident[position]) position++;
      if (position === tape.length) return undefined;
      const bytes = tape[position].paddedBytes;
      offset += bytes;
      return { ...this.#extentOnDisk(position++), memory: this.#residentMemory, offset: offset - bytes, bytes, done };
    };
    const cutter = new PieceCutter(nextRun, pieceBytes);
    const next = () => failure || signal?.aborted ? undefined : cutter.next();
    const pump = new ReadPump(this.#files, depth, next, (error) => failure ??= { error });
    pump.start();
    await pump.idle();
    if (failure) throw failure.error;
    if (signal?.aborted) throw new CancelledError("Cannot load the resident weights: it was cancelled", { cause: signal.reason });
  }

  #extentOnDisk(position: number): { file: number; position: number } {
    const { tensor, extent } = this.#options.tape[position];
    const entry = this.#options.manifest.tensors[tensor];
    return { file: entry.file, position: entry.extents[extent].offset };
  }

  /** Whether the files are read past the page cache, as far as they were read at all. */
  get isDirect(): boolean {
    return this.#files.paths.every((_, file) => this.#files.isDirect(file));
  }

  /** Most bytes of slots that were in use at a time. */
  get slotPeakBytes(): number {
    return this.#allocator.peakBytes;
  }

  /** What streaming has cost since open. */
  get statistics(): StreamStatistics {
    return {
      bytesRead: this.#pump.bytesRead,
      readBusyMs: this.#pump.busyMs,
      stallMs: this.#stallMs,
      stalls: this.#stalls,
    };
  }

  /** Begins a pass at position 0. With `expectAnother` the reader runs on into the pass after it. */
  beginPass(options: { expectAnother: boolean }): void {
    if (this.#inPass || this.#stopping) throw new Error("Cannot begin a pass: another is under way");
    this.#inPass = true;
    this.#nextPosition = 0;
    this.#begunPasses++;
    this.#passStart = this.statistics;
    this.expectPass(options.expectAnother);
  }

  /** Says whether another pass follows (or, before the first, comes soon), at any time. What was read ahead is kept for whenever it comes. */
  expectPass(expectAnother: boolean): void {
    this.#expectAnother = expectAnother;
    this.#pump.start();
  }

  /**
   * Returns the device address of the extent at `position`, the next one of the tape: at once where it is resident or read, else as soon as it is.
   * It stays valid until it is released; one extent is held at a time.
   *
   * @throws what the read threw; {CancelledError} where the pass is aborted meanwhile.
   */
  acquire(position: number): bigint | Promise<bigint> {
    if (this.#failure) throw this.#failure.error;
    if (this.#stopping) throw aborted();
    this.#check(`acquire extent ${position}`, this.#inPass && !this.#held && !this.#waiter && position === this.#nextPosition);
    const address = this.#addresses[position];
    const slot = this.#slots.at(0);
    if (address !== undefined || (slot && slot.unreadBytes === 0)) {
      this.#held = true;
      return address ?? this.#slotMemory.deviceAddress(slot!.offset);
    }
    const started = performance.now();
    const { promise } = this.#waiter = Promise.withResolvers<bigint>();
    this.#pump.start();
    const finish = () => {
      this.#stalls++;
      this.#stallMs += performance.now() - started;
    };
    promise.then(finish, finish);
    return promise;
  }

  /** Gives the held extent up: its memory is reused once all operations that are on the stream now are done. */
  release(position: number): void {
    if (this.#stopping) throw this.#failure?.error ?? aborted();
    this.#check(`release extent ${position}`, this.#held && position === this.#nextPosition);
    if (this.#addresses[position] === undefined) {
      const event = this.#spareEvents.pop() ?? this.#options.context.event();
      event.record(this.#options.stream);
      this.#slots.shift();
      this.#released.push(event);
    }
    this.#held = false;
    this.#nextPosition++;
    this.#pump.start();
  }

  /** Ends a pass whose extents were all released, and returns what it cost. */
  endPass(options: { expectAnother: boolean }): StreamStatistics {
    this.#check("end the pass", this.#inPass && this.#nextPosition === this.#addresses.length);
    this.#inPass = false;
    this.expectPass(options.expectAnother);
    const { bytesRead, readBusyMs, stallMs, stalls } = this.statistics;
    return {
      bytesRead: bytesRead - this.#passStart.bytesRead,
      readBusyMs: readBusyMs - this.#passStart.readBusyMs,
      stallMs: stallMs - this.#passStart.stallMs,
      stalls: stalls - this.#passStart.stalls,
    };
  }

  /**
   * Gives up the pass under way: a waiting `acquire` throws {@linkcode CancelledError}, as does every call of that pass from then on; the slots are
   * emptied once reads in flight and operations on the stream are done, and no pass is expected. An extent that is held must not be
   * given to operations any more. Without a pass under way nothing happens.
   */
  async abortPass(): Promise<void> {
    if (!this.#inPass && !this.#stopping) return;
    await (this.#stopping ??= this.#stop().finally(() => this.#stopping = undefined));
  }

  async #stop(): Promise<void> {
    this.#expectAnother = false;
    this.#waiter?.reject(aborted());
    this.#waiter = undefined;
    // Whoever got an extent just now runs on to its next call, so that its operations are among those waited for.
    await new Promise((resolve) => setTimeout(resolve, 0));
    await this.#pump.idle();
    await this.#releaseWait;
    await this.#finishOperations();
    this.#cutter.reset();
    this.#allocator.reset();
    this.#slots = [];
    this.#spareEvents.push(...this.#released.splice(0));
    this.#begunExtents = this.#begunPasses = 0;
    this.#held = this.#inPass = false;
  }

  /** Waits until the stream has passed all operations that may read the extents. */
  async #finishOperations(): Promise<void> {
    try {
      using event = this.#options.context.event();
      event.record(this.#options.stream);
      await event.synchronize();
    } catch {
      // Cancelled, or the device failed: in either case the stream has passed them, and whoever enqueued them gets the error.
    }
  }

  /** Waits for reads in flight and operations on the stream, then frees the memory and closes the files. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#disposed) return;
    this.#disposed = true;
    this.#failure ??= { error: new CancelledError("Cannot use the weights: the model is closed") };
    this.#waiter?.reject(this.#failure.error);
    this.#waiter = undefined;
    await (this.#stopping ??= this.#stop());
    for (const event of this.#spareEvents.splice(0)) event[Symbol.dispose]();
    this.#files[Symbol.dispose]();
    this.#slotMemory[Symbol.dispose]();
    this.#residentMemory[Symbol.dispose]();
  }

  #check(action: string, allowed: boolean): void {
    if (allowed) return;
    const state = this.#inPass ? `the pass is at extent ${this.#nextPosition}` : "no pass is under way";
    throw new Error(`Cannot ${action}: ${state}`);
  }

  #fail(error: unknown): void {
    this.#failure ??= { error };
    this.#waiter?.reject(this.#failure.error);
    this.#waiter = undefined;
  }

  #nextPiece(): Piece | undefined {
    return this.#failure || this.#stopping ? undefined : this.#cutter.next();
  }

  /** Returns the next extent to read, with its slot; undefined while there is no room or no pass to read for. */
  #nextRun(): Run | undefined {
    const { length } = this.#streamed;
    // Of a small model the slots may hold several passes: no more than the next is expected.
    const expectedPasses = this.#begunPasses + (this.#expectAnother ? 1 : 0);
    if (this.#begunExtents >= expectedPasses * length) return undefined;
    const position = this.#streamed[this.#begunExtents % length];
    const bytes = this.#options.tape[position].paddedBytes;
    const offset = this.#allocate(bytes);
    if (offset === undefined) return undefined;
    this.#begunExtents++;
    const slot: Slot = { position, offset, unreadBytes: bytes };
    this.#slots.push(slot);
    const done = (readBytes: number) => {
      slot.unreadBytes -= readBytes;
      if (slot.unreadBytes === 0) this.#arrived(slot);
    };
    return { ...this.#extentOnDisk(position), memory: this.#slotMemory, offset, bytes, done };
  }

  #arrived(slot: Slot): void {
    if (!this.#waiter || slot !== this.#slots[0]) return;
    const { resolve } = this.#waiter;
    this.#waiter = undefined;
    this.#held = true;
    resolve(this.#slotMemory.deviceAddress(slot.offset));
  }

  /** Returns a free slot, taking back what is released and no longer read; else undefined, and sees to it that reading goes on. */
  #allocate(bytes: number): number | undefined {
    // While the oldest event is waited for it must not be recorded anew.
    while (!this.#releaseWait && this.#released.length > 0 && this.isReached(this.#released[0])) {
      this.#spareEvents.push(this.#released.shift()!);
      this.#allocator.freeOldest();
    }
    const offset = this.#allocator.allocate(bytes);
    if (offset === undefined && !this.#releaseWait && this.#released.length > 0) this.#waitForRelease(this.#released[0]);
    return offset;
  }

  /** Whether the operations before an event are done. Protected so that a test can prove that it is heeded. */
  protected isReached(event: Event): boolean {
    try {
      return event.query();
    } catch (error) {
      return this.#isReachedAfterAll(error);
    }
  }

  /** Waits for one event at a time, so that at most one thread of Deno's pool is held. */
  #waitForRelease(event: Event): void {
    this.#releaseWait = event.synchronize().catch((error) => {
      if (!this.#isReachedAfterAll(error)) this.#fail(error);
    }).then(() => {
      this.#releaseWait = undefined;
      this.#pump.start();
    });
  }

  /** A cancelled operation no longer reads; whoever cancelled it aborts the pass. A device that failed ends streaming. */
  #isReachedAfterAll(error: unknown): boolean {
    if (error instanceof NativeError && error.status === AIRK_CANCELLED) return true;
    this.#fail(error);
    return false;
  }
}
