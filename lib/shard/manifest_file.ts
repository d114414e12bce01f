/**
 * The text of airkern.json and of the quantizer's journal: a JSON object as `body`, and the SHA-256 of its JSON beside it.
 * @module
 */
import { createHash } from "node:crypto";
import { isJsonObject, type JsonObject } from "../checkpoint/json_file.ts";
import { FormatError } from "../errors.ts";
import type { Manifest } from "./manifest.ts";
import { validateManifest } from "./manifest_validation.ts";

function sha256(text: string): string {
  return createHash("sha256").update(text).digest("hex");
}

/** Returns the text of a file that holds an object and its hash. */
export function sealJson(body: object): string {
  const json = JSON.stringify(body);
  return `{"sha256":"${sha256(json)}","body":${json}}\n`;
}

/**
 * Returns the object of a text by {@linkcode sealJson}.
 * @param where Path of the file, for messages.
 * @throws {FormatError} where it is damaged.
 */
export function unsealJson(text: string, where: string): JsonObject {
  let parsed: unknown;
  try {
    parsed = JSON.parse(text);
  } catch {
    throw new FormatError(`Cannot read ${where}: not valid JSON; is the file damaged?`);
  }
  const { sha256: expected, body } = isJsonObject(parsed) ? parsed : {};
  if (!isJsonObject(body) || typeof expected !== "string") {
    throw new FormatError(`Cannot read ${where}: it has no sha256 and body; another kind of file, or damaged`);
  }
  const found = sha256(JSON.stringify(body));
  if (found !== expected) throw new FormatError(`Cannot read ${where}: damaged: its SHA-256 is ${found}, required ${expected}`);
  return body;
}

/** Returns the text of airkern.json. */
export function serializeManifest(manifest: Manifest): string {
  return sealJson(manifest);
}

/**
 * Parses the text of airkern.json.
 * @param where Path of the file, for messages.
 * @throws {FormatError} where it is damaged, or says anything that the format does not allow.
 */
export function parseManifest(text: string, where: string): Manifest {
  return validateManifest(unsealJson(text, where), where);
}
