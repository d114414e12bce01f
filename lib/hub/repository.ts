/**
 * What a repository holds at a revision, as the hub's API lists it.
 * @module
 */
import { HubError } from "../errors.ts";
import type { HubClient } from "./client.ts";
import { isCommitHash } from "./model_id.ts";

/** How a file's content is known: LFS files by SHA-256, others by git's hash of a blob (SHA-1 over `blob <bytes>\0` and the content). */
export type ContentHash = { algorithm: "sha256" | "git-sha1"; hex: string };

/** One file of a repository. */
export interface RemoteFile {
  /** Path in the repository, with `/`. */
  path: string;
  bytes: number;
  hash: ContentHash;
}

/** A repository at one commit. */
export interface Repository {
  id: string;
  /** Commit hash, 40 hex digits. */
  commit: string;
  files: ReadonlyMap<string, RemoteFile>;
}

/** Pages of a listing beyond which it is refused: a thousand files each. */
const MAX_PAGES = 200;

/** Returns a revision as it stands in a URL: one segment. */
function segment(revision: string): string {
  return encodeURIComponent(revision);
}

/** Returns the URL of a file's content. */
export function fileUrl(endpoint: string, id: string, commit: string, path: string): string {
  return `${endpoint}/${id}/resolve/${commit}/${path.split("/").map(encodeURIComponent).join("/")}`;
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** Returns whether a path stays in its directory: it becomes the name of a link below the snapshot. */
function isSafePath(path: unknown): path is string {
  // deno-lint-ignore no-control-regex -- a NUL or a line break in a name is what this is to catch
  return typeof path === "string" && path.length <= 1024 && !/[\\\x00-\x1f]/.test(path) &&
    path.split("/").every((part) => part !== "" && part !== "." && part !== "..");
}

/** Reads one entry of a listing; undefined for a directory. */
function parseEntry(entry: unknown, subject: string): RemoteFile | undefined {
  const refuse = (reason: string) => new HubError(`Cannot list ${subject}: an entry has ${reason}`, "content");
  if (!isObject(entry)) throw refuse("no object");
  const { type, path, size, oid, lfs } = entry;
  if (type === "directory") return undefined;
  if (!isSafePath(path)) throw refuse(`path ${JSON.stringify(path)}, which is no plain relative path`);
  const where = isObject(lfs) ? lfs : entry;
  const bytes = isObject(lfs) ? where.size ?? size : size;
  if (!Number.isSafeInteger(bytes) || (bytes as number) < 0) {
    throw refuse(`size ${JSON.stringify(bytes)}, required a number of bytes`);
  }
  const hash: ContentHash = isObject(lfs)
    ? { algorithm: "sha256", hex: String(lfs.oid ?? "").replace(/^sha256:/, "") }
    : { algorithm: "git-sha1", hex: String(oid ?? "") };
  const digits = hash.algorithm === "sha256" ? 64 : 40;
  if (!new RegExp(`^[0-9a-f]{${digits}}$`).test(hash.hex)) {
    throw refuse(`hash ${JSON.stringify(hash.hex)}, required ${digits} hex digits`);
  }
  return { path, bytes: bytes as number, hash };
}

/** Returns the URL of a listing's next page. */
function nextPage(headers: Headers, url: string): string | undefined {
  const link = /<([^>]+)>\s*;\s*rel="?next"?/.exec(headers.get("link") ?? "");
  return link ? new URL(link[1], url).href : undefined;
}

/**
 * Looks up the commit of a revision.
 * @throws {HubError} where there is no such repository or revision, or the hub cannot be asked.
 */
export async function resolveCommit(client: HubClient, id: string, revision: string): Promise<string> {
  if (isCommitHash(revision)) return revision;
  const subject = `model ${id}${revision === "main" ? "" : ` at revision ${revision}`}`;
  const { value } = await client.json(`${client.settings.endpoint}/api/models/${id}/revision/${segment(revision)}`, subject);
  const commit = isObject(value) ? value.sha : undefined;
  if (typeof commit === "string" && isCommitHash(commit)) return commit;
  throw new HubError(`Cannot look up ${subject}: the hub gave no commit hash, but ${JSON.stringify(commit)}`, "content");
}

/**
 * Lists a repository's files at a commit.
 * @throws {HubError} as {@linkcode resolveCommit}, and for a listing that cannot be trusted.
 */
export async function listRepository(client: HubClient, id: string, commit: string): Promise<Repository> {
  const subject = `model ${id} at revision ${commit.slice(0, 12)}`;
  const files = new Map<string, RemoteFile>();
  let url: string | undefined = `${client.settings.endpoint}/api/models/${id}/tree/${
    segment(commit)
  }?recursive=true&expand=false`;
  for (let page = 0; url !== undefined; page++) {
    if (page === MAX_PAGES) throw new HubError(`Cannot list ${subject}: more than ${MAX_PAGES} pages`, "content");
    const { value, headers }: { value: unknown; headers: Headers } = await client.json(url, subject);
    if (!Array.isArray(value)) throw new HubError(`Cannot list ${subject}: the hub gave no list`, "content");
    for (const entry of value) {
      const file = parseEntry(entry, subject);
      if (file) files.set(file.path, file);
    }
    url = nextPage(headers, url);
  }
  return { id, commit, files };
}
