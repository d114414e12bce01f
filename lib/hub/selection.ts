/**
 * Chooses the files of a repository that are of use: config, tokenizer, and safetensors, or PyTorch's where there are none. Repositories hold the same weights several times
 * over (`original/`, `.bin`, `consolidated.safetensors`, ONNX, GGUF), which would be several times the download.
 * @module
 */
import { isJsonObject, isPlainFileName, type JsonObject } from "../checkpoint/json_file.ts";
import { CONFIG_FILE, GENERATION_CONFIG_FILE, TOKENIZER_FILES, WEIGHT_FILES } from "../checkpoint/model_files.ts";
import { isNamedTemplate } from "../checkpoint/tokenizer_files.ts";
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
    const required = gguf > 0
      ? "download the one that you want, and name its directory"
      : "required is a transformers checkpoint";
    throw new HubError(`Cannot use model ${id}: its repository has no ${CONFIG_FILE}, ${what}; ${required}`, "file");
  }
  const { index } = weightFiles((name) => files.has(name)) ?? WEIGHT_FILES[0];
  const templates = [...files.keys()].filter(isNamedTemplate);
  return [CONFIG_FILE, GENERATION_CONFIG_FILE, index, ...TOKENIZER_FILES, ...templates].flatMap((path) => files.get(path) ?? []);
}

/** Returns the kind of weight files that are there, safetensors before PyTorch's. */
function weightFiles(has: (name: string) => boolean): (typeof WEIGHT_FILES)[number] | undefined {
  return WEIGHT_FILES.find(({ single, index }) => has(single) || has(index));
}

/**
 * Returns the names of the weight files.
 *
 * @param has Whether the repository, or what is cached of it, has a file.
 * @param readIndex Parses the index of a sharded checkpoint; undefined where there is none.
 * @throws {UnsupportedError} where there are no weights that can be read, {FormatError} for an index that is none.
 */
export function weightNames(
  id: string,
  has: (name: string) => boolean,
  readIndex: (name: string) => JsonObject | undefined,
): string[] {
  const kind = weightFiles(has);
  if (kind === undefined) {
    const names = WEIGHT_FILES.flatMap(({ single, index }) => [single, index]).join(", ");
    throw new UnsupportedError(`Cannot use model ${id}: its repository has none of ${names}`);
  }
  const index = readIndex(kind.index);
  if (index === undefined) return [kind.single];
  const map = index.weight_map;
  if (!isJsonObject(map)) throw new FormatError(`Cannot read ${kind.index} of model ${id}: it has no weight_map`);
  for (const [tensor, name] of Object.entries(map)) {
    if (isPlainFileName(name)) continue;
    throw new FormatError(
      `Cannot read ${kind.index} of model ${id}: tensor ${JSON.stringify(tensor)} is in ${
        JSON.stringify(name)
      }, which is no file name`,
    );
  }
  return [...new Set(Object.values(map) as string[])].sort();
}
