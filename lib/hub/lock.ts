/**
 * Locks that other processes, Python's among them, see: `flock` on a file that stays.
 * @module
 */
import fs from "node:fs";
import { dirname } from "node:path";
import { downloadCancelled } from "./retry.ts";

const POLL_MS = 250;

/**
 * Waits until this process alone holds the lock. The lock is the system's, so a killed process leaves none behind.
 *
 * @param onWait Called each time the lock was found taken.
 * @throws {CancelledError} after the signal.
 */
export async function lockFile(path: string, signal: AbortSignal | undefined, onWait: () => void): Promise<Disposable> {
  fs.mkdirSync(dirname(path), { recursive: true });
  const file = Deno.openSync(path, { read: true, write: true, create: true, mode: 0o664 });
  try {
    while (!file.tryLockSync(true)) {
      if (signal?.aborted) throw downloadCancelled();
      onWait();
      await new Promise((wake) => setTimeout(wake, POLL_MS));
    }
    return file;
  } catch (error) {
    file.close();
    throw error;
  }
}
