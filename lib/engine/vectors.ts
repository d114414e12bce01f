/**
 * Loads what stays resident whatever the budget: norms and biases.
 * @module
 */
import { closeSync, openSync } from "node:fs";
import type { ShardDirectory } from "../shard/reader.ts";
import { readWhole, runBounded } from "./positional_reads.ts";
import type { Workspace } from "./workspace.ts";

/** Files read at once. */
const FILE_DEPTH = 8;

/**
 * Reads vectors into the workspace and returns their bytes.
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
        await readWhole(descriptor, path, into, shards.tensor(name).extents[0].offset);
        bytesRead += into.length;
      }
    } finally {
      closeSync(descriptor);
    }
  });
  await runBounded(jobs, FILE_DEPTH);
  return bytesRead;
}
