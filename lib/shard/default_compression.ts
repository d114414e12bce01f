/**
 * The format that a checkpoint is stored in where nobody names one.
 * @module
 */
import { join } from "node:path";
import { hasWeightFiles } from "../checkpoint/checkpoint.ts";
import { readJsonObject } from "../checkpoint/json_file.ts";
import { withQuantizationFile } from "../checkpoint/quantization_file.ts";
import { quantizationConfig } from "../encodings/registry.ts";
import type { Compression } from "./manifest.ts";

/** The format that plain checkpoints are quantized to where none is named. */
export const DEFAULT_COMPRESSION: Compression = "q4o";

/**
 * Returns the format for the checkpoint in a directory: one that is quantized already keeps its own, since to quantize it again would lose more.
 * @throws {FormatError} where its config.json is damaged.
 */
export function defaultCompression(directory: string): Compression {
  const config = readJsonObject(join(directory, "config.json"));
  // A GGUF file has its config within, and its weights packed.
  if (config === undefined && hasWeightFiles(directory)) return "none";
  if (config === undefined) return DEFAULT_COMPRESSION;
  return quantizationConfig(withQuantizationFile(directory, config)) !== undefined ? "none" : DEFAULT_COMPRESSION;
}
