/**
 * Downloads one file: several ranges in flight, appended in order to `<name>.incomplete`, hashed as they are appended, renamed when
 * the hash is right.
 *
 * Because only whole beginnings are ever on disk, whatever kills the process leaves a file that the next one goes on with; Python versions
 * that resume read it in the same way.
 * @module
 */
import { createHash, type Hash } from "node:crypto";
import fs from "node:fs";
import { readAt, sync, syncDirectory, writeAt } from "../checkpoint/positional_io.ts";
import { AirkernError, BudgetError, HubError } from "../errors.ts";
import { dirname } from "node:path";
import type { RemoteRanges } from "./ranges.ts";
import type { ContentHash, RemoteFile } from "./repository.ts";
import { downloadCancelled } from "./retry.ts";

/** Bytes of one request: large enough that its round trip is small beside it. */
export const PIECE_BYTES: number = 4 * 1024 * 1024;

/** Requests in flight for one file, and so pieces in memory. */
export const PIECES_IN_FLIGHT = 8;

/** Ending of the names of files that are not whole yet, as huggingface_hub has it. */
export const INCOMPLETE_SUFFIX = ".incomplete";

const REHASH_BYTES = 4 * 1024 * 1024;

/** Writes to a file; tests put a full disk in its place. */
export type WriteAt = (descriptor: number, from: Uint8Array, position: number) => Promise<void>;

/** Options of {@linkcode downloadFile}. */
export interface TransferOptions {
  signal?: AbortSignal;
  /** Is told how many bytes of the file are there; fewer than before where it had to start over. */
  onBytes?: (doneBytes: number) => void;
  writeAt?: WriteAt;
}

function startHash(file: RemoteFile): Hash {
  const hash = createHash(file.hash.algorithm === "sha256" ? "sha256" : "sha1");
  if (file.hash.algorithm === "git-sha1") hash.update(`blob ${file.bytes}\0`);
  return hash;
}

/** Turns a failed write into one line that says what to do. */
export function downloadWriteError(path: string, error: unknown): unknown {
  const code = (error as NodeJS.ErrnoException)?.code;
  if (code === "ENOSPC" || code === "EDQUOT") {
    return new BudgetError(
      `Cannot write ${path}: the disk is full; what was downloaded is kept, so free some space and run it again`,
    );
  }
  return code === undefined ? error : new AirkernError(`Cannot write ${path}: ${(error as Error).message}`);
}

/** Hashes what an earlier run left and returns its length. */
async function takeUp(descriptor: number, file: RemoteFile, hash: Hash, signal: AbortSignal | undefined): Promise<number> {
  const { size } = fs.fstatSync(descriptor);
  if (size > file.bytes) {
    fs.ftruncateSync(descriptor, 0);
    return 0;
  }
  const buffer = new Uint8Array(Math.min(size, REHASH_BYTES));
  for (let position = 0; position < size;) {
    if (signal?.aborted) throw downloadCancelled();
    const part = buffer.subarray(0, Math.min(buffer.length, size - position));
    if (await readAt(descriptor, part, position) !== part.length) throw new Error("the file was changed meanwhile");
    hash.update(part);
    position += part.length;
  }
  return size;
}

/** Appends the rest of a file and returns the hash of all of it. */
async function append(descriptor: number, ranges: RemoteRanges, path: string, options: TransferOptions): Promise<string> {
  const { file } = ranges;
  const { signal, onBytes, writeAt: write = writeAt } = options;
  const hash = startHash(file);
  let position = await takeUp(descriptor, file, hash, signal), requested = position;
  onBytes?.(position);
  const inFlight: { bytes: Uint8Array; reading: Promise<void> }[] = [];
  try {
    while (position < file.bytes) {
      if (signal?.aborted) throw downloadCancelled();
      while (inFlight.length < PIECES_IN_FLIGHT && requested < file.bytes) {
        const bytes = new Uint8Array(Math.min(PIECE_BYTES, file.bytes - requested));
        const reading = ranges.read(requested, bytes);
        // Awaited below, in order; until then a failure must not count as unhandled.
        reading.catch(() => {});
        inFlight.push({ bytes, reading });
        requested += bytes.length;
      }
      const { bytes, reading } = inFlight[0];
      await reading;
      inFlight.shift();
      try {
        await write(descriptor, bytes, position);
      } catch (error) {
        throw downloadWriteError(path, error);
      }
      hash.update(bytes);
      position += bytes.length;
      onBytes?.(position);
    }
  } finally {
    await Promise.allSettled(inFlight.map(({ reading }) => reading));
  }
  return hash.digest("hex");
}

/** Returns a hash as messages name it. */
function hashName({ algorithm }: ContentHash): string {
  return algorithm === "sha256" ? "SHA-256" : "git hash";
}

/**
 * Downloads a file to a path, going on from what an earlier run left. A file whose hash is wrong is fetched once more from its beginning,
 * since what was wrong may be what an older run left; then it is an error, and nothing of it is kept.
 *
 * @throws {HubError} where the hub refuses or fails, or gives other content than it lists.
 * @throws {BudgetError} where the disk is full. @throws {CancelledError} after the signal.
 */
export async function downloadFile(ranges: RemoteRanges, path: string, options: TransferOptions = {}): Promise<void> {
  const { file } = ranges;
  const incomplete = path + INCOMPLETE_SUFFIX;
  for (let again = false;; again = true) {
    let descriptor: number;
    try {
      descriptor = fs.openSync(incomplete, fs.constants.O_RDWR | fs.constants.O_CREAT, 0o664);
    } catch (error) {
      throw downloadWriteError(incomplete, error);
    }
    let found: string;
    try {
      found = await append(descriptor, ranges, incomplete, options);
      if (found === file.hash.hex) await sync(descriptor);
    } finally {
      fs.closeSync(descriptor);
    }
    if (found === file.hash.hex) break;
    fs.rmSync(incomplete, { force: true });
    if (!again) continue;
    const required = `${hashName(file.hash)} ${found}, required ${file.hash.hex}`;
    throw new HubError(`Cannot use what was downloaded as ${file.path}: it has ${required}; nothing of it was kept`, "content");
  }
  fs.renameSync(incomplete, path);
  await syncDirectory(dirname(path));
}
