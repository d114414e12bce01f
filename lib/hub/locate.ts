/**
 * Finds what a user calls a model: a directory, or a name on the hub.
 * @module
 */
import fs from "node:fs";
import { FormatError, HubError, UsageError } from "../errors.ts";
import { isGgufName, wasGguf } from "../checkpoint/gguf_files.ts";
import { parseModelName } from "./model_id.ts";
import type { HubSnapshot, SnapshotOptions } from "./snapshot.ts";

/** Where a model is. */
export interface LocatedModel {
  /** The directory or GGUF file that was named, or the directory of a snapshot in the cache, whose weights may still have to come. */
  path: string;
  /** Undefined for a directory or file that was named. */
  snapshot: HubSnapshot | undefined;
}

/** Failures after which the directory that is not there may be what was meant. */
const MAY_BE_A_PATH = ["repository", "unreachable", "offline"];

/**
 * Returns the place of a model. A path that exists is meant as that, whatever the hub may have under the same name.
 *
 * @throws {FormatError} for a path that does not exist and is no hub id either.
 * @throws {UsageError} for a revision of a directory. @throws as {@linkcode openSnapshot}.
 */
export async function locateModel(model: string, options: SnapshotOptions = {}): Promise<LocatedModel> {
  if (fs.existsSync(model) || wasGguf(model)) {
    if (options.revision === undefined) return { path: model, snapshot: undefined };
    throw new UsageError(
      `Cannot use revision ${options.revision} of ${model}: it is a ${
        isGgufName(model) ? "file" : "directory"
      }, revisions are of models on the hub`,
    );
  }
  const name = parseModelName(model);
  if (name === undefined) {
    const hint = model.includes("/") ? "" : "; models of the hub are named organisation/name";
    throw new FormatError(`Cannot open model ${model}: no such ${isGgufName(model) ? "file" : "directory"}${hint}`);
  }
  // Loaded here, not at the top: importing AirKern must stay cheap for those who need no hub.
  const { openSnapshot } = await import("./snapshot.ts");
  try {
    const snapshot = await openSnapshot(name.id, { ...options, gguf: name.gguf });
    return { path: snapshot.path, snapshot };
  } catch (error) {
    if (!(error instanceof HubError) || !MAY_BE_A_PATH.includes(error.fault)) throw error;
    throw new HubError(`${error.message}; nor is there a ${isGgufName(model) ? "file" : "directory"} ${model}`, error.fault, {
      cause: error,
    });
  }
}
