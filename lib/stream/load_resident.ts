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
  const { tape, plan, files, slots, depth, pieceBytes, signal } = options;
  const runs = runsToLoad(options);
  let failure: { error: unknown } | undefined;
  const onFailure = (error: unknown): void => void (failure ??= { error });
  const cutter = new PieceCutter(() => runs.next(), pieceBytes);
  const pump = new ReadPump(files, depth, () => failure || signal?.aborted ? undefined : cutter.next(), onFailure);
  slots.lend({ onRoom: () => pump.start(), onFailure });
  for (;;) {
    pump.start();
    await pump.idle();
    if (failure || signal?.aborted || runs.done()) break;
    // All has been read that the slots have room for.
    await slots.idle();
  }
  if (failure) throw failure.error;
  if (signal?.aborted) throw new CancelledError("Cannot load the resident weights: it was cancelled", { cause: signal.reason });

  function runsToLoad({ resident, pinned, locate, onLoad }: LoadOptions) {
    let position = 0, residentBytes = 0, pinnedBytes = 0, doneBytes = 0;
    const skip = (): void => {
      while (position < tape.length && !plan.resident[position] && !plan.pinned[position]) position++;
    };
    const toDevice = (bytes: number): Pick<Run, "target" | "done"> | undefined => {
      const landing = resident.land(residentBytes, bytes);
      if (!landing) return undefined;
      residentBytes += bytes;
      let unreadBytes = bytes;
      return {
        target: (start, length) => landing.target(start, length),
        done: (readBytes) => {
          unreadBytes -= readBytes;
          if (unreadBytes === 0) landing.arrive();
          onLoad?.(doneBytes += readBytes);
        },
      };
    };
    const toHost = (bytes: number): Pick<Run, "target" | "done"> => {
      const offset = pinnedBytes;
      pinnedBytes += bytes;
      return { target: (start, length) => pinned!.view(offset + start, length), done: (n) => onLoad?.(doneBytes += n) };
    };
    skip();
    return {
      done: () => position === tape.length,
      next: (): Run | undefined => {
        if (position === tape.length) return undefined;
        const bytes = tape[position].paddedBytes;
        const way = plan.resident[position] ? toDevice(bytes) : toHost(bytes);
        if (!way) return undefined;
        const run = { ...locate(position++), bytes, ...way };
        skip();
        return run;
      },
    };
  }
}
