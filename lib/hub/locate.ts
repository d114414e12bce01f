/**
 * Finds what a user calls a model: a directory, or a name on the hub.
 * @module
 */
import fs from "node:fs";
import { FormatError, HubError, UsageError } from "../errors.ts";
import { isModelId } from "./model_id.ts";
import type { HubSnapshot, SnapshotOptions } from "./snapshot.ts";

/** Where a model is. */
export interface LocatedModel {
  /** A directory: the one that was named, or a snapshot in the cache, whose weights may still have to come. */
  path: string;
  /** Undefined for a directory that was named. */
  snapshot: HubSnapshot | undefined;
}

/** Failures after which the directory that is not there may be what was meant. */
const MAY_BE_A_PATH = ["repository", "unreachable", "offline"];

/**
 * Returns the directory of a model. A path that exists is meant as that, whatever the hub may have under the same name.
 *
 * @throws {FormatError} for a path that does not exist and is no hub id either.
 * @throws {UsageError} for a revision of a directory. @throws as {@linkcode openSnapshot}.
 */
export async function locateModel(model: string, options: SnapshotOptions = {}): Promise<LocatedModel> {
  if (fs.existsSync(model)) {
    if (options.revision === undefined) return { path: model, snapshot: undefined };
    throw new UsageError(
      `Cannot use revision ${options.revision} of ${model}: it is a directory, revisions are of models on the hub`,
    );
  }
  if (!isModelId(model)) {
    const hint = model.includes("/") ? "" : "; models of the hub are named organisation/name";
    throw new FormatError(`Cannot open model ${model}: no such directory${hint}`);
  }
  // Loaded here, not at the top: importing AirKern must stay cheap for those who need no hub.
  const { openSnapshot } = await import("./snapshot.ts");
  try {
    const snapshot = await openSnapshot(model, options);
    return { path: snapshot.path, snapshot };
  } catch (error) {
    if (!(error instanceof HubError) || !MAY_BE_A_PATH.includes(error.fault)) throw error;
    throw new HubError(`${error.message}; nor is there a directory ${model}`, error.fault, { cause: error });
  }
}
