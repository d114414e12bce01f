/**
 * Keeps routed experts in memory and reads those that are missing, while those that are there are computed.
 *
 * What a layer needs is known only when its router has spoken, so nothing runs ahead as far as the prefetcher of the dense weights does: the
 * missing experts of a layer are asked for together, and read at depth in the order they are computed. While the disk has nothing to do, the
 * experts that the next layer is expected to use are read.
 * @module
 */
import { CancelledError, NativeError } from "../errors.ts";
import { AIRK_CANCELLED } from "../ffi/abi.ts";
import type { Event } from "../ffi/context.ts";
import type { ExpertTable } from "../memory/plan.ts";
import type { Manifest } from "../shard/manifest.ts";
import { DirectFiles, type FileIo } from "./direct_file.ts";
import { ExpertFrequency } from "./expert_frequency.ts";
import { ExpertSlots } from "./expert_slots.ts";
import { HostExperts } from "./host_experts.ts";
import { HostSlots } from "./host_slots.ts";
import { type Piece, PieceCutter, type Run } from "./piece.ts";
import { READ_DEPTH, READ_PIECE_BYTES, ReadPump } from "./read_pump.ts";
import { type Landing, SlotMemory } from "./slot_memory.ts";
import type { Transfer } from "./transfer.ts";

/** What {@linkcode ExpertCache} is made from. */
export interface ExpertCacheOptions {
  /** Paths of the manifest's files. */
  paths: readonly string[];
  manifest: Pick<Manifest, "tensors">;
  table: ExpertTable;
  /** Slots, each as large as the largest extent; at least 2 where anything has to be read twice. */
  slots: number;
  /** Host memory for extents on their way to a device with memory of its own, at least one of them. */
  stagingBytes: number;
  /** Slots of the same size for extents that stay in host memory, with a device that has memory of its own; absent: none. */
  hostSlots?: number;
  /** The way to the device, whose computing stream's operations read the extents. It stays the caller's. */
  transfer: Transfer;
  /** Reads in flight. */
  depth?: number;
  /** Bytes of one read, a multiple of the extent alignment. */
  pieceBytes?: number;
  io?: FileIo;
}

/** An expert of a layer, and how many tokens of the pass go to it. */
export interface ExpertUse {
  expert: number;
  tokens: number;
}

/** What routing has cost, since open. */
export interface ExpertStatistics {
  /** Experts that layers used: each once a layer and pass, however many tokens went to it. */
  used: number;
  /** Of those, the experts all of which was in memory from earlier passes. */
  hits: number;
  /** Bytes of the experts used. */
  usedBytes: number;
  /** Bytes of those that were in memory from earlier passes. */
  hitBytes: number;
  /** Experts used by layers that were predicted, and those of them that the prediction had. */
  predictable: number;
  predicted: number;
  /** Bytes of experts that host memory had and the device got from there. */
  copiedBytes: number;
  /** Bytes of experts read, predicted ones that were not used included. */
  bytesRead: number;
  /** Time that callers waited for experts. */
  stallMs: number;
}

/** Returns the bytes of a table's slots: those of its largest extent. */
export function expertSlotBytes({ experts }: Pick<ExpertTable, "experts">): number {
  return experts.reduce((most, extents) => extents.reduce((max, { paddedBytes }) => Math.max(max, paddedBytes), most), 0);
}

function aborted(): CancelledError {
  return new CancelledError("Cannot finish the pass: it was aborted");
}

/**
 * The experts in memory.
 *
 * A layer of a pass is `beginLayer`, perhaps `expect`, then for each of its experts and each extent in the order that `beginLayer` gave `acquire`, enqueueing
 * the operations that use it, `release`. A pass that cannot be finished is given up with `abortPass`. A read that fails makes the waiting `acquire` and
 * everything later throw its error.
 */
