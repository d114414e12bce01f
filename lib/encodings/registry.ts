/**
 * All encodings that are known, and which of a checkpoint's tensors they hold.
 * @module
 */
import type { Checkpoint } from "../checkpoint/checkpoint.ts";
import { isJsonObject } from "../checkpoint/json_file.ts";
import { FormatError, UnsupportedError } from "../errors.ts";
import { AUTO_ROUND } from "./auto_round.ts";
import { AWQ } from "./awq.ts";
import { BITSANDBYTES_4BIT } from "./bitsandbytes_4bit.ts";
import { COMPRESSED_TENSORS } from "./compressed_tensors.ts";
import type { EncodedTensor, Encoding } from "./encoding.ts";
import { FBGEMM_FP8 } from "./fbgemm_fp8.ts";
import { FINEGRAINED_FP8 } from "./finegrained_fp8.ts";
import { GGUF } from "./gguf.ts";
import { GPTQ } from "./gptq.ts";
import { LLM_INT8 } from "./llm_int8.ts";
import { MODELOPT } from "./modelopt.ts";
import { MXFP4 } from "./mxfp4.ts";
import { QUARK } from "./quark.ts";

const ENCODINGS: readonly Encoding[] = [
  BITSANDBYTES_4BIT,
  LLM_INT8,
  FINEGRAINED_FP8,
  FBGEMM_FP8,
  COMPRESSED_TENSORS,
  MODELOPT,
  QUARK,
  GPTQ,
  AWQ,
  AUTO_ROUND,
  MXFP4,
  GGUF,
];

/** Returns a config.json's `quantization_config`, its own or its language model's, or undefined where the checkpoint's values are plain. */
export function quantizationConfig(config: Record<string, unknown>): Record<string, unknown> | undefined {
  const text = isJsonObject(config.text_config) ? config.text_config : {};
  // MLX calls it otherwise, and wrote no other name for long.
  const found = config.quantization_config ?? config.compression_config ?? text.quantization_config ?? config.quantization;
  if (found === undefined || found === null) return undefined;
  if (!isJsonObject(found)) throw new FormatError("Cannot read config.json: quantization_config is no object");
  return found;
}

function encodingsOf({ quant_method: method }: Record<string, unknown>): Encoding[] {
  return ENCODINGS.filter(({ methods }) => methods.includes(method as string));
}

/** Returns why a tensor that the encodings of a checkpoint brought along is not needed; undefined where they know nothing of it. */
export function needlessTensorReason(config: Record<string, unknown>, name: string): string | undefined {
  const quantization = quantizationConfig(config);
  const reasons = quantization && encodingsOf(quantization).map((encoding) => encoding.needlessTensorReason?.(name));
  return reasons?.find((reason) => reason !== undefined);
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
  if (method === undefined && typeof config.bits === "number" && typeof config.group_size === "number") {
    throw new UnsupportedError(`Cannot use model ${checkpoint.path}: it is quantized by MLX, which is not supported`);
  }
  const fitting = encodingsOf(config);
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
