/** Models for the hub of the tests, and a cache of their own for each test. */
import fs from "node:fs";
import { join } from "node:path";
import { openSnapshot, type SnapshotOptions } from "../../lib/hub/snapshot.ts";
import { TINY_CONFIG, tinyTensors, writeCheckpoint } from "../checkpoint/tiny_checkpoint.ts";
import { withTemporaryDirectory } from "../temporary_directory.ts";
import { commitOf, HubServer } from "./server.ts";

export const ID = "tiny/llama";

/** Returns a directory's files. */
export function filesOf(directory: string): Map<string, Uint8Array> {
  const names = fs.readdirSync(directory).filter((name) => fs.statSync(join(directory, name)).isFile());
  return new Map(names.map((name) => [name, new Uint8Array(fs.readFileSync(join(directory, name)))]));
}

/** Returns bytes that are different everywhere. */
export function noise(length: number, seed = 1): Uint8Array {
  const bytes = new Uint8Array(length);
  let state = seed;
  for (let i = 0; i < length; i++) bytes[i] = (state = (state * 1103515245 + 12345) >>> 0) >>> 16;
  return bytes;
}

/** A test's hub with one model, and directories of its own. */
export interface HubTest {
  server: HubServer;
  /** Directory of the checkpoint that the model is. */
  source: string;
  /** The model's files, which may be changed. */
  files: Map<string, Uint8Array>;
  commit: () => string;
  directory: string;
  /** Directory of the cache. */
  cache: string;
  options: (extra?: SnapshotOptions) => SnapshotOptions;
  pull: (extra?: SnapshotOptions) => Promise<string>;
}

/** Runs a test with a hub that has a tiny model of several files. The environment is the test's while it runs. */
export function withHub(body: (test: HubTest) => Promise<void>, fileCount = 3): () => Promise<void> {
  return () =>
    withTemporaryDirectory(async (directory) => {
      await using server = await HubServer.start();
      const source = join(directory, "source"), home = join(directory, "home");
      writeCheckpoint(source, tinyTensors(TINY_CONFIG, "F16"), TINY_CONFIG, fileCount);
      const files = filesOf(source);
      const repository = { files, revisions: ["v1.0", "refs/pr/1"] };
      server.repositories.set(ID, repository);
      const environment = server.environment(home);
      const before = Object.fromEntries(Object.keys(environment).map((name) => [name, Deno.env.get(name)]));
      for (const [name, value] of Object.entries(environment)) Deno.env.set(name, value);
      const options = (extra: SnapshotOptions = {}): SnapshotOptions => ({
        retryPolicy: { firstPauseMs: 1, attempts: 4 },
        ...extra,
      });
      try {
        await body({
          ...{ server, source, files, directory, options },
          commit: () => commitOf(repository),
          cache: join(home, "hub"),
          pull: async (extra) => {
            const snapshot = await openSnapshot(ID, options(extra));
            await snapshot.weights.pull();
            return snapshot.path;
          },
        });
      } finally {
        for (const [name, value] of Object.entries(before)) {
          value === undefined ? Deno.env.delete(name) : Deno.env.set(name, value);
        }
      }
    });
}
