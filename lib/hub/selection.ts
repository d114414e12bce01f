/**
 * Chooses the files of a repository that are of use: config, tokenizer, and safetensors. Repositories hold the same weights several times
 * over (`original/`, `.bin`, `consolidated.safetensors`, ONNX, GGUF), which would be several times the download.
 * @module
 */
import { isJsonObject, isPlainFileName, type JsonObject } from "../checkpoint/json_file.ts";
import { CONFIG_FILE, GENERATION_CONFIG_FILE, INDEX_FILE, SINGLE_FILE, TOKENIZER_FILES } from "../checkpoint/model_files.ts";
import { FormatError, HubError, UnsupportedError } from "../errors.ts";
import type { RemoteFile, Repository } from "./repository.ts";

/**
 * Returns the small files: everything but the weights.
 * @throws {HubError} where the repository has no config.json.
 */
export function smallFiles({ id, files }: Repository): RemoteFile[] {
  if (!files.has(CONFIG_FILE)) {
    const gguf = [...files.keys()].filter((path) => path.endsWith(".gguf")).length;
    const what = gguf > 0 ? `only ${gguf} GGUF file${gguf > 1 ? "s" : ""}` : `${files.size} files`;
    throw new HubError(
      `Cannot use model ${id}: its repository has no ${CONFIG_FILE}, ${what}; required is a transformers checkpoint`,
      "file",
    );
  }
  return [CONFIG_FILE, GENERATION_CONFIG_FILE, INDEX_FILE, ...TOKENIZER_FILES].flatMap((path) => files.get(path) ?? []);
}

/**
 * Returns the names of the weight files.
 *
 * @param index The parsed index of a sharded checkpoint, undefined where the repository has none.
 * @param hasSingle Whether there is a file that holds all weights.
 * @throws {UnsupportedError} where there is neither, {FormatError} for an index that is none.
 */
export function weightNames(id: string, index: JsonObject | undefined, hasSingle: boolean): string[] {
  if (index === undefined) {
    if (hasSingle) return [SINGLE_FILE];
    throw new UnsupportedError(`Cannot use model ${id}: its repository has neither ${SINGLE_FILE} nor ${INDEX_FILE}`);
  }
  const map = index.weight_map;
  if (!isJsonObject(map)) throw new FormatError(`Cannot read ${INDEX_FILE} of model ${id}: it has no weight_map`);
  for (const [tensor, name] of Object.entries(map)) {
    if (isPlainFileName(name)) continue;
    throw new FormatError(
      `Cannot read ${INDEX_FILE} of model ${id}: tensor ${JSON.stringify(tensor)} is in ${
        JSON.stringify(name)
      }, which is no file name`,
    );
  }
  return [...new Set(Object.values(map) as string[])].sort();
}
