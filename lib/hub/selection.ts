/**
 * Chooses the files of a repository that are of use: config, tokenizer, and safetensors, or PyTorch's where there are none, or one GGUF model of several, which
 * needs no others. Repositories hold the same weights several times
 * over (`original/`, `.bin`, `consolidated.safetensors`, ONNX, GGUF), which would be several times the download.
 * @module
 */
import { chooseGguf, ggufModels, ggufParts } from "../checkpoint/gguf_files.ts";
import { isJsonObject, isPlainFileName, type JsonObject } from "../checkpoint/json_file.ts";
import {
  CONFIG_FILE,
  GENERATION_CONFIG_FILE,
  QUANTIZATION_FILES,
  TOKENIZER_FILES,
  WEIGHT_FILES,
} from "../checkpoint/model_files.ts";
import { isNamedTemplate } from "../checkpoint/tokenizer_files.ts";
import { FormatError, HubError, UnsupportedError } from "../errors.ts";
import type { RemoteFile, Repository } from "./repository.ts";

/**
 * Returns the small files: everything but the weights.
 * @throws {HubError} where the repository has no config.json.
 */
export function smallFiles({ id, files }: Repository): RemoteFile[] {
  if (!files.has(CONFIG_FILE)) {
    throw new HubError(
      `Cannot use model ${id}: its repository has no ${CONFIG_FILE}, ${files.size} files; required is a transformers checkpoint or a GGUF file`,
      "file",
    );
  }
  const { index } = weightFiles((name) => files.has(name)) ?? WEIGHT_FILES[0];
  const templates = [...files.keys()].filter(isNamedTemplate), quantization = Object.keys(QUANTIZATION_FILES);
  return [CONFIG_FILE, GENERATION_CONFIG_FILE, ...quantization, index, ...TOKENIZER_FILES, ...templates].flatMap((path) =>
    files.get(path) ?? []
  );
}

/**
 * Returns the GGUF files of a repository that are to be used, undefined where others are.
 * @param asked What the user names: a quantization, or the path of a file; undefined where the model may be of another kind.
 * @throws {UsageError} where no model is meant, or several are; it lists them. @throws {FormatError} where a part is missing.
 */
export function ggufWeights({ id, files }: Repository, asked: string | undefined): string[] | undefined {
  const paths = [...files.keys()];
  if (asked === undefined && weightFiles((name) => files.has(name)) !== undefined) return undefined;
  const models = ggufModels(paths);
  if (models.size === 0 && asked === undefined) return undefined;
  if (models.size === 0) throw new HubError(`Cannot use ${asked} of model ${id}: its repository has no GGUF model`, "file");
  const parts = new Map([...models].map(([model, [first]]) => [model, ggufParts(first, paths)]));
  const size = (names: string[]) => {
    const bytes = names.reduce((sum, name) => sum + files.get(name)!.bytes, 0);
    return bytes < 2 ** 30 ? `${(bytes / 2 ** 20).toFixed(1)} MiB` : `${(bytes / 2 ** 30).toFixed(1)} GiB`;
  };
  const chosen = chooseGguf([...models.keys()], asked, `model ${id}`, (model) => `${model} (${size(parts.get(model)!)})`);
  return parts.get(chosen)!;
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
