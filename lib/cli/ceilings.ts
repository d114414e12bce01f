/**
 * The ceilings that a run is compared with: what the disk and the memory give to a bare loop.
 * @module
 */
import fs from "node:fs";
import { dirname, join } from "node:path";
import { AirkernError } from "../errors.ts";
import type { Context } from "../ffi/context.ts";
import type { Speeds } from "../memory/planner.ts";
import { measureCopySeconds, measureReadSeconds } from "../ffi/measure.ts";
import type { ShardDirectory } from "../shard/reader.ts";
import { measureDiskReadBytesPerSecond } from "../stream/disk.ts";

/** Bytes read to measure the disk: enough to outlast a device's bursts, little enough not to be waited for. */
const DISK_BYTES = 512 * 1024 * 1024;

/** Bytes of memory read to measure it: more than the last-level cache of a large server, which may be hundreds of megabytes. */
const MEMORY_BYTES = 1024 * 1024 * 1024;
const MEMORY_REPEATS = 5;

/** Returns bytes a second of bare direct reads of a model's own files. */
export async function diskCeiling(context: Context, shards: ShardDirectory, signal: AbortSignal): Promise<number> {
  const files = shards.filePaths.map((path, i) => ({ path, bytes: shards.manifest.files[i].bytes }));
  return await measureDiskReadBytesPerSecond(context, files, { bytes: DISK_BYTES, signal });
}

/** Bytes written to measure a disk that holds no model yet; they are read several times over. */
const PROBE_BYTES = 256 * 1024 * 1024;

/**
 * Returns bytes a second of bare direct reads of the disk that a directory is on, or would be: of a file that is written for it and removed.
 *
 * @throws {AirkernError} where it cannot be written.
 */
export async function diskCeilingOf(context: Context, directory: string, signal: AbortSignal): Promise<number> {
  while (!fs.existsSync(directory)) directory = dirname(directory);
  const path = join(directory, `.airkern-probe-${crypto.randomUUID()}`);
  try {
    // Random, so that no file system stores less than it was given.
    const block = crypto.getRandomValues(new Uint8Array(65536));
    const descriptor = fs.openSync(path, "wx");
    try {
      for (let written = 0; written < PROBE_BYTES; written += block.length) {
        if (signal.aborted) throw signal.reason;
        new DataView(block.buffer).setUint32(0, written, true);
        fs.writeSync(descriptor, block);
      }
      fs.fsyncSync(descriptor);
    } finally {
      fs.closeSync(descriptor);
    }
    return await measureDiskReadBytesPerSecond(context, [{ path, bytes: PROBE_BYTES }], { bytes: DISK_BYTES, signal });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === undefined) throw error;
    throw new AirkernError(`Cannot measure the disk of ${directory}: ${(error as Error).message}`);
  } finally {
    fs.rmSync(path, { force: true });
  }
}

/**
 * What a GPU that is not in this machine is taken to give: a card of 8 GB on PCIe 4.0 x8, such as an RTX 4060, whose memory gives 272 GB/s and whose
 * products are no bound. Both are rounded down to what such a card gives of it.
 */
export const ASSUMED_GPU: Pick<Speeds, "busBytesPerSecond" | "memoryBytesPerSecond"> = {
  busBytesPerSecond: 12 * 2 ** 30,
  memoryBytesPerSecond: 220 * 2 ** 30,
};

/** Returns bytes a second at which all threads together read the memory that the device computes from. */
export async function memoryCeiling(context: Context): Promise<number> {
  if (context.description.unifiedMemory) {
    using memory = await context.hostBuffer(MEMORY_BYTES);
    return MEMORY_BYTES / await measureReadSeconds(context, memory.address, MEMORY_BYTES, MEMORY_REPEATS);
  }
  using memory = context.deviceBuffer(deviceShare(context, MEMORY_BYTES));
  return memory.bytes / await measureReadSeconds(context, memory.address, memory.bytes, MEMORY_REPEATS);
}

/** Bytes copied at a time to measure a bus. */
const BUS_BYTES = 256 * 1024 * 1024;
const BUS_REPEATS = 5;

/** Returns bytes a second of bare copies from page-locked host memory to the device. */
export async function busCeiling(context: Context): Promise<number> {
  using to = context.deviceBuffer(deviceShare(context, BUS_BYTES));
  using from = await context.hostBuffer(to.bytes);
  return to.bytes / await measureCopySeconds(context, to.address, from.address, to.bytes, BUS_REPEATS);
}

/** Returns so many bytes, or half of what the device has free. */
function deviceShare(context: Context, bytes: number): number {
  return Math.min(bytes, Math.floor(context.memoryInfo().freeBytes / 2 / 4096) * 4096);
}