export class ExpertCache implements AsyncDisposable {
  readonly #options: ExpertCacheOptions;
  readonly #files: DirectFiles;
  readonly #memory: SlotMemory;
  readonly #staging: HostSlots | undefined;
  readonly #host: HostExperts | undefined;
  /** What was last brought into each slot. */
  readonly #landings: (Landing | undefined)[] = [];
  readonly #slotBytes: number;
  readonly #frequency: ExpertFrequency;
  readonly #slots: ExpertSlots;
  readonly #cutter: PieceCutter;
  readonly #pump: ReadPump;
  /** Whether all experts fit: then nothing ever leaves. */
  readonly #roomy: boolean;
  /** Extents that the present layer needs and nobody has begun to read, in order of use. */
  #missing: number[] = [];
  /** Extents that the next layer may need, and nobody has begun to read. */
  #ahead: number[] = [];
  /** Extents read for the present layer that have not arrived. */
  #arriving = 0;
  /** The layer expected next, and its experts. */
  #expected: { layer: number; experts: Set<number> } | undefined;
  /** Extents read ahead and not used since: they are no hits of an earlier pass. */
  readonly #fresh = new Set<number>();
  #released: { number: number; event: Event }[] = [];
  #releases = 0;
  #reached = 0;
  #releaseWait: Promise<void> | undefined;
  #waiter: { extent: number; promise: PromiseWithResolvers<bigint> } | undefined;
  #held: number | undefined;
  #failure: { error: unknown } | undefined;
  #stopping: Promise<void> | undefined;
  #disposed = false;
  readonly #counts = { used: 0, hits: 0, usedBytes: 0, hitBytes: 0, predictable: 0, predicted: 0, copiedBytes: 0, stallMs: 0 };

