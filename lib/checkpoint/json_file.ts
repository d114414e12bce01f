/**
 * Reads JSON files that came with a model.
 * @module
 */
import fs from "node:fs";
import { FormatError } from "../errors.ts";

/** A JSON object of which nothing is known yet. */
export type JsonObject = Record<string, unknown>;

/** Returns whether a parsed JSON value is an object, not an array and not null. */
export function isJsonObject(value: unknown): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/**
 * Returns the object that a JSON file holds, or undefined where there is no such file.
 * @throws {FormatError} where the file cannot be read or holds anything else.
 */
export function readJsonObject(path: string): JsonObject | undefined {
  let text: string;
  try {
    text = fs.readFileSync(path, "utf8");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    throw new FormatError(`Cannot read ${path}: ${(error as Error).message}`);
  }
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new FormatError(`Cannot read ${path}: not valid JSON: ${(error as Error).message.split("\n")[0]}`);
  }
  if (!isJsonObject(value)) throw new FormatError(`Cannot read ${path}: it holds no JSON object`);
  return value;
}

/** Returns whether a name from an untrusted file stays within its directory: no folders, nothing hidden. */
export function isPlainFileName(name: unknown): name is string {
  // deno-lint-ignore no-control-regex -- a NUL or a line break in a name is what this is to catch
  return typeof name === "string" && /^[^./\\\x00-\x1f][^/\\\x00-\x1f]*$/.test(name);
}
