/**
 * The format that a checkpoint is stored in where nobody names one.
 * @module
 */
import { join } from "node:path";
import { holdsGguf } from "../checkpoint/checkpoint.ts";
import { readJsonObject } from "../checkpoint/json_file.ts";
import { withQuantizationFile } from "../checkpoint/quantization_file.ts";
import { quantizationConfig } from "../encodings/registry.ts";
import type { Compression } from "./manifest.ts";

/** The format that plain checkpoints are quantized to where none is named. */
export const DEFAULT_COMPRESSION: Compression = "q4o";

/**
 * Returns the format for a checkpoint: one that is quantized already keeps its own, since to quantize it again would lose more.
 * @param path The directory, or a GGUF file. @param isGguf Whether its weights are a GGUF file's, where they are to come; else what is there says it.
 * @throws {FormatError} where its config.json is damaged.
 */
export function defaultCompression(path: string, isGguf = holdsGguf(path)): Compression {
  if (isGguf) return "none";
  const config = readJsonObject(join(path, "config.json"));
  if (config === undefined) return DEFAULT_COMPRESSION;
  return quantizationConfig(withQuantizationFile(path, config)) !== undefined ? "none" : DEFAULT_COMPRESSION;
}
