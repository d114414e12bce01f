/**
 * A GGUF file, or the parts that one was split into, as a checkpoint: its config, its tensors under their Hugging Face names, its tokenizer's files.
 * @module
 */
import fs from "node:fs";
import { basename } from "node:path";
import { FormatError, UnsupportedError } from "../errors.ts";
import { type GgufHeader, readGgufHeader } from "./gguf.ts";
import { ggufConfig } from "./gguf_config.ts";
import { checkpointTensors, ROPE_TENSORS } from "./gguf_tensors.ts";
import { ggufTokenizerFiles } from "./gguf_tokenizer.ts";
import type { JsonObject } from "./json_file.ts";
import { readAt } from "./positional_io.ts";
import type { SafetensorsHeader } from "./safetensors.ts";

/** What GGUF files hold. */
export interface GgufModel {
  config: JsonObject;
  /** One a file. */
  headers: SafetensorsHeader[];
  /** Contents of tokenizer.json and tokenizer_config.json, by name. */
  tokenizerFiles: Map<string, string>;
}

/** Returns a name's model, and which of how many parts it is (llama.cpp's gguf-split). */
function partOf(name: string): { model: string; number: number; count: number } {
  const match = /^(.+)-(\d{5})-of-(\d{5})\.gguf$/.exec(name);
  return match
    ? { model: match[1], number: Number(match[2]), count: Number(match[3]) }
    : { model: name.slice(0, -".gguf".length), number: 1, count: 1 };
}

/**
 * Returns the GGUF files among names, by what each model is called: several where it was split.
 * @throws {FormatError} where a part is missing.
 */
export function ggufModels(names: readonly string[]): Map<string, string[]> {
  const models = Map.groupBy(names.filter((name) => name.endsWith(".gguf")).sort(), (name) => {
    const { model, count } = partOf(name);
    return count === 1 ? model : `${model} in ${count} parts`;
  });
  for (const parts of models.values()) {
    const { count } = partOf(parts[0]),
      missing = Array.from({ length: count }, (_, i) => i + 1)
        .find((number) => !parts.some((name) => partOf(name).number === number));
    if (missing !== undefined) throw new FormatError(`Cannot read ${parts[0]}: part ${missing} of ${count} is not beside it`);
  }
  return models;
}

async function readFactors(path: string, { tensors }: GgufHeader): Promise<Map<string, Float32Array>> {
  const factors = new Map<string, Float32Array>();
  for (const { name, type, bytes, offset } of tensors.filter(({ name }) => ROPE_TENSORS.includes(name))) {
    if (type !== "F32") throw new UnsupportedError(`Cannot use ${path}: ${name} has type ${type}, supported: F32`);
    const values = new Float32Array(bytes / 4), descriptor = fs.openSync(path, "r");
    try {
      await readAt(descriptor, new Uint8Array(values.buffer), offset);
    } finally {
      fs.closeSync(descriptor);
    }
    factors.set(name, values);
  }
  return factors;
}

/**
 * Reads GGUF files.
 * @param paths The file, or all parts in order.
 * @throws as readGgufHeader, ggufConfig and ggufTokenizerFiles; {FormatError} for parts that are not of one file.
 */
export async function readGgufModel(paths: readonly string[]): Promise<GgufModel> {
  const parts = await Promise.all(paths.map(readGgufHeader)), [{ metadata }] = parts;
  parts.forEach((part, number) => {
    const count = part.metadata.get("split.count") ?? 1, own = part.metadata.get("split.no") ?? 0;
    if (count === parts.length && own === number) return;
    throw new FormatError(
      `Cannot read ${paths[number]}: it says that it is part ${Number(own) + 1} of ${count}, and is taken as ${
        number + 1
      } of ${parts.length}`,
    );
  });
  const tensors = parts.flatMap(({ tensors }) => tensors), required = metadata.get("split.tensors.count") ?? tensors.length;
  if (required !== tensors.length) {
    throw new FormatError(
      `Cannot read ${
        paths[0]
      }: its ${parts.length} parts hold ${tensors.length} tensors, required ${required} (split.tensors.count)`,
    );
  }
  const factors = new Map<string, Float32Array>();
  for (const [i, part] of parts.entries()) {
    for (const [name, values] of await readFactors(paths[i], part)) factors.set(name, values);
  }
  const config = ggufConfig({ ...parts[0], tensors }, factors, paths[0]);
  const headers = parts.map(({ headerBytes, headerSha256, fileBytes, tensors }, i): SafetensorsHeader => ({
    ...{ headerBytes, headerSha256, fileBytes, metadata: {} },
    tensors: checkpointTensors(tensors, config.model_type as string, basename(paths[i])),
  }));
  return { config, headers, tokenizerFiles: ggufTokenizerFiles(metadata, paths[0]) };
}
