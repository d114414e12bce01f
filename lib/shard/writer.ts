/**
 * Writes shard files. A file carries a temporary name until its content is whole and durable, so whatever has its real name is whole.
 * @module
 */
import { createHash } from "node:crypto";
import fs from "node:fs";
import { dirname, join } from "node:path";
import { setImmediate } from "node:timers/promises";
import { sync, syncDirectory, writeAt } from "../checkpoint/positional_io.ts";
import { type HeaderEntry, writeHeader } from "../checkpoint/safetensors.ts";
import { AirkernError, BudgetError } from "../errors.ts";
import { EXTENT_ALIGNMENT, type Manifest, MANIFEST_FILE, paddedBytes, type ShardFile } from "./manifest.ts";
import { serializeManifest } from "./manifest_file.ts";

/** Ending of the names of files that are not whole yet. */
export const PARTIAL_SUFFIX = ".partial";

/** Turns a failed write's system error into one line; anything else is returned as it is. */
export function writeError(path: string, error: unknown): unknown {
  const code = (error as NodeJS.ErrnoException)?.code;
  if (code === "ENOSPC" || code === "EDQUOT") {
    return new BudgetError(
      `Cannot write ${path}: the disk is full; finished layers are kept, so free some space and run it again`,
    );
  }
  return code === undefined ? error : new AirkernError(`Cannot write ${path}: ${(error as Error).message}`);
}

/** Writes a file whole or not at all: under a temporary name, made durable, then renamed. */
export async function writeWhole(path: string, content: string | Uint8Array): Promise<void> {
  const partial = path + PARTIAL_SUFFIX;
  try {
    const descriptor = fs.openSync(partial, "w");
    try {
      await writeAt(descriptor, typeof content === "string" ? new TextEncoder().encode(content) : content, 0);
      await sync(descriptor);
    } finally {
      fs.closeSync(descriptor);
    }
    fs.renameSync(partial, path);
    await syncDirectory(dirname(path));
  } catch (error) {
    fs.rmSync(partial, { force: true });
    throw writeError(path, error);
  }
}

/** Writes the manifest, which makes a directory of whole files a model. */
export async function writeManifest(directory: string, manifest: Manifest): Promise<void> {
  await writeWhole(join(directory, MANIFEST_FILE), serializeManifest(manifest));
}

/** Where an extent was put. */
export interface WrittenExtent {
  offset: number;
  sha256: string;
}

/** Writes one file of a shard directory: extents one behind the other, then the header in the place kept for it. */
export class ShardFileWriter {
  readonly #directory: string;
  readonly #name: string;
  readonly #descriptor: number;
  readonly #headerBytes: number;
  readonly #entries: HeaderEntry[] = [];
  #end: number;
  #open = true;

  /**
   * Creates the file under a temporary name.
   * @param extents Name relative to the file's group, `self_attn.q_proj.weight#0`, and most bytes of each extent to come, in order: they say
   * how much place the header needs.
   */
  constructor(directory: string, name: string, extents: readonly { name: string; maxBytes: number }[]) {
    this.#directory = directory;
    this.#name = name;
    this.#headerBytes = writeHeader(
      extents.map(({ name, maxBytes }) => ({ name, dtype: "U8", shape: [paddedBytes(maxBytes)], bytes: paddedBytes(maxBytes) })),
      EXTENT_ALIGNMENT,
    ).length;
    this.#end = this.#headerBytes;
    try {
      this.#descriptor = fs.openSync(this.#path + PARTIAL_SUFFIX, "w");
    } catch (error) {
      throw writeError(this.#path, error);
    }
  }

  get #path(): string {
    return join(this.#directory, this.#name);
  }

  /** Where the file is until it is finished. */
  get partialPath(): string {
    return this.#path + PARTIAL_SUFFIX;
  }

  /**
   * Appends an extent. One append at a time.
   * @param content The extent, padded with zeros to a multiple of 4096 bytes.
   */
  async append(name: string, content: Uint8Array): Promise<WrittenExtent> {
    if (content.length % EXTENT_ALIGNMENT !== 0) {
      throw new RangeError(`Cannot append ${content.length} bytes: not padded to 4096`);
    }
    const offset = this.#end;
    this.#end += content.length;
    this.#entries.push({ name, dtype: "U8", shape: [content.length], bytes: content.length });
    // Hashed in a later turn of the event loop: while the system writes, and when the caller has started on the next extent.
    const hashing = setImmediate().then(() => createHash("sha256").update(content).digest("hex"));
    try {
      const [sha256] = await Promise.all([hashing, writeAt(this.#descriptor, content, offset)]);
      return { offset, sha256 };
    } catch (error) {
      throw writeError(this.#path, error);
    }
  }

  /** Writes the header, makes the file durable and gives it its name. */
  async finish(): Promise<ShardFile> {
    const header = writeHeader(this.#entries, EXTENT_ALIGNMENT, this.#headerBytes);
    if (header.length !== this.#headerBytes) {
      throw new RangeError(`Cannot finish ${this.#path}: header of ${header.length} bytes, place for ${this.#headerBytes}`);
    }
    try {
      await writeAt(this.#descriptor, header, 0);
      await sync(this.#descriptor);
      this.#close();
      fs.renameSync(this.#path + PARTIAL_SUFFIX, this.#path);
      await syncDirectory(this.#directory);
    } catch (error) {
      throw writeError(this.#path, error);
    }
    const headerSha256 = createHash("sha256").update(header).digest("hex");
    return { name: this.#name, bytes: this.#end, headerBytes: this.#headerBytes, headerSha256 };
  }

  /** Removes what was written, unless the file is finished. No append may be in flight. */
  [Symbol.dispose](): void {
    if (!this.#open) return;
    this.#close();
    fs.rmSync(this.#path + PARTIAL_SUFFIX, { force: true });
  }

  #close(): void {
    this.#open = false;
    fs.closeSync(this.#descriptor);
  }
}
