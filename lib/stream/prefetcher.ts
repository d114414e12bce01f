/**
 * Brings the weights of every pass into memory ahead of their use.
 *
 * A pass is a tape of extents in their order of use. Resident ones are brought to the device once, at open; the others go through slots while
 * earlier ones are computed on: read from disk, or copied from host memory, as the plan says. Weights do not depend on the input, so this
 * runs on across the end of a pass into the beginning of the next, and the disk waits only when all slots are full.
 * @module
 */
import { join } from "node:path";
import { CancelledError } from "../errors.ts";
import type { DeviceSpan, HostBuffer } from "../ffi/context.ts";
import type { Plan, TapeExtent } from "../memory/plan.ts";
import type { Manifest } from "../shard/manifest.ts";
import { DirectFiles, type FileIo } from "./direct_file.ts";
import { HostSlots, type HostSlotsOwner } from "./host_slots.ts";
import { loadResident } from "./load_resident.ts";
import { ReadAhead } from "./read_ahead.ts";
import { READ_DEPTH, READ_PIECE_BYTES } from "./read_pump.ts";
import { SlotMemory } from "./slot_memory.ts";
import type { Transfer } from "./transfer.ts";
import { CopyingFeed, UnifiedFeed, type WeightFeed } from "./weight_feed.ts";

