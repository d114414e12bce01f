/**
 * The text of airkern.json: the manifest as `body`, and the SHA-256 of its JSON beside it.
 * @module
 */
import { createHash } from "node:crypto";
import { isJsonObject } from "../checkpoint/json_file.ts";
import { FormatError } from "../errors.ts";
import type { Manifest } from "./manifest.ts";
import { validateManifest } from "./manifest_validation.ts";

/** Returns the text of airkern.json: the manifest as `body`, and the SHA-256 of its JSON. */
export function serializeManifest(manifest: Manifest): string {
  const body = JSON.stringify(manifest);
  return `{"sha256":"${sha256(body)}","body":${body}}\n`;
}

/**
 * Parses the text of airkern.json.
 * @param where Path of the file, for messages.
 * @throws {FormatError} where it is damaged, or says anything that the format does not allow.
 */
export function parseManifest(text: string, where: string): Manifest {
  let parsed: unknown;
  try {
    parsed = JSON.parse(text);
  } catch {
    throw new FormatError(`Cannot read ${where}: not valid JSON; is the file damaged?`);
  }
  const { sha256: expected, body } = isJsonObject(parsed) ? parsed : {};
  if (!isJsonObject(body) || typeof expected !== "string") {
    throw new FormatError(`Cannot read ${where}: it has no sha256 and body; not a manifest, or damaged`);
  }
  const found = sha256(JSON.stringify(body));
  if (found !== expected) throw new FormatError(`Cannot read ${where}: damaged: its SHA-256 is ${found}, required ${expected}`);
  return validateManifest(body, where);
}

function sha256(text: string): string {
  return createHash("sha256").update(text).digest("hex");
}