  private constructor(
    options: ExpertCacheOptions,
    frequency: ExpertFrequency,
    memory: SlotMemory,
    staging: HostSlots | undefined,
    host: HostExperts | undefined,
  ) {
    const { table } = options;
    this.#options = options;
    this.#memory = memory;
    this.#staging = staging;
    this.#host = host;
    this.#slotBytes = expertSlotBytes(table);
    const extents = table.experts.reduce((sum, { length }) => sum + length, 0);
    this.#roomy = options.slots >= extents;
    this.#frequency = frequency;
    this.#slots = new ExpertSlots(table, options.slots, frequency);
    this.#files = new DirectFiles(options.paths, { io: options.io });
    this.#cutter = new PieceCutter(() => this.#nextRun(), options.pieceBytes ?? READ_PIECE_BYTES);
    this.#pump = new ReadPump(this.#files, options.depth ?? READ_DEPTH, () => this.#nextPiece(), (error) => this.#fail(error));
    staging?.lend({ onRoom: () => this.#pump.start(), onFailure: (error) => this.#fail(error) });
  }

  /**
   * Reserves the memory of the slots. Nothing is read before a layer asks.
   * @throws {NativeError} where there is not enough memory.
   */
  static async open(options: ExpertCacheOptions): Promise<ExpertCache> {
    const { transfer, slots, table, stagingBytes, hostSlots = 0 } = options;
    const slotBytes = expertSlotBytes(table), frequency = new ExpertFrequency(table.numLayers, table.numExperts);
    using taken = new DisposableStack();
    const staging = transfer.isUnified
      ? undefined
      : taken.use(await HostSlots.reserve(transfer, stagingBytes, { onRoom() {}, onFailure() {} }));
    const memory = taken.use(await SlotMemory.reserve(transfer, slots * slotBytes, staging));
    const host = staging && hostSlots > 0
      ? taken.use(await HostExperts.reserve(transfer, hostSlots, slotBytes, table, frequency))
      : undefined;
    const cache = new ExpertCache(options, frequency, memory, staging, host);
    taken.move();
    return cache;
  }

  /** What routing has cost since open. */
  get statistics(): ExpertStatistics {
    return { ...this.#counts, bytesRead: this.#pump.bytesRead };
  }

  /** Whether there is anything to gain from {@linkcode ExpertCache.expect}. */
  get readsAhead(): boolean {
    return !this.#roomy || this.#slots.free > 0;
  }

  /**
   * Begins a layer: takes note of what it uses and asks for what is missing. Returns the experts in the order they must be computed: with `reorder` those
   * that are there come first, then those on their way, else as they are given.
   *
   * `layer` counts the layers that have experts; `tokens` are those of the pass.
   */
  beginLayer(layer: number, uses: readonly ExpertUse[], tokens: number, reorder: boolean): number[] {
    if (this.#failure) throw this.#failure.error;
    if (this.#stopping) throw aborted();
    this.#takeBack();
    const { table } = this.#options;
    const first = layer * table.numExperts;
    this.#count(layer, uses);
    this.#frequency.count(layer, tokens, uses.map(({ expert, tokens }) => [expert, tokens] as const));
    const experts = uses.map(({ expert }) => expert);
    if (reorder) {
      const nearness = new Map(experts.map((expert) => [expert, this.#missingExtents(first + expert)]));
      experts.sort((a, b) => nearness.get(a)! - nearness.get(b)! || a - b);
    }
    this.#slots.beginLayer(layer, experts.map((expert) => first + expert));
    this.#slots.expect([]);
    this.#expected = undefined;
    this.#ahead = [];
    this.#missing = experts.flatMap((expert) => this.#extents(first + expert))
      .filter((extent) => this.#slots.slotOf(extent) === undefined);
    this.#pump.start();
    return experts;
  }

  /** Says which experts of a layer are likely to be used once the present one is done; they are read while the disk is idle. */
  expect(layer: number, experts: readonly number[]): void {
    const first = layer * this.#options.table.numExperts;
    this.#expected = { layer, experts: new Set(experts) };
    const indexes = experts.map((expert) => first + expert);
    this.#slots.expect(indexes);
    this.#ahead = indexes.flatMap((index) => this.#extents(index))
      .filter((extent) => this.#slots.slotOf(extent) === undefined);
    this.#pump.start();
  }

  /**
   * Returns the device address of an extent of an expert of the layer begun last, at once where it is there, else as soon as it is. It stays valid
   * until it is released; one extent is held at a time.
   *
   * @throws what the read threw; {CancelledError} where the pass is aborted meanwhile.
   */
  acquire(layer: number, expert: number, index: number): bigint | Promise<bigint> {
    if (this.#failure) throw this.#failure.error;
    if (this.#stopping) throw aborted();
    const [first, end] = this.#slots.extentsOf(layer * this.#options.table.numExperts + expert);
    const extent = first + index;
    if (extent >= end || this.#slots.turnOf(extent) < 0 || this.#held !== undefined || this.#waiter) {
      throw new Error(`Cannot acquire extent ${index} of expert ${expert} of layer ${layer}: it is not its turn`);
    }
    if (this.#slots.hasArrived(extent)) {
      this.#held = extent;
      return this.#address(extent);
    }
    const started = performance.now();
    const promise = Promise.withResolvers<bigint>();
    this.#waiter = { extent, promise };
    this.#pump.start();
    const finish = () => this.#counts.stallMs += performance.now() - started;
    promise.promise.then(finish, finish);
    return promise.promise;
  }

  /** Gives the held extent up: its memory is used for another once all operations that are on the stream now are done. */
  release(): void {
    if (this.#stopping) throw this.#failure?.error ?? aborted();
    const extent = this.#held;
    if (extent === undefined) throw new Error("Cannot release an expert's extent: none is held");
    this.#held = undefined;
    this.#fresh.delete(extent);
    this.#slots.release(extent, ++this.#releases);
    if (this.#roomy) return;
    this.#released.push({ number: this.#releases, event: this.#options.transfer.computed() });
    this.#pump.start();
  }

  /**
   * Gives up the pass under way: a waiting `acquire` throws {@linkcode CancelledError}. What has been read whole stays. An extent that is held must not
   * be given to operations any more.
   */
  async abortPass(): Promise<void> {
    await (this.#stopping ??= this.#stop().finally(() => this.#stopping = undefined));
  }

  async #stop(): Promise<void> {
    this.#missing = [];
    this.#ahead = [];
    this.#waiter?.promise.reject(aborted());
    this.#waiter = undefined;
    // Whoever got an extent just now runs on to its next call, so that its operations are among those waited for.
    await new Promise((resolve) => setTimeout(resolve, 0));
    await this.#pump.idle();
    await this.#releaseWait;
    await this.#staging?.idle();
    await this.#options.transfer.settle();
    this.#staging?.reset();
    this.#host?.reset();
    this.#cutter.reset();
    for (const extent of this.#slots.arriving()) this.#slots.drop(extent);
    this.#slots.endLayer();
    this.#slots.expect([]);
    this.#expected = undefined;
    for (const { event } of this.#released.splice(0)) this.#options.transfer.events.giveBack(event);
    this.#reached = this.#releases;
    this.#arriving = 0;
    this.#held = undefined;
  }

  /** Waits for reads in flight and operations on the stream, then frees the memory and closes the files. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#disposed) return;
    this.#disposed = true;
    this.#failure ??= { error: new CancelledError("Cannot use the experts: the model is closed") };
    await (this.#stopping ??= this.#stop());
    this.#landings.forEach((landing) => landing?.use());
    this.#files[Symbol.dispose]();
    this.#memory[Symbol.dispose]();
    this.#host?.[Symbol.dispose]();
    this.#staging?.[Symbol.dispose]();
  }

  #extents(index: number): number[] {
    const [first, end] = this.#slots.extentsOf(index);
    return Array.from({ length: end - first }, (_, i) => first + i);
  }

  #bytes(extent: number): number {
    return this.#entry(extent).paddedBytes;
  }

  #entry(extent: number): ExpertTable["experts"][number][number] {
    const expert = this.#slots.expertOf(extent);
    return this.#options.table.experts[expert][extent - this.#slots.extentsOf(expert)[0]];
  }

  /** Returns how much of an expert is not there: what is on its way counts half. */
  #missingExtents(index: number): number {
    return this.#extents(index).reduce(
      (sum, extent) => sum + (this.#slots.hasArrived(extent) ? 0 : this.#slots.slotOf(extent) !== undefined ? 0.5 : 1),
      0,
    );
  }

  #count(layer: number, uses: readonly ExpertUse[]): void {
    const counts = this.#counts;
    const expected = this.#expected?.layer === layer ? this.#expected.experts : undefined;
    for (const { expert } of uses) {
      const extents = this.#extents(layer * this.#options.table.numExperts + expert);
      let hit = true;
      for (const extent of extents) {
        const bytes = this.#bytes(extent), there = this.#slots.hasArrived(extent) && !this.#fresh.has(extent);
        counts.usedBytes += bytes;
        counts.hitBytes += there ? bytes : 0;
        hit &&= there;
      }
      counts.used++;
      counts.hits += hit ? 1 : 0;
      counts.predictable += expected ? 1 : 0;
      counts.predicted += expected?.has(expert) ? 1 : 0;
    }
  }

  /** Returns where operations find an extent, and makes them wait for what of it is on its way. */
  #address(extent: number): bigint {
    const slot = this.#slots.slotOf(extent)!;
    this.#landings[slot]!.use();
    return this.#memory.deviceAddress(slot * this.#slotBytes);
  }

  #fail(error: unknown): void {
    this.#failure ??= { error };
    this.#waiter?.promise.reject(this.#failure.error);
    this.#waiter = undefined;
  }

  #nextPiece(): Piece | undefined {
    return this.#failure || this.#stopping ? undefined : this.#cutter.next();
  }

  /** Returns the next extent to read: what the layer misses first; with all of that there, what the next may miss. Sends on what host memory has. */
  #nextRun(): Run | undefined {
    while (!this.#failure) {
      const ahead = this.#missing.length === 0;
      if (ahead && this.#arriving > 0) return undefined;
      const extent = (ahead ? this.#ahead : this.#missing).at(0);
      if (extent === undefined) return undefined;
      const landing = this.#land(extent, ahead);
      if (!landing) return undefined;
      (ahead ? this.#ahead : this.#missing).shift();
      if (ahead) {
        this.#fresh.add(extent);
      } else {
        this.#fresh.delete(extent);
        this.#arriving++;
      }
      const { tensor, extent: index, paddedBytes: bytes } = this.#entry(extent);
      if (this.#host?.has(extent)) {
        this.#counts.copiedBytes += bytes;
        this.#arrived(extent, landing, ahead);
        continue;
      }
      const { file, extents } = this.#options.manifest.tensors[tensor];
      let unreadBytes = bytes;
      const done = (readBytes: number): void => {
        unreadBytes -= readBytes;
        if (unreadBytes > 0) return;
        if (this.#host?.isAwaited(extent)) this.#host.arrive(extent);
        this.#arrived(extent, landing, ahead);
      };
      return { file, position: extents[index].offset, bytes, target: landing.target, done };
    }
    return undefined;
  }

  /** Returns a slot of the device for an extent, to be filled through host memory; undefined while there is none. */
  #land(extent: number, ahead: boolean): Landing | undefined {
    const slot = this.#take(extent, ahead);
    if (slot === undefined) return undefined;
    const host = this.#host, run = host && (host.has(extent) || host.admit(extent)) ? host.run(extent) : undefined;
    const landing = this.#memory.land(slot * this.#slotBytes, this.#bytes(extent), run);
    if (!landing) {
      this.#slots.drop(extent);
      return undefined;
    }
    // What was there and never used keeps an event.
    this.#landings[slot]?.use();
    this.#landings[slot] = landing;
    return landing;
  }

  #arrived(extent: number, landing: Landing, ahead: boolean): void {
    if (!ahead) this.#arriving--;
    try {
      landing.arrive();
    } catch (error) {
      this.#fail(error);
      return;
    }
    this.#slots.arrive(extent);
    if (this.#waiter?.extent !== extent) return;
    const { promise } = this.#waiter;
    this.#waiter = undefined;
    this.#held = extent;
    promise.resolve(this.#address(extent));
  }

  /** Returns a slot for an extent; else undefined, and sees to it that reading goes on once one can be had. */
  #take(extent: number, ahead: boolean): number | undefined {
    this.#takeBack();
    const urgency = ahead ? "ahead" : this.#waiter?.extent === extent ? "awaited" : "needed";
    const { slot, pushedOut } = this.#slots.take(extent, urgency, this.#reached);
    if (pushedOut !== undefined) {
      this.#missing.push(pushedOut);
      this.#missing.sort((a, b) => this.#slots.turnOf(a) - this.#slots.turnOf(b));
    }
    if (slot === undefined && !this.#releaseWait && this.#released.length > 0) this.#waitForRelease(this.#released[0].event);
    return slot;
  }

  /** Takes note of the releases that the stream has reached. */
  #takeBack(): void {
    // While the oldest event is waited for it must not be recorded anew.
    while (!this.#releaseWait && this.#released.length > 0) {
      // The router's logits of a layer come after all that was released before, so mostly the last has been reached.
      const count = this.#isReached(this.#released.at(-1)!.event) ? this.#released.length : 1;
      if (count === 1 && !this.#isReached(this.#released[0].event)) return;
      for (const { number, event } of this.#released.splice(0, count)) {
        this.#reached = number;
        this.#options.transfer.events.giveBack(event);
      }
    }
  }

  #isReached(event: Event): boolean {
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
