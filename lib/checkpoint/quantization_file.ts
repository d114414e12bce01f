/**
 * How a checkpoint is quantized, where that is said in a file beside config.json, as the tools that quantized wrote it before transformers loaded
 * what they made.
 * @module
 */
import { join } from "node:path";
import { type JsonObject, readJsonObject } from "./json_file.ts";
import { QUANTIZATION_FILES } from "./model_files.ts";

/**
 * Returns a model's config with the `quantization_config` of the file that says it, where the config itself has none.
 * @param directory Where config.json is.
 * @throws {FormatError} for a file that is damaged.
 */
export function withQuantizationFile(directory: string, config: JsonObject): JsonObject {
  if (config.quantization_config || config.compression_config) return config;
  for (const [name, method] of Object.entries(QUANTIZATION_FILES)) {
    const found = readJsonObject(join(directory, name));
    if (found !== undefined) return { ...config, quantization_config: { quant_method: method, ...found } };
  }
  return config;
}
