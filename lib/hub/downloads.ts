/**
 * Brings files of one snapshot into the cache: each once, under its lock, with progress over all that are expected.
 * @module
 */
import fs from "node:fs";
import { join } from "node:path";
import { BudgetError, HubError } from "../errors.ts";
import type { ModelCache } from "./cache.ts";
import type { HubClient } from "./client.ts";
import { lockFile } from "./lock.ts";
import { RemoteRanges } from "./ranges.ts";
import { listRepository, type RemoteFile, type Repository } from "./repository.ts";
import { downloadFile, downloadWriteError, type TransferOptions } from "./transfer.ts";

/** How far a download is. */
export interface DownloadProgress {
  /** `wait`: another process is downloading the same file. */
  phase: "wait" | "download";
  /** Bytes that are there, with what an earlier run had. */
  doneBytes: number;
  /** Bytes when all is there. */
  totalBytes: number;
  /** The file at work. */
  file: string;
}

/** What tests put in the place of the machine. */
export interface DownloadDisk {
  freeBytes?: () => number;
  writeAt?: TransferOptions["writeAt"];
}

/** Room left on the disk for everything else. */
const RESERVE_BYTES = 16 * 1024 * 1024;

function gibibytes(bytes: number): string {
  return bytes < 2 ** 30 ? `${(bytes / 2 ** 20).toFixed(1)} MiB` : `${(bytes / 2 ** 30).toFixed(2)} GiB`;
}

/** The files of one snapshot, on disk or to be brought there. */
export class Downloads {
  readonly id: string;
  readonly commit: string;
  readonly #cache: ModelCache;
  readonly #client: HubClient;
  /** Undefined where the hub was not asked: then what is not cached cannot be had. */
  readonly #repository: Repository | undefined;
  /** Why the hub was not asked, for messages. */
  readonly #offlineReason: string;
  readonly #onProgress: ((progress: DownloadProgress) => void) | undefined;
  readonly #disk: DownloadDisk;
  /** Bytes of each expected file, and of them what is there. */
  readonly #expected = new Map<string, { totalBytes: number; doneBytes: number }>();

  constructor(parts: {
    cache: ModelCache;
    client: HubClient;
    commit: string;
    repository?: Repository;
    offlineReason?: string;
    onProgress?: (progress: DownloadProgress) => void;
    disk?: DownloadDisk;
  }) {
    this.id = parts.cache.id;
    this.commit = parts.commit;
    this.#cache = parts.cache;
    this.#client = parts.client;
    this.#repository = parts.repository;
    this.#offlineReason = parts.offlineReason ?? "";
    this.#onProgress = parts.onProgress;
    this.#disk = parts.disk ?? {};
  }

  /** Directory of the snapshot. */
  get directory(): string {
    return this.#cache.snapshotPath(this.commit);
  }

  /** Returns the hash of a file's content, undefined where there is no such file. */
  findHash(name: string): string | undefined {
    return this.#repository?.files.get(name)?.hash.hex ?? this.#cache.blobName(this.commit, name);
  }

  /** Lists the files of another commit of the model; undefined where the hub is not asked or does not have it any more. */
  async filesAt(commit: string): Promise<Repository["files"] | undefined> {
    if (this.#repository === undefined) return undefined;
    try {
      return (await listRepository(this.#client, this.id, commit)).files;
    } catch (error) {
      if (error instanceof HubError) return undefined;
      throw error;
    }
  }

  /** Returns the hash of a file's content: of what is listed, else of what is cached. @throws {HubError} where neither is known. */
  contentHash(name: string): string {
    const hash = this.findHash(name);
    if (hash === undefined) throw this.#unavailable(name);
    return hash;
  }

  /** Returns reads of a file on the hub. @throws {HubError} where the hub was not asked, or has no such file. */
  ranges(name: string): RemoteRanges {
    return new RemoteRanges(this.#client, this.id, this.commit, this.#remote(name));
  }

  /** Takes these files for what progress counts, and returns the bytes of each that are not on disk. */
  expect(names: readonly string[]): Map<string, number> {
    const missing = new Map<string, number>();
    this.#expected.clear();
    for (const name of names) {
      if (fs.existsSync(join(this.directory, name))) {
        const { size } = fs.statSync(join(this.directory, name));
        this.#expected.set(name, { totalBytes: size, doneBytes: size });
        missing.set(name, 0);
        continue;
      }
      const file = this.#remote(name);
      const bytes = this.#cache.missingBytes(file);
      this.#expected.set(name, { totalBytes: file.bytes, doneBytes: file.bytes - bytes });
      missing.set(name, bytes);
    }
    return missing;
  }

  /** Makes the snapshot's directory, for a model of which no file has come yet. @throws as {@linkcode fetch} where it cannot be made. */
  createDirectory(): void {
    try {
      this.#cache.create();
      fs.mkdirSync(this.directory, { recursive: true });
    } catch (error) {
      throw downloadWriteError(this.#cache.path, error);
    }
  }

  /** @throws {BudgetError} where the disk of the cache has fewer bytes free. */
  checkDiskSpace(bytes: number): void {
    if (bytes === 0) return;
    const freeBytes = this.#disk.freeBytes?.() ?? this.#cache.freeBytes();
    if (freeBytes >= bytes + RESERVE_BYTES) return;
    throw new BudgetError(
      `Cannot download model ${this.id}: ${gibibytes(freeBytes)} are free on the disk of ${this.#cache.path}, ` +
        `required ${gibibytes(bytes + RESERVE_BYTES)}`,
    );
  }

  /**
   * Returns the path of a file in the snapshot, once it is there.
   *
   * @throws {HubError} where it cannot be had, {BudgetError} where the disk is full, {CancelledError} after the signal.
   */
  async fetch(name: string): Promise<string> {
    const path = join(this.directory, name);
    if (fs.existsSync(path)) return path;
    const file = this.#remote(name);
    try {
      this.#cache.create();
    } catch (error) {
      throw downloadWriteError(this.#cache.path, error);
    }
    if (!this.#cache.hasBlob(file)) {
      using _lock = await lockFile(this.#cache.lockPath(file), this.#client.signal, () => this.#report(name, undefined));
      // Another process may have brought it meanwhile.
      if (!this.#cache.hasBlob(file)) {
        await downloadFile(this.ranges(name), this.#cache.blobPath(file), {
          signal: this.#client.signal,
          onBytes: (doneBytes) => this.#report(name, doneBytes),
          writeAt: this.#disk.writeAt,
        });
      }
    }
    this.#report(name, file.bytes);
    return this.#cache.link(this.commit, file);
  }

  #remote(name: string): RemoteFile {
    const file = this.#repository?.files.get(name);
    if (file) return file;
    if (this.#repository === undefined) throw this.#unavailable(name);
    throw new HubError(`Cannot find ${name} of model ${this.id}: its repository lists no such file`, "file");
  }

  #unavailable(name: string): HubError {
    return new HubError(
      `Cannot use model ${this.id}: ${name} is not in ${this.directory}, and ${this.#offlineReason}`,
      "offline",
    );
  }

  #report(name: string, fileBytes: number | undefined): void {
    const entry = this.#expected.get(name);
    if (entry && fileBytes !== undefined) entry.doneBytes = fileBytes;
    let doneBytes = 0, totalBytes = 0;
    for (const file of this.#expected.values()) {
      doneBytes += file.doneBytes;
      totalBytes += file.totalBytes;
    }
    this.#onProgress?.({ phase: fileBytes === undefined ? "wait" : "download", doneBytes, totalBytes, file: name });
  }
}
