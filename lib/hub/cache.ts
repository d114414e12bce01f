/**
 * One model's folder in the Hugging Face cache, in the layout that Python tools share (huggingface_hub's `file_download.py`):
 *
 *     models--organisation--name/blobs/<hash>                     content, named by SHA-256 (LFS) or git's hash
 *     models--organisation--name/refs/<revision>                  the commit a branch or tag had when it was last looked up
 *     models--organisation--name/snapshots/<commit>/<path>        links to blobs
 *     .locks/models--organisation--name/<hash>.lock               held while a blob is written
 * @module
 */
import fs from "node:fs";
import { basename, dirname, join, relative } from "node:path";
import { FormatError } from "../errors.ts";
import { isCommitHash } from "./model_id.ts";
import type { RemoteFile } from "./repository.ts";
import { INCOMPLETE_SUFFIX } from "./transfer.ts";

/** Tells backup tools to leave a directory out (the Cache Directory Tagging Specification). */
const CACHEDIR_TAG = "Signature: 8a477f597d28d172789f06886806bc55\n";

/** The folder of one model. Nothing is created until something is written. */
export class ModelCache {
  readonly id: string;
  readonly #root: string;
  readonly #folder: string;

  constructor(cacheDirectory: string, id: string) {
    this.id = id;
    this.#root = cacheDirectory;
    this.#folder = `models--${id.replace("/", "--")}`;
  }

  get path(): string {
    return join(this.#root, this.#folder);
  }

  /** Returns the commit that a branch or tag had when it was last looked up, undefined where it never was. */
  commit(revision: string): string | undefined {
    if (isCommitHash(revision)) return revision;
    let text: string;
    try {
      text = fs.readFileSync(join(this.path, "refs", revision), "utf8").trim();
    } catch {
      return undefined;
    }
    return isCommitHash(text) ? text : undefined;
  }

  /** Notes the commit of a branch or tag. */
  writeRef(revision: string, commit: string): void {
    if (revision === commit || this.commit(revision) === commit) return;
    const path = join(this.path, "refs", revision);
    fs.mkdirSync(dirname(path), { recursive: true });
    // By rename, so that whoever reads it meanwhile reads all of it.
    const temporary = `${path}.${crypto.randomUUID().slice(0, 8)}.tmp`;
    fs.writeFileSync(temporary, commit);
    fs.renameSync(temporary, path);
  }

  /** Returns the directory of a commit's files. */
  snapshotPath(commit: string): string {
    return join(this.path, "snapshots", commit);
  }

  blobPath(file: RemoteFile): string {
    return join(this.path, "blobs", file.hash.hex);
  }

  lockPath(file: RemoteFile): string {
    return join(this.#root, ".locks", this.#folder, `${file.hash.hex}.lock`);
  }

  /** Returns whether a blob is there; one of another length is not it. */
  hasBlob(file: RemoteFile): boolean {
    return fs.statSync(this.blobPath(file), { throwIfNoEntry: false })?.size === file.bytes;
  }

  /** Returns how many bytes of a file are still to be downloaded. */
  missingBytes(file: RemoteFile): number {
    if (this.hasBlob(file)) return 0;
    const partial = fs.statSync(this.blobPath(file) + INCOMPLETE_SUFFIX, { throwIfNoEntry: false })?.size ?? 0;
    return file.bytes - (partial <= file.bytes ? partial : 0);
  }

  /** Makes the folders and the tag of the cache. */
  create(): void {
    fs.mkdirSync(join(this.path, "blobs"), { recursive: true });
    const tag = join(this.#root, "CACHEDIR.TAG");
    if (!fs.existsSync(tag)) fs.writeFileSync(tag, CACHEDIR_TAG);
  }

  /** Returns the free bytes of the disk that holds the cache, or will. */
  freeBytes(): number {
    let path = this.path;
    while (!fs.existsSync(path)) path = dirname(path);
    const { bavail, bsize } = fs.statfsSync(path);
    return bavail * bsize;
  }

  /** Puts a file's blob, which must be there, into a commit's snapshot. */
  link(commit: string, file: RemoteFile): string {
    const path = join(this.snapshotPath(commit), file.path);
    const target = relative(dirname(path), this.blobPath(file));
    const linked = linkTarget(path);
    if (linked === target) return path;
    fs.mkdirSync(dirname(path), { recursive: true });
    const temporary = `${path}.${crypto.randomUUID().slice(0, 8)}.tmp`;
    try {
      fs.symlinkSync(target, temporary);
      fs.renameSync(temporary, path);
    } catch (error) {
      fs.rmSync(temporary, { force: true });
      throw new FormatError(`Cannot link ${path} to its blob: ${(error as Error).message}`);
    }
    return path;
  }

  /** Returns the name of the blob behind a file of a snapshot: its content's hash. Undefined where the file is not there. */
  blobName(commit: string, path: string): string | undefined {
    const file = join(this.snapshotPath(commit), path);
    if (!fs.existsSync(file)) return undefined;
    // One level alone: a blob may itself be a link into a store that several models share.
    const target = linkTarget(file);
    return target === undefined ? undefined : basename(target);
  }
}

/** Returns what a link points to, or undefined where there is no link. */
function linkTarget(path: string): string | undefined {
  try {
    return fs.readlinkSync(path);
  } catch {
    return undefined;
  }
}
