/**
 * Small reads at known positions, several under way.
 * @module
 */
import { readAt } from "../checkpoint/positional_io.ts";
import { FormatError } from "../errors.ts";

/**
 * Fills `into` from a file.
 * @throws {FormatError} where it cannot be read or ends before that.
 */
export async function readWhole(descriptor: number, path: string, into: Uint8Array, position: number): Promise<void> {
  let bytes: number;
  try {
    bytes = await readAt(descriptor, into, position);
  } catch (error) {
    throw new FormatError(`Cannot read ${path} at byte ${position}: ${(error as Error).message}`);
  }
  if (bytes < into.length) throw new FormatError(`Cannot read ${path}: it ends at byte ${position + bytes}`);
}

/** Runs jobs with at most `depth` under way; after a failure no new one starts, and none is left running. */
export async function runBounded(jobs: readonly (() => Promise<void>)[], depth: number): Promise<void> {
  let next = 0;
  const errors: unknown[] = [];
  const worker = async (): Promise<void> => {
    while (next < jobs.length && errors.length === 0) {
      try {
        await jobs[next++]();
      } catch (error) {
        errors.push(error);
      }
    }
  };
  await Promise.all(Array.from({ length: Math.min(depth, jobs.length) }, worker));
  if (errors.length > 0) throw errors[0];
}
