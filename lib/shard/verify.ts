/**
 * Rereads a shard directory against its hashes.
 * @module
 */
import { createHash } from "node:crypto";
import fs from "node:fs";
import { join } from "node:path";
import { readAt } from "../checkpoint/positional_io.ts";
import { CancelledError } from "../errors.ts";
import { type ExtentEntry, paddedBytes } from "./manifest.ts";
import { readManifest, ShardDirectory, shardFileFault } from "./reader.ts";

/** One thing that is not as the manifest says. */
export interface Damage {
  /** Name of the file. */
  file: string;
  /** Name of the tensor, where an extent is damaged. */
  tensor?: string;
  /** Index of the extent within its tensor. */
  extent?: number;
  /** Position of the extent in its file, in bytes. */
  offset?: number;
  /** What is wrong, in one line. */
  message: string;
}

/** What {@linkcode verifyShards} found. */
export interface VerifyReport {
  /** Shard files that the manifest lists. */
  files: number;
  /** Extents in them. */
  extents: number;
  /** Bytes of those extents, padding included. */
  bytes: number;
  /** Wall time. */
  seconds: number;
  /** Empty where all is whole. */
  damages: Damage[];
}

/** How far a verification is. */
export interface VerifyProgress {
  /** Always this; other work reports others in the same shape. */
  phase: "verify";
  /** Bytes of extents reread so far. */
  doneBytes: number;
  /** Bytes of all extents. */
  totalBytes: number;
  /** Name of the tensor that was reread last. */
  tensor: string;
}

/** Options of {@linkcode verifyShards}. */
export interface VerifyOptions {
  /** Is told of each extent that was reread. */
  onProgress?: (progress: VerifyProgress) => void;
  /** Stops the work soon after it is aborted. */
  signal?: AbortSignal;
}

/** An extent of a shard file, and whose it is. */
export interface PlacedExtent {
  tensor: string;
  index: number;
  extent: ExtentEntry;
}

function sha256(content: Uint8Array): string {
  return createHash("sha256").update(content).digest("hex");
}

/**
 * Verifies extents of one file in the order given, reading the next one while one is hashed.
 *
 * @param buffers Two, each as large as the largest extent with its padding.
 * @param found Is told of each extent and what is wrong with it, undefined where nothing is.
 * @throws {CancelledError} after the signal.
 */
export async function verifyExtents(
  path: string,
  placed: readonly PlacedExtent[],
  buffers: Uint8Array[],
  found: (place: PlacedExtent, fault: string | undefined) => void,
  signal: AbortSignal | undefined,
): Promise<void> {
  const descriptor = fs.openSync(path, "r");
  const read = (i: number): Promise<Uint8Array | string> => {
    const { offset, bytes } = placed[i].extent;
    const into = buffers[i % 2].subarray(0, paddedBytes(bytes));
    return readAt(descriptor, into, offset).then(
      (got) => got === into.length ? into : "the file ends within it",
      (error) => error.message,
    );
  };
  let reading: Promise<unknown> | undefined;
  try {
    let next = placed.length > 0 ? read(0) : undefined;
    for (let i = 0; next !== undefined; i++) {
      if (signal?.aborted) throw new CancelledError("Verifying was cancelled");
      const content: Uint8Array | string = await next;
      next = i + 1 < placed.length ? read(i + 1) : undefined;
      reading = next;
      if (typeof content === "string") found(placed[i], content);
      else {
        const hash = sha256(content), required = placed[i].extent.sha256;
        found(placed[i], hash === required ? undefined : `its SHA-256 is ${hash}, required ${required}`);
      }
    }
  } finally {
    await reading;
    fs.closeSync(descriptor);
  }
}

/**
 * Rereads every extent, header and tokenizer file of a shard directory and reports all that is damaged.
 * @throws {FormatError} where the path or the manifest itself is missing or damaged.
 * @throws {CancelledError} after the signal.
 */
export async function verifyShards(path: string, options: VerifyOptions = {}): Promise<VerifyReport> {
  const { onProgress, signal } = options;
  const start = performance.now();
  const shards = new ShardDirectory(path, readManifest(path));
  const { files, tensors, tokenizerFiles } = shards.manifest;
  const damages: Damage[] = [];
  for (const { name, bytes, sha256: required } of tokenizerFiles) {
    try {
      const content = fs.readFileSync(join(shards.path, name));
      const hash = sha256(content);
      if (hash !== required) damages.push({ file: name, message: `${name} is damaged: SHA-256 ${hash}, required ${required}` });
    } catch (error) {
      const missing = (error as NodeJS.ErrnoException).code === "ENOENT";
      damages.push({ file: name, message: missing ? `${name} is missing (${bytes} bytes)` : (error as Error).message });
    }
  }
  const byFile = files.map((): PlacedExtent[] => []);
  let largest = 0, extents = 0, totalBytes = 0, doneBytes = 0;
  for (const { name, file, extents: list } of tensors) {
    list.forEach((extent, index) => {
      byFile[file].push({ tensor: name, index, extent });
      largest = Math.max(largest, paddedBytes(extent.bytes));
      totalBytes += paddedBytes(extent.bytes);
      extents++;
    });
  }
  const buffers = [new Uint8Array(largest), new Uint8Array(largest)];
  for (const [i, file] of files.entries()) {
    const fault = await shardFileFault(shards.filePaths[i], file);
    if (fault !== undefined) damages.push({ file: file.name, message: `${file.name}: ${fault}` });
    const placed = byFile[i].sort((a, b) => a.extent.offset - b.extent.offset);
    if (!fs.existsSync(shards.filePaths[i])) continue;
    await verifyExtents(shards.filePaths[i], placed, buffers, ({ tensor, index, extent }, reason) => {
      doneBytes += paddedBytes(extent.bytes);
      onProgress?.({ phase: "verify", doneBytes, totalBytes, tensor });
      if (reason === undefined) return;
      const { offset } = extent;
      const message = `${tensor}, extent ${index}, at byte ${offset} of ${file.name} is damaged: ${reason}`;
      damages.push({ file: file.name, tensor, extent: index, offset, message });
    }, signal);
  }
  return { files: files.length, extents, bytes: totalBytes, seconds: (performance.now() - start) / 1000, damages };
}
