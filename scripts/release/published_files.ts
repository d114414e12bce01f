/**
 * What `deno publish` would upload, and JSR's limit on it, which `deno publish --dry-run` does not check.
 * @module
 */
import { spawnSync } from "node:child_process";
import { statSync } from "node:fs";
import { relative } from "node:path";
import { fileURLToPath } from "node:url";

/** JSR refuses packages above 20 MB. */
export const JSR_LIMIT_BYTES = 20e6;

/** A file that would be uploaded. */
export interface PublishedFile {
  /** Relative to the package. */
  path: string;
  bytes: number;
}

/** Returns the files of a package in `directory` as `deno publish --dry-run` lists them. @throws where publishing would fail. */
export function publishedFiles(directory: string): PublishedFile[] {
  const { status, stdout, stderr } = spawnSync(Deno.execPath(), ["publish", "--dry-run", "--allow-dirty"], {
    cwd: directory,
    encoding: "utf8",
    env: { ...Deno.env.toObject(), NO_COLOR: "1" },
  });
  if (status !== 0) throw new Error(`Cannot publish ${directory}:\n${stderr}${stdout}`);
  const files = [...`${stdout}\n${stderr}`.matchAll(/^ +(file:\/\/\S+) \([\d.]+[KMG]?B\)$/gm)].map(([, url]) =>
    fileURLToPath(url)
  );
  if (files.length === 0) throw new Error(`Cannot list what ${directory} would publish: deno publish printed no file`);
  return files.map((path) => ({ path: relative(directory, path), bytes: statSync(path).size }));
}

/** Fails where JSR would refuse a package for its size, naming its largest files. Returns its bytes. */
export function checkPublishedBytes(
  directory: string,
  files: readonly PublishedFile[],
  limitBytes: number = JSR_LIMIT_BYTES,
): number {
  const total = files.reduce((sum, { bytes }) => sum + bytes, 0);
  if (total <= limitBytes) return total;
  const largest = files.toSorted((a, b) => b.bytes - a.bytes).slice(0, 3).map(({ path, bytes }) => `${path} ${bytes}`).join(", ");
  throw new Error(`Cannot publish ${directory}: it has ${total} bytes, JSR takes ${limitBytes}; largest are ${largest}`);
}
