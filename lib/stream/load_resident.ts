/**
 * Reads the weights that stay in memory, once.
 * @module
 */
import { CancelledError } from "../errors.ts";
import type { HostBuffer } from "../ffi/context.ts";
import type { Plan, TapeExtent } from "../memory/plan.ts";
import type { DirectFiles } from "./direct_file.ts";
import type { HostSlots } from "./host_slots.ts";
import { PieceCutter } from "./piece.ts";
import type { Run } from "./piece.ts";
import { ReadPump } from "./read_pump.ts";
import type { SlotMemory } from "./slot_memory.ts";

/** What {@linkcode loadResident} takes. */
export interface LoadOptions {
  tape: readonly TapeExtent[];
  plan: Pick<Plan, "resident" | "pinned">;
  /** Where on disk an extent lies. */
  locate(position: number): { file: number; position: number };
  files: DirectFiles;
  /** Memory of the resident extents, one behind the other. */
  resident: SlotMemory;
  /** Memory of the extents that stay on the host, one behind the other. */
  pinned: HostBuffer | undefined;
  /** Slots that what goes to a device with memory of its own is staged in. */
  slots: HostSlots;
  depth: number;
  pieceBytes: number;
  signal?: AbortSignal;
  /** Told as extents arrive, with their bytes so far. */
  onLoad?: (doneBytes: number) => void;
}

/**
 * Reads the extents that stay. On a device with memory of its own, copies of them may still be under way afterwards.
 *
 * @throws what a read or the device threw; {CancelledError} where the signal says so.
 */
export async function loadResident(options: LoadOptions): Promise<void> {
  const { files, slots, depth, pieceBytes, signal } = options;
  const runs = new StayingRuns(options);
  let failure: { error: unknown } | undefined;
  const onFailure = (error: unknown): void => void (failure ??= { error });
  const cutter = new PieceCutter(() => runs.next(), pieceBytes);
  const pump = new ReadPump(files, depth, () => failure || signal?.aborted ? undefined : cutter.next(), onFailure);
  slots.lend({ onRoom: () => pump.start(), onFailure });
  // Reads start behind this loop's back as slots become free: only what has arrived says that it is over.
  while (!failure && !signal?.aborted && !runs.haveArrived) {
    pump.start();
    await pump.idle();
    // All has been read that the slots have room for.
    await slots.idle();
  }
  await pump.idle();
  if (failure) throw failure.error;
  if (signal?.aborted) throw new CancelledError("Cannot load the resident weights: it was cancelled", { cause: signal.reason });
}

/** The extents that stay, as runs to read. */
class StayingRuns {
  readonly #options: LoadOptions;
  readonly #positions: number[];
  #begunExtents = 0;
  #arrivedExtents = 0;
  #residentBytes = 0;
  #pinnedBytes = 0;
  #loadedBytes = 0;

  constructor(options: LoadOptions) {
    const { tape, plan } = options;
    this.#options = options;
    this.#positions = [...tape.keys()].filter((position) => plan.resident[position] || plan.pinned[position]);
  }

  /** Whether all bytes have been read. */
  get haveArrived(): boolean {
    return this.#arrivedExtents === this.#positions.length;
  }

  /** Returns the next one; undefined while there is no room for it, or behind the last. */
  next(): Run | undefined {
    const { tape, plan, locate } = this.#options;
    const position = this.#positions.at(this.#begunExtents);
    if (position === undefined) return undefined;
    const bytes = tape[position].paddedBytes;
    const place = plan.resident[position] ? this.#onDevice(bytes) : this.#onHost(bytes);
    if (!place) return undefined;
    this.#begunExtents++;
    let unreadBytes = bytes;
    return {
      ...locate(position),
      bytes,
      target: place.target,
      done: (readBytes) => {
        unreadBytes -= readBytes;
        if (unreadBytes === 0) {
          this.#arrivedExtents++;
          place.arrive();
        }
        this.#options.onLoad?.(this.#loadedBytes += readBytes);
      },
    };
  }

  #onDevice(bytes: number): { target: Run["target"]; arrive(): void } | undefined {
    const landing = this.#options.resident.land(this.#residentBytes, bytes);
    if (landing) this.#residentBytes += bytes;
    return landing && { target: landing.target, arrive: () => landing.arrive({ isUsed: false }) };
  }

  #onHost(bytes: number): { target: Run["target"]; arrive(): void } {
    const pinned = this.#options.pinned!, offset = this.#pinnedBytes;
    this.#pinnedBytes += bytes;
    return { target: (start, length) => pinned.view(offset + start, length), arrive: () => {} };
  }
}
