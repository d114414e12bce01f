/**
 * A GGUF file as a checkpoint: its config, its tensors under their Hugging Face names, its tokenizer's files.
 * @module
 */
import fs from "node:fs";
import { UnsupportedError } from "../errors.ts";
import { readGgufHeader } from "./gguf.ts";
import { checkpointName, ggufConfig, ROPE_FACTORS } from "./gguf_config.ts";
import { ggufTokenizerFiles } from "./gguf_tokenizer.ts";
import type { JsonObject } from "./json_file.ts";
import { readAt } from "./positional_io.ts";
import type { Dtype, SafetensorsHeader, SafetensorsTensor } from "./safetensors.ts";

/** What a GGUF file holds. */
export interface GgufModel {
  config: JsonObject;
  header: SafetensorsHeader;
  /** Contents of tokenizer.json and tokenizer_config.json, by name. */
  tokenizerFiles: Map<string, string>;
}

/**
 * Reads a GGUF file.
 * @throws as readGgufHeader, ggufConfig and ggufTokenizerFiles.
 */
export async function readGgufModel(path: string): Promise<GgufModel> {
  const gguf = await readGgufHeader(path);
  if (gguf.metadata.has("split.count") && gguf.metadata.get("split.count") !== 1) {
    throw new UnsupportedError(
      `Cannot use ${path}: it is one of ${gguf.metadata.get("split.count")} parts; merge them first (gguf-split --merge)`,
    );
  }
  const rope = gguf.tensors.find(({ name }) => name === ROPE_FACTORS);
  let factors: Float32Array | undefined;
  if (rope !== undefined) {
    if (rope.type !== "F32") {
      throw new UnsupportedError(`Cannot use ${path}: ${ROPE_FACTORS} has type ${rope.type}, supported: F32`);
    }
    factors = new Float32Array(rope.bytes / 4);
    const descriptor = fs.openSync(path, "r");
    try {
      await readAt(descriptor, new Uint8Array(factors.buffer), rope.offset);
    } finally {
      fs.closeSync(descriptor);
    }
  }
  const tensors: SafetensorsTensor[] = [];
  for (const { name, type, shape, offset, bytes } of gguf.tensors) {
    if (name === ROPE_FACTORS) continue;
    // Unknown names stay, so that whoever reads the model refuses what it has no place for.
    const known = checkpointName(name) ?? name;
    if (type === "F32" || type === "F16" || type === "BF16") {
      tensors.push({ name: known, dtype: type as Dtype, shape, offset, bytes });
    } else {
      if (shape.length !== 2) {
        throw new UnsupportedError(
          `Cannot use ${path}: tensor ${JSON.stringify(name)} has ${type} in ${shape.length} dimensions`,
        );
      }
      const ggml = { type, cols: shape[1] };
      tensors.push({ name: known, dtype: "U8", shape: [shape[0], bytes / shape[0]], offset, bytes, ggml });
    }
  }
  tensors.sort((a, b) => a.offset - b.offset);
  const { headerBytes, headerSha256, fileBytes } = gguf;
  return {
    config: ggufConfig(gguf, factors, path),
    header: { headerBytes, headerSha256, fileBytes, tensors, metadata: {} },
    tokenizerFiles: ggufTokenizerFiles(gguf.metadata, path),
  };
}
