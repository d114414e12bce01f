/**
 * A GGUF file, or the parts that one was split into, as a checkpoint: its config, its tensors under their Hugging Face names, its tokenizer's files.
 * @module
 */
import { FormatError, UnsupportedError } from "../errors.ts";
import { type GgufHeader, type GgufSource, readGgufHeader } from "./gguf.ts";
import { ggufConfig } from "./gguf_config.ts";
import { checkpointTensors, ROPE_TENSORS } from "./gguf_tensors.ts";
import { ggufTokenizerFiles } from "./gguf_tokenizer.ts";
import type { JsonObject } from "./json_file.ts";
import type { SafetensorsHeader } from "./safetensors.ts";

/** Headers that are read at a time. */
const HEADERS_IN_FLIGHT = 8;

/** What GGUF files hold. */
export interface GgufModel {
  config: JsonObject;
  /** One a file. */
  headers: SafetensorsHeader[];
  /** Contents of tokenizer.json and tokenizer_config.json, by name. */
  tokenizerFiles: Map<string, string>;
}

async function readFactors({ where, read }: GgufSource, { tensors }: GgufHeader): Promise<Map<string, Float32Array>> {
  const factors = new Map<string, Float32Array>();
  for (const { name, type, bytes, offset } of tensors.filter(({ name }) => ROPE_TENSORS.includes(name))) {
    if (type !== "F32") throw new UnsupportedError(`Cannot use ${where}: ${name} has type ${type}, supported: F32`);
    const values = new Float32Array(bytes / 4);
    await read(new Uint8Array(values.buffer), offset);
    factors.set(name, values);
  }
  return factors;
}

/**
 * Reads GGUF files.
 * @param sources The file, or all parts in order.
 * @throws as readGgufHeader, ggufConfig and ggufTokenizerFiles; {FormatError} for parts that are not of one file.
 */
export async function readGgufModel(sources: readonly GgufSource[]): Promise<GgufModel> {
  const parts: GgufHeader[] = [];
  while (parts.length < sources.length) {
    parts.push(...await Promise.all(sources.slice(parts.length, parts.length + HEADERS_IN_FLIGHT).map(readGgufHeader)));
  }
  const [{ metadata }] = parts, [{ where }] = sources;
  parts.forEach((part, number) => {
    const count = part.metadata.get("split.count") ?? 1, own = part.metadata.get("split.no") ?? 0;
    // One part is a file by itself, whatever it was cut from and put together again.
    if ((count === parts.length || (parts.length === 1 && count === 0)) && own === number) return;
    throw new FormatError(
      `Cannot read ${sources[number].where}: it says that it is part ${Number(own) + 1} of ${count}, and is taken as ${
        number + 1
      } of ${parts.length}`,
    );
  });
  const tensors = parts.flatMap(({ tensors }) => tensors), required = metadata.get("split.tensors.count") ?? tensors.length;
  if (required !== tensors.length) {
    throw new FormatError(
      `Cannot read ${where}: its ${parts.length} parts hold ${tensors.length} tensors, required ${required} (split.tensors.count)`,
    );
  }
  const factors = new Map<string, Float32Array>();
  for (const [i, part] of parts.entries()) {
    for (const [name, values] of await readFactors(sources[i], part)) factors.set(name, values);
  }
  const config = ggufConfig({ ...parts[0], tensors }, factors, where);
  const headers = parts.map(({ headerBytes, headerSha256, fileBytes, tensors }, i): SafetensorsHeader => ({
    ...{ headerBytes, headerSha256, fileBytes, metadata: {} },
    tensors: checkpointTensors(tensors, config, sources[i].where),
  }));
  return { config, headers, tokenizerFiles: ggufTokenizerFiles(metadata, where) };
}
