/**
 * Names of GGUF files: which belong to one model, which quantization each is, and where its shards go. A model is called by the path of its file
 * without `.gguf` and without what says which part it is (llama.cpp's gguf-split): `Q4_K_M/x` for `Q4_K_M/x-00001-of-00003.gguf`.
 * @module
 */
import fs from "node:fs";
import { basename, dirname, join } from "node:path";
import { FormatError, UsageError } from "../errors.ts";

/** Quantizations as file names have them, behind what sets a series of its own apart (unsloth's dynamic ones, those with an importance matrix). */
const TAG = /(?:^|[-._/])((?:(?:UD|i1)-)?(?:I?Q\d|TQ\d|MXFP4|NVFP4|BF16|F16|FP16|F32|FP32)[A-Za-z0-9_]*)(?=$|[-./])/gi;

/** What stands in the names of files that are no model but belong to one: projectors of images, importance matrices, drafts (llama.cpp, common/download.cpp). */
const COMPANION = /mmproj|imatrix|mtp-|eagle3-|dflash-|dspark-/;

/** Formats of shards, and the folder of those of a model within the directory of its file. */
const FORMATS = ["q4o", "nf4", "q8", "none"];
const SHARD_FOLDER = new RegExp(`^airkern-(?:${FORMATS.join("|")})-(.+)$`);

/** Returns whether a path is called as a GGUF file is. */
export function isGgufName(path: string): boolean {
  return path.endsWith(".gguf");
}

function partOf(path: string): { model: string; number: number; count: number } {
  const match = /^(.+)-(\d{5})-of-(\d{5})\.gguf$/.exec(path);
  return match
    ? { model: match[1], number: Number(match[2]), count: Number(match[3]) }
    : { model: path.slice(0, -".gguf".length), number: 1, count: 1 };
}

/** Returns what the model of a GGUF file is called. */
export function ggufModelOf(path: string): string {
  return partOf(path).model;
}

/** Returns the files that hold models, by what each model is called: several, in order, where it was split. Files that only belong to one are left out. */
export function ggufModels(paths: readonly string[]): Map<string, string[]> {
  const files = paths.filter((path) => isGgufName(path) && !COMPANION.test(basename(path))).sort();
  return Map.groupBy(files, ggufModelOf);
}

/**
 * Returns the parts of the model that one of its files names, in order.
 * @param path The file, or any part, as it is among `paths`.
 * @throws {FormatError} where a part is missing.
 */
export function ggufParts(path: string, paths: readonly string[]): string[] {
  const { model, count } = partOf(path);
  if (count === 1) return [path];
  const parts = paths.filter((other) => isGgufName(other) && partOf(other).model === model && partOf(other).count === count)
    .sort();
  const missing = Array.from({ length: count }, (_, i) => i + 1)
    .find((number) => !parts.some((part) => partOf(part).number === number));
  if (missing !== undefined) {
    throw new FormatError(`Cannot read ${parts[0] ?? path}: part ${missing} of ${count} is not beside it`);
  }
  return parts;
}

/** Returns the quantization that a model's name says it is, such as `Q4_K_M` or `UD-Q4_K_XL`; undefined where it says none. */
export function ggufTag(model: string): string | undefined {
  const inName = [...basename(model).matchAll(TAG)].at(-1) ?? [...model.matchAll(TAG)].at(-1);
  return inName?.[1];
}

/**
 * Returns the model that is asked for.
 * @param models What there is to choose from.
 * @param asked A quantization in any case, or the path of a file; without one, what llama.cpp takes: Q4_K_M, else Q8_0, else the only one.
 * @param subject What holds the models, for messages. @param describe Returns a model as messages list it.
 * @throws {UsageError} where none is meant, or several are.
 */
export function chooseGguf(
  models: readonly string[],
  asked: string | undefined,
  subject: string,
  describe: (model: string) => string,
): string {
  const refuse = (reason: string, among: readonly string[]) =>
    new UsageError(`Cannot choose a GGUF model of ${subject}: ${reason}: ${among.map(describe).join(", ")}`);
  if (asked !== undefined && isGgufName(asked)) {
    const wanted = ggufModelOf(asked);
    const found = models.find((model) => model === wanted) ??
      models.find((model) => model.toLowerCase() === wanted.toLowerCase());
    if (found !== undefined) return found;
    throw refuse(`it has no file ${asked}, there are`, models);
  }
  for (const tag of asked === undefined ? ["Q4_K_M", "Q8_0"] : [asked]) {
    const found = withTag(models, tag);
    if (found.length === 1) return found[0];
    if (found.length > 1) throw refuse(`several are ${tag}; name a file behind the colon`, found);
  }
  if (asked !== undefined) throw refuse(`none is ${asked}, there are`, models);
  if (models.length === 1) return models[0];
  throw refuse("name one behind a colon, there are", models);
}

/** Returns the models of a quantization; where no name says it is that, those that have the word in their name. */
function withTag(models: readonly string[], tag: string): string[] {
  const wanted = tag.toLowerCase(), exact = models.filter((model) => ggufTag(model)?.toLowerCase() === wanted);
  if (exact.length > 0) return exact;
  return models.filter((model) =>
    `/${model.toLowerCase()}/`.replaceAll(/[.-]/g, "/").includes(`/${wanted.replaceAll(/[.-]/g, "/")}/`)
  );
}

/** Returns the directory of a model's shards. @param file Path of its GGUF file, or any part of it. */
export function ggufShardFolder(file: string, compression: string): string {
  return join(dirname(file), `airkern-${compression}-${basename(ggufModelOf(file))}`);
}

/** Returns whether a path is a GGUF file that was removed after its shards were made. */
export function wasGguf(path: string): boolean {
  return isGgufName(path) && FORMATS.some((format) => fs.existsSync(join(ggufShardFolder(path, format), "airkern.json")));
}

/** Returns the directories of shards of GGUF files that lie right within a directory. @param compression Of that format alone. */
export function ggufShardFolders(directory: string, compression?: string): string[] {
  if (!fs.statSync(directory, { throwIfNoEntry: false })?.isDirectory()) return [];
  return fs.readdirSync(directory).filter((name) => SHARD_FOLDER.test(name) && name.startsWith(`airkern-${compression ?? ""}`))
    .map((name) => join(directory, name)).filter((path) => fs.existsSync(join(path, "airkern.json")));
}

/** Returns the models within a directory of which GGUF files are there, with those files, and those of which only shards are, without. */
export function ggufModelsWithin(directory: string): Map<string, string[]> {
  if (!fs.existsSync(directory)) return new Map();
  const paths = fs.readdirSync(directory, { recursive: true }).map(String);
  const models = ggufModels(paths);
  for (const path of paths) {
    const model = SHARD_FOLDER.exec(basename(path))?.[1];
    if (model === undefined || !fs.existsSync(join(directory, path, "airkern.json"))) continue;
    const name = join(dirname(path), model);
    if (!models.has(name)) models.set(name, []);
  }
  return models;
}
