/**
 * Names of models on the hub: `organisation/name`, and of one of several GGUF files `organisation/name:Q4_K_M` or `organisation/name:path/file.gguf`.
 * @module
 */
import { UsageError } from "../errors.ts";

/** Letters, digits, `-`, `_`, `.`, none of the last three at an end: as huggingface_hub's `validate_repo_id` has it. */
const PART = /^[A-Za-z0-9_](?:[A-Za-z0-9._-]*[A-Za-z0-9_])?$/;

const MAX_ID_CHARACTERS = 96;

/** Returns whether a text has the form of a hub id, `organisation/name`. A path that begins with `/`, `.` or `~` does not. */
export function isModelId(text: string): boolean {
  const parts = text.split("/");
  return parts.length === 2 && text.length <= MAX_ID_CHARACTERS && parts.every((part) => PART.test(part)) &&
    !text.includes("--") && !text.includes("..") && !text.endsWith(".git");
}

/** A model of the hub, as a user names it. */
export interface ModelName {
  /** `organisation/name` */
  id: string;
  /** Which of its GGUF files: a quantization, or a path; undefined where none is named. */
  gguf: string | undefined;
}

/** Returns what a text names on the hub, or undefined where it has not the form of such a name. */
export function parseModelName(text: string): ModelName | undefined {
  const [, id, gguf] = /^([^:]*)(?::(.*))?$/s.exec(text) ?? [];
  if (id === undefined || !isModelId(id)) return undefined;
  // A path below the repository, or one word.
  const plain = gguf === undefined || gguf.split("/").every((part) => /^[A-Za-z0-9_][A-Za-z0-9 ._+()-]*$/.test(part));
  return plain ? { id, gguf } : undefined;
}

/** Returns whether a revision is a full commit hash, which always means the same content. */
export function isCommitHash(revision: string): boolean {
  return /^[0-9a-f]{40}$/.test(revision);
}

/**
 * Checks the name of a branch, tag or commit. It becomes a path below `refs/`, so it must not lead anywhere else.
 * @throws {UsageError} where it cannot be one.
 */
export function checkRevision(revision: string): string {
  const plain = /^[A-Za-z0-9][A-Za-z0-9._/+-]*$/.test(revision) && !/(^|\/)\.|\/\/|\/$|\.\./.test(revision);
  if (plain && revision.length <= 256) return revision;
  throw new UsageError(`Cannot use revision ${JSON.stringify(revision)}: required the name of a branch, a tag or a commit`);
}
