/**
 * Whole reads and writes at a position of an open file: no shared file offset, so several may be in flight.
 * @module
 */
import fs from "node:fs";

/** Largest single call; the kernel moves at most 2 GiB - 4 KiB at once. */
const MAX_CALL_BYTES = 1 << 30;

/**
 * Fills `into` from a position and returns the bytes read: fewer than asked only where the file ends.
 * @throws the system's error of the failed read.
 */
export function readAt(descriptor: number, into: Uint8Array, position: number): Promise<number> {
  return new Promise((resolve, reject) => {
    let done = 0;
    const next = () => {
      const bytes = Math.min(into.length - done, MAX_CALL_BYTES);
      if (bytes === 0) return resolve(done);
      fs.read(descriptor, into, done, bytes, position + done, (error, got) => {
        if (error) return reject(error);
        if (got === 0) return resolve(done);
        done += got;
        next();
      });
    };
    next();
  });
}

/**
 * Writes all of `from` at a position.
 * @throws the system's error of the failed write, such as ENOSPC.
 */
export function writeAt(descriptor: number, from: Uint8Array, position: number): Promise<void> {
  return new Promise((resolve, reject) => {
    let done = 0;
    const next = () => {
      const bytes = Math.min(from.length - done, MAX_CALL_BYTES);
      if (bytes === 0) return resolve();
      fs.write(descriptor, from, done, bytes, position + done, (error, put) => {
        if (error) return reject(error);
        done += put;
        next();
      });
    };
    next();
  });
}

/** Makes a file's content durable. */
export function sync(descriptor: number): Promise<void> {
  return new Promise((resolve, reject) => fs.fsync(descriptor, (error) => error ? reject(error) : resolve()));
}

/** Makes renames within a directory durable. */
export async function syncDirectory(path: string): Promise<void> {
  const descriptor = fs.openSync(path, "r");
  try {
    await sync(descriptor);
  } finally {
    fs.closeSync(descriptor);
  }
}
