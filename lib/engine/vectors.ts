/**
 * Loads what stays resident whatever the budget: norms, biases and routers.
 * @module
 */
import { closeSync, openSync } from "node:fs";
import type { ShardDirectory } from "../shard/reader.ts";
import { readWhole, runBounded } from "./positional_reads.ts";
import type { Workspace } from "./workspace.ts";

/** Files read at once. */
const FILE_DEPTH = 8;

/**
 * Reads vectors and routers into the workspace and returns their bytes.
 * @throws {FormatError} where a file ends too early.
 */
export async function loadVectors(
  shards: ShardDirectory,
  vectors: ReadonlyMap<string, number>,
  workspace: Workspace,
): Promise<number> {
  const byFile = Map.groupBy(vectors, ([name]) => shards.tensor(name).file);
  let bytesRead = 0;
  const jobs = [...byFile].map(([file, entries]) => async () => {
    const path = shards.filePaths[file];
    const descriptor = openSync(path, "r");
    try {
      for (const [name, count] of entries) {
        const into = workspace.vectorBytes(name, count);
        let end = 0;
        for (const { offset, bytes } of shards.tensor(name).extents) {
          await readWhole(descriptor, path, into.subarray(end, end += bytes), offset);
        }
        bytesRead += end;
      }
    } finally {
      closeSync(descriptor);
    }
  });
  await runBounded(jobs, FILE_DEPTH);
  return bytesRead;
}
