/**
 * All encodings that are known, and which of a checkpoint's tensors they hold.
 * @module
 */
import type { Checkpoint } from "../checkpoint/checkpoint.ts";
import { isJsonObject } from "../checkpoint/json_file.ts";
import { FormatError, UnsupportedError } from "../errors.ts";
import { AWQ } from "./awq.ts";
import { BITSANDBYTES_4BIT } from "./bitsandbytes_4bit.ts";
import { COMPRESSED_TENSORS } from "./compressed_tensors.ts";
import type { EncodedTensor, Encoding } from "./encoding.ts";
import { FINEGRAINED_FP8 } from "./finegrained_fp8.ts";
import { GGUF } from "./gguf.ts";
import { GPTQ } from "./gptq.ts";
import { LLM_INT8 } from "./llm_int8.ts";
import { MXFP4 } from "./mxfp4.ts";

const ENCODINGS: readonly Encoding[] = [
  BITSANDBYTES_4BIT,
  LLM_INT8,
  FINEGRAINED_FP8,
  COMPRESSED_TENSORS,
  GPTQ,
  AWQ,
  MXFP4,
  GGUF,
];

/** Returns a config.json's `quantization_config`, which Kimi K2.5 has in the settings of its language model, or undefined where the checkpoint's values are plain. */
export function quantizationConfig(config: Record<string, unknown>): Record<string, unknown> | undefined {
  const text = isJsonObject(config.text_config) ? config.text_config : {};
  const found = config.quantization_config ?? config.compression_config ?? text.quantization_config;
  if (found === undefined || found === null) return undefined;
  if (!isJsonObject(found)) throw new FormatError("Cannot read config.json: quantization_config is no object");
  return found;
}

/**
 * Returns the encoded tensors of a checkpoint by the names that their plain values would have.
 * @throws {FormatError} for companions that are missing or contradict each other.
 * @throws {UnsupportedError} for a method or setting that is not known.
 */
export async function encodedTensors(checkpoint: Checkpoint): Promise<Map<string, EncodedTensor>> {
  const config = quantizationConfig(checkpoint.config);
  const tensors = new Map<string, EncodedTensor>();
  if (config === undefined) return tensors;
  const method = config.quant_method;
  const fitting = ENCODINGS.filter(({ methods }) => methods.includes(method as string));
  if (fitting.length === 0) {
    const known = new Set(ENCODINGS.flatMap(({ methods }) => methods));
    throw new UnsupportedError(
      `Cannot use model ${checkpoint.path}: quantization_config has quant_method ${JSON.stringify(method)}, supported: ${
        [...known].join(", ")
      }`,
    );
  }
  for (const encoding of fitting) {
    for (const tensor of await encoding.find(checkpoint, config)) {
      const twice = tensors.has(tensor.name) ||
        (checkpoint.tensors.has(tensor.name) && !tensor.parts.some(({ name }) => name === tensor.name));
      if (twice) {
        throw new FormatError(
          `Cannot use model ${checkpoint.path}: tensor ${JSON.stringify(tensor.name)} is there twice, encoded and plain`,
        );
      }
      tensors.set(tensor.name, tensor);
    }
  }
  return tensors;
}
