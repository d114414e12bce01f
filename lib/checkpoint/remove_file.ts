/**
 * Removes files of checkpoints, those of a Hugging Face cache with what is behind them.
 * @module
 */
import fs from "node:fs";
import { basename, dirname, join, resolve } from "node:path";

/** Returns the directory of a Hugging Face cache's snapshot that a file is in, however deep. */
function snapshotOf(path: string): string | undefined {
  for (let folder = dirname(resolve(path));; folder = dirname(folder)) {
    const parent = dirname(folder);
    if (basename(parent) === "snapshots" && fs.existsSync(join(dirname(parent), "blobs"))) return folder;
    if (parent === folder) return undefined;
  }
}

/**
 * Removes a file of a checkpoint. Within a Hugging Face cache the file is a link to a blob; the blob goes too, unless another snapshot
 * links to it.
 */
export function removeCheckpointFile(path: string): void {
  const target = fs.realpathSync(path);
  fs.unlinkSync(path);
  const snapshot = snapshotOf(path);
  if (snapshot === undefined) return;
  const snapshots = dirname(snapshot);
  if (dirname(target) !== fs.realpathSync(join(dirname(snapshots), "blobs"))) return;
  for (const name of fs.readdirSync(snapshots, { recursive: true }).map(String)) {
    const link = join(snapshots, name);
    if (fs.existsSync(link) && fs.realpathSync(link) === target) return;
  }
  fs.unlinkSync(target);
}