/** What {@linkcode Prefetcher.open} takes. */
export interface PrefetcherOptions {
  /** A shard directory. */
  path: string;
  manifest: Pick<Manifest, "files" | "tensors">;
  tape: readonly TapeExtent[];
  plan: Pick<Plan, "resident" | "residentBytes" | "pinned" | "pinnedBytes" | "slotBytes" | "deviceSlotBytes">;
  /** The way to the device, whose computing stream's operations read the extents. It stays the caller's. */
  transfer: Transfer;
  /** Reads in flight. */
  depth?: number;
  /** Bytes of one read, a multiple of the extent alignment. */
  pieceBytes?: number;
  /** Stops loading the extents that stay. */
  signal?: AbortSignal;
  /** Told as the extents that stay arrive, with their bytes so far. */
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
  /** Memory to free at the end. */
  readonly #memory = new DisposableStack();
  #slots!: HostSlots;
  #reads!: ReadAhead;
  #feed!: WeightFeed;
  /** Device address of each resident extent, undefined of the others. */
  readonly #addresses: (bigint | undefined)[];
  #begunPasses = 0;
  #expectAnother = false;
  #inPass = false;
  #nextPosition = 0;
  /** Position behind the last extent of the pass. */
  #passEnd = 0;
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
    const { tape, plan, transfer } = options;
    this.#options = options;
    for (const [position, { paddedBytes }] of tape.entries()) {
      const bounds = [
        { name: "slots", bytes: plan.slotBytes, used: !plan.resident[position] && !plan.pinned[position] },
        { name: "device slots", bytes: plan.deviceSlotBytes, used: !plan.resident[position] && !transfer.isUnified },
      ];
      for (const { name, bytes, used } of bounds) {
        if (!used || paddedBytes <= bytes) continue;
        throw new Error(`Cannot stream extent ${position}: it has ${paddedBytes} bytes, the ${name} have ${bytes}`);
      }
    }
    this.#addresses = tape.map(() => undefined);
    this.#files = new DirectFiles(options.manifest.files.map(({ name }) => join(options.path, name)), { io: options.io });
  }

  /**
   * Reserves the memory of a plan and reads the extents that stay.
   *
   * @throws {FormatError} where a file ends too early, {AirkernError} where it cannot be read, {NativeError} where there is not enough memory,
   * {CancelledError} where the signal says so.
   */
  static async open(options: PrefetcherOptions): Promise<Prefetcher> {
    const prefetcher = new this(options);
    try {
      await prefetcher.#open();
    } catch (error) {
      await prefetcher[Symbol.asyncDispose]();
      throw error;
    }
    return prefetcher;
  }

  async #open(): Promise<void> {
    const { tape, plan, transfer, signal, onLoad, depth = READ_DEPTH, pieceBytes = READ_PIECE_BYTES } = this.#options;
    const onFailure = (error: unknown): void => this.#fail(error);
    const owner: HostSlotsOwner = { onRoom: () => this.#advance(), onFailure };
    this.#slots = this.#memory.use(await HostSlots.reserve(transfer, plan.slotBytes, owner));
    const resident = this.#memory.use(await SlotMemory.reserve(transfer, plan.residentBytes, this.#slots));
    let pinned: HostBuffer | undefined, deviceSlots: DeviceSpan | undefined;
    if (plan.pinnedBytes > 0) pinned = this.#memory.use(await transfer.context.hostBuffer(plan.pinnedBytes));
    if (plan.deviceSlotBytes > 0) deviceSlots = this.#memory.use(transfer.memory.deviceBuffer(plan.deviceSlotBytes));

    const moving = [...tape.keys()].filter((position) => !plan.resident[position]);
    const pinnedAddresses = new Map<number, bigint>();
    let residentBytes = 0, pinnedBytes = 0;
    for (const [position, { paddedBytes }] of tape.entries()) {
      if (plan.resident[position]) {
        this.#addresses[position] = resident.deviceAddress(residentBytes);
        residentBytes += paddedBytes;
      } else if (plan.pinned[position]) {
        pinnedAddresses.set(position, pinned!.address + BigInt(pinnedBytes));
        pinnedBytes += paddedBytes;
      }
    }
    this.#reads = new ReadAhead({
      tape,
      streamed: moving.filter((position) => !pinnedAddresses.has(position)),
      locate: (position) => this.#locate(position),
      slots: this.#slots,
      files: this.#files,
      depth,
      pieceBytes,
      onArrival: () => this.#arrived(),
      onFailure,
    });
    this.#feed = deviceSlots
      ? new CopyingFeed({
        ...{ transfer, tape, copied: moving, pinned: pinnedAddresses, slots: this.#slots, reads: this.#reads, deviceSlots },
      })
      : new UnifiedFeed(transfer, this.#slots, this.#reads);
    await loadResident({
      ...{ tape, plan, files: this.#files, slots: this.#slots, resident, pinned, depth, pieceBytes, signal, onLoad },
      locate: (position) => this.#locate(position),
    });
    await transfer.finishCopies();
    this.#slots.lend(owner);
  }

  #locate(position: number): { file: number; position: number } {
    const { tensor, extent } = this.#options.tape[position];
    const entry = this.#options.manifest.tensors[tensor];
    return { file: entry.file, position: entry.extents[extent].offset };
  }

  /** Whether the files are read past the page cache, as far as they were read at all. */
  get isDirect(): boolean {
    return this.#files.paths.every((_, file) => this.#files.isDirect(file));
  }

  /** Most bytes of host slots that were in use at a time. */
  get slotPeakBytes(): number {
    return this.#slots.peakBytes;
  }

  /** What streaming has cost since open. */
  get statistics(): StreamStatistics {
    return {
      bytesRead: this.#reads.bytesRead,
      readBusyMs: this.#reads.busyMs,
      stallMs: this.#stallMs,
      stalls: this.#stalls,
    };
  }

  /**
   * Begins a pass at position 0. With `expectAnother` the reader runs on into the pass after it. A pass that does not use the tape from `usedExtents` on
   * does not read that, unless it has begun already.
   */
  beginPass(options: { expectAnother: boolean; usedExtents?: number }): void {
    if (this.#inPass || this.#stopping) throw new Error("Cannot begin a pass: another is under way");
    this.#inPass = true;
    this.#nextPosition = 0;
    this.#begunPasses++;
    this.#passStart = this.statistics;
    const { usedExtents = this.#addresses.length } = options;
    this.#passEnd = Math.min(this.#addresses.length, this.#feed.cut(this.#begunPasses - 1, usedExtents));
    this.expectPass(options.expectAnother);
  }

  /** Says whether another pass follows (or, before the first, comes soon), at any time. What was read ahead is kept for whenever it comes. */
  expectPass(expectAnother: boolean): void {
    this.#expectAnother = expectAnother;
    this.#advance();
  }

  /**
   * Returns the device address of the extent at `position`, the next one of the tape: at once where it is resident or on its way there, else as
   * soon as it is. Operations enqueued from then on see it. It stays valid until it is released; one extent is held at a time.
   *
   * @throws what the read threw; {CancelledError} where the pass is aborted meanwhile.
   */
  acquire(position: number): bigint | Promise<bigint> {
    if (this.#failure) throw this.#failure.error;
    if (this.#stopping) throw aborted();
    this.#check(`acquire extent ${position}`, this.#inPass && !this.#held && !this.#waiter && position === this.#nextPosition);
    const address = this.#addresses[position] ?? this.#feed.take(position);
    if (address !== undefined) {
      this.#held = true;
      return address;
    }
    const started = performance.now();
    const { promise } = this.#waiter = Promise.withResolvers<bigint>();
    this.#advance();
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
    if (this.#addresses[position] === undefined) this.#feed.giveBack();
    this.#held = false;
    this.#nextPosition++;
    this.#advance();
  }

  /** Passes over what was brought of extents that this pass does not use, and of which the last before has been released. */
  async skipRest(): Promise<void> {
    while (this.#nextPosition < this.#passEnd) {
      const position = this.#nextPosition;
      await this.acquire(position);
      this.release(position);
    }
  }

  /** Ends a pass whose extents were all released, and returns what it cost. */
  endPass(options: { expectAnother: boolean }): StreamStatistics {
    this.#check("end the pass", this.#inPass && this.#nextPosition === this.#passEnd);
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
   * emptied once reads in flight and operations on the streams are done, and no pass is expected. An extent that is held must not be
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
    this.#reads.halt();
    // Whoever got an extent just now runs on to its next call, so that its operations are among those waited for.
    await new Promise((resolve) => setTimeout(resolve, 0));
    await this.#reads.idle();
    await this.#options.transfer.settle();
    this.#feed.rewind();
    this.#begunPasses = 0;
    this.#held = this.#inPass = false;
  }

  /** Waits for reads in flight and operations on the streams, then frees the memory and closes the files. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#disposed) return;
    this.#disposed = true;
    this.#failure ??= { error: new CancelledError("Cannot use the weights: the model is closed") };
    this.#waiter?.reject(this.#failure.error);
    this.#waiter = undefined;
    if (this.#feed) await (this.#stopping ??= this.#stop());
    else await this.#options.transfer.settle();
    this.#files[Symbol.dispose]();
    this.#memory[Symbol.dispose]();
  }

  #check(action: string, allowed: boolean): void {
    if (allowed) return;
    const state = this.#inPass ? `the pass is at extent ${this.#nextPosition}` : "no pass is under way";
    throw new Error(`Cannot ${action}: ${state}`);
  }

  #fail(error: unknown): void {
    this.#failure ??= { error };
    this.#reads?.halt();
    this.#waiter?.reject(this.#failure.error);
    this.#waiter = undefined;
  }

  /** Prepares what is next, as far as a pass is expected and there is room. */
  #advance(): void {
    if (this.#failure || this.#stopping || this.#disposed) return;
    this.#feed.expect(this.#begunPasses + (this.#expectAnother ? 1 : 0));
    this.#handOut();
  }

  /** Goes on with what has been read. */
  #arrived(): void {
    if (this.#failure || this.#stopping) return;
    this.#feed.advance();
    this.#handOut();
  }

  /** Gives the next extent to whoever waits for it. */
  #handOut(): void {
    if (!this.#waiter) return;
    const address = this.#feed.take(this.#nextPosition);
    if (address === undefined) return;
    const { resolve } = this.#waiter;
    this.#waiter = undefined;
    this.#held = true;
    resolve(address);
  }
}
