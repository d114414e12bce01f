/**
 * Opens shard directories.
 * @module
 */
import { createHash } from "node:crypto";
import fs from "node:fs";
import { join, resolve } from "node:path";
import { readAt } from "../checkpoint/positional_io.ts";
import { FormatError } from "../errors.ts";
import { type Manifest, MANIFEST_FILE, type ShardFile, type TensorEntry } from "./manifest.ts";
import { parseManifest } from "./manifest_file.ts";

/** A shard directory whose manifest, file sizes and file headers were found whole. */
export class ShardDirectory {
  /** Absolute path of the directory. */
  readonly path: string;
  readonly manifest: Manifest;
  /** Contents of the tokenizer's files, by name, where they are in no directory: shards of a GGUF file that are not made yet. */
  readonly tokenizerContents: ReadonlyMap<string, string> | undefined;
  /** Absolute path of each of the manifest's files. */
  readonly filePaths: readonly string[];
  readonly #tensorIndices: ReadonlyMap<string, number>;

  /** Use {@linkcode openShards}, which checks the files too. */
  constructor(path: string, manifest: Manifest, tokenizerContents?: ReadonlyMap<string, string>) {
    this.tokenizerContents = tokenizerContents;
    this.path = resolve(path);
    this.manifest = manifest;
    this.filePaths = manifest.files.map((file) => join(this.path, file.name));
    this.#tensorIndices = new Map(manifest.tensors.map((tensor, index) => [tensor.name, index]));
  }

  /** Returns the index of a tensor in the manifest's table, or undefined where there is none of that name. */
  findTensor(name: string): number | undefined {
    return this.#tensorIndices.get(name);
  }

  /**
   * Returns the index of a tensor in the manifest's table.
   * @throws {FormatError} where there is none of that name.
   */
  tensorIndex(name: string): number {
    const index = this.#tensorIndices.get(name);
    if (index === undefined) throw new FormatError(`Cannot use model ${this.path}: it has no tensor ${JSON.stringify(name)}`);
    return index;
  }

  /**
   * Returns a tensor's entry.
   * @throws {FormatError} where there is none of that name.
   */
  tensor(name: string): TensorEntry {
    return this.manifest.tensors[this.tensorIndex(name)];
  }

  /**
   * Returns the total bytes of the files as the manifest has them.
   */
  get fileBytes(): number {
    return this.manifest.files.reduce((sum, file) => sum + file.bytes, 0);
  }
}

/** Returns whether a directory is a shard directory: it has a manifest, which is written last. */
export function isShardDirectory(path: string): boolean {
  return fs.existsSync(join(path, MANIFEST_FILE));
}

/**
 * Reads and checks the manifest of a shard directory.
 * @throws {FormatError} where the path is missing, is no shard directory, or the manifest is damaged.
 */
export function readManifest(path: string): Manifest {
  const stat = fs.statSync(path, { throwIfNoEntry: false });
  if (stat === undefined) throw new FormatError(`Cannot open model ${path}: no such directory`);
  if (!stat.isDirectory()) throw new FormatError(`Cannot open model ${path}: it is a file; give the directory that holds it`);
  const where = join(path, MANIFEST_FILE);
  let text: string;
  try {
    text = fs.readFileSync(where, "utf8");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ENOENT") {
      throw new FormatError(`Cannot read ${where}: ${(error as Error).message}`);
    }
    throw new FormatError(`Cannot open model ${path}: it holds no ${MANIFEST_FILE}, so it is no (finished) shard directory`);
  }
  return parseManifest(text, where);
}

/** Returns what is wrong with a shard file's size or header, or undefined where nothing is. */
export async function shardFileFault(path: string, file: ShardFile): Promise<string | undefined> {
  let descriptor: number;
  try {
    descriptor = fs.openSync(path, "r");
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "ENOENT" ? "the file is missing" : (error as Error).message;
  }
  try {
    const { size: bytes } = fs.fstatSync(descriptor);
    if (bytes !== file.bytes) return `it has ${bytes} bytes, required ${file.bytes}`;
    const header = new Uint8Array(file.headerBytes);
    await readAt(descriptor, header, 0);
    const sha256 = createHash("sha256").update(header).digest("hex");
    return sha256 === file.headerSha256 ? undefined : `its header is damaged: SHA-256 ${sha256}, required ${file.headerSha256}`;
  } catch (error) {
    return (error as Error).message;
  } finally {
    fs.closeSync(descriptor);
  }
}

/**
 * Opens a shard directory: checks its manifest, and the size and header of each file. The weights are not read; `verifyShards` does that.
 * @throws {FormatError} where anything of this is missing or damaged.
 */
export async function openShards(path: string): Promise<ShardDirectory> {
  const shards = new ShardDirectory(path, readManifest(path));
  const faults = await Promise.all(shards.manifest.files.map((file, i) => shardFileFault(shards.filePaths[i], file)));
  const bad = faults.findIndex((fault) => fault !== undefined);
  if (bad >= 0) throw new FormatError(`Cannot open ${shards.filePaths[bad]}: ${faults[bad]}`);
  return shards;
}
