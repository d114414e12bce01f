/**
 * Opens a model by its path or its name on the hub, downloading and quantizing it on first use.
 * @module
 */
import { accessSync, constants, existsSync, readdirSync } from "node:fs";
import { homedir } from "node:os";
import { dirname, join } from "node:path";
import { hasWeightFiles, openCheckpoint } from "./checkpoint/checkpoint.ts";
import { ggufShardFolder, ggufShardFolders, isGgufName } from "./checkpoint/gguf_files.ts";
import { Engine, type EngineOptions } from "./engine/engine.ts";
import { UsageError } from "./errors.ts";
import type { DeviceChoice } from "./ffi/device.ts";
import { Model } from "./generate/model.ts";
import { type LocatedModel, locateModel } from "./hub/locate.ts";
import type { HubOptions } from "./hub/settings.ts";
import type { HubSnapshot } from "./hub/snapshot.ts";
import { parseBytes } from "./memory/bytes.ts";
import { defaultCompression } from "./shard/default_compression.ts";
import type { Compression } from "./shard/manifest.ts";
import { predictShards } from "./shard/predicted_shards.ts";
import { quantizeCheckpoint } from "./shard/quantizer.ts";
import { isShardDirectory, openShards, readManifest, type ShardDirectory } from "./shard/reader.ts";
import { loadTokenizer, type Tokenizer } from "./tokenizer/tokenizer.ts";

/** Prompts that share a pass where a caller names no number; more of them wait. */
const DEFAULT_MAX_SEQUENCES = 4;

/** How far opening a model is. */
export interface ModelProgress {
  /** `download` and `quantize` on first use, `wait` while another process does that, then `load`. */
  phase: "wait" | "download" | "quantize" | "verify" | "load";
  /** Bytes there or read so far. */
  doneBytes: number;
  /** Bytes when this phase is over. */
  totalBytes: number;
}

/** Where a model's shards are, or are made on first use. */
export interface ShardOptions extends HubOptions {
  /** Branch, tag or commit of a model on the hub. Default: `main`. */
  revision?: string;
  /**
   * Format that a checkpoint is quantized to on first use. Default: `q4o`, or where it is quantized already, what it has (`none`). A
   * shard directory has its own.
   */
  compression?: Compression;
  /**
   * Directory for the shards of checkpoints, each in a folder named by the model's name, revision and compression. Default: the folder
   * `airkern-<compression>` within the checkpoint, `airkern-<compression>-<file>` beside a GGUF file, or where that cannot be written, `airkern` in
   * the user's cache directory.
   */
  layerShardsPath?: string;
  /**
   * Removes the weight files of a checkpoint once they are quantized and the result was reread: of a model on the hub each as soon as
   * nothing needs it any more, so that its disk holds one of them at a time. Default: false.
   */
  deleteOriginal?: boolean;
  /** Threads that compute. Default: one a core. */
  threads?: number;
  /** Budget of the whole process in bytes, which quantizing on first use keeps to as well. */
  ramBytes?: number;
  /** Told where something else is done than was asked for: the hub does not answer, and the cache is used. */
  onNotice?: (message: string) => void;
  /** Told while the model is quantized and loaded. */
  onProgress?: (progress: ModelProgress) => void;
  /** Stops opening the model. A quantization that was stopped goes on from there next time. */
  signal?: AbortSignal;
}

/** How a model is opened. */
export interface ModelOptions extends Omit<ShardOptions, "ramBytes"> {
  /** Where to compute: `auto` takes the first NVIDIA GPU that can be used, else the CPU. Default: `auto`. */
  device?: DeviceChoice;
  /** Budget of the whole process, in bytes or as `8GiB`; its resident set stays at or under it. Default: what the machine has free. */
  ram?: string | number;
  /** Budget of a GPU's memory, as `ram`: all that is taken of it. Default: what the GPU has free. */
  vram?: string | number;
  /** Tokens that a prompt and its text may have. Default: the model's own, 4096 at most, fewer where the budget is small. */
  contextTokens?: number;
  /** Prompts that share a pass, and have room in the KV cache; more of them wait. Default: 4. */
  maxSequences?: number;
  /** Most tokens of one pass; a longer prompt is brought in parts. Default: 512, fewer where the budget is small. */
  passTokens?: number;
  /** How matrix products, and on a GPU attention to prompts, may round activations: `exact` keeps float32. Default: `exact`. */
  precision?: "exact" | "fast";
  /** Element type of the KV cache; `q8` takes half the memory of `f16` and rounds keys and values to 8 bits. Default: `f16`. */
  kvCacheType?: "f16" | "f32" | "q8";
  /** Where the KV cache of a GPU is: in `ram` it leaves more of the GPU's memory to weights, and is copied a layer at a time. Default: `vram`. */
  kvCacheLocation?: "vram" | "ram";
  /** Told where something else is done than was asked for. Default: a line on stderr. */
  onNotice?: (message: string) => void;
}

/** Returns the user's cache directory for AirKern. */
function cacheDirectory(): string {
  return join(Deno.env.get("XDG_CACHE_HOME") || join(homedir(), ".cache"), "airkern");
}

/** Returns the nearest directory that is there: a folder of a snapshot comes with its first file. */
function existing(directory: string): string {
  return existsSync(directory) ? directory : existing(dirname(directory));
}

function isWritable(directory: string): boolean {
  try {
    accessSync(directory, constants.W_OK);
    return true;
  } catch {
    return false;
  }
}

/** A checkpoint, and the directory that its shards are in or belong into. */
interface ShardPlace extends LocatedModel {
  out: string;
  /** Whether the shards are those of an earlier commit with the same weights. */
  isEarlier: boolean;
}

/**
 * Finds shards that were made of an earlier commit of a model on the hub with the same weights: most commits change what is written about a
 * model, and its weights are not to be downloaded and quantized again for that.
 */
async function shardsOfEarlierCommit(
  snapshot: HubSnapshot,
  compression: Compression,
  { layerShardsPath, onNotice }: ShardOptions,
): Promise<string | undefined> {
  const parent = layerShardsPath ?? dirname(snapshot.path), { gguf } = snapshot;
  const prefix = layerShardsPath === undefined ? "" : `${folderName(snapshot.id)}-`;
  const suffix = layerShardsPath === undefined ? "" : `${gguf === undefined ? "" : `-${folderName(gguf)}`}-${compression}`;
  for (const name of existsSync(parent) ? readdirSync(parent) : []) {
    const commit = name.startsWith(prefix) && name.endsWith(suffix) ? name.slice(prefix.length, name.length - suffix.length) : "";
    const path = layerShardsPath === undefined ? shardsBeside(join(parent, name), gguf, compression) : join(parent, name);
    if (!/^[0-9a-f]{40}$/.test(commit) || !isShardDirectory(path)) continue;
    if (readManifest(path).source.revision !== revisionOf({ commit, gguf })) continue;
    const { sameWeights, sameTokenizer } = await snapshot.compare(commit);
    if (!sameWeights) continue;
    if (!sameTokenizer) {
      onNotice?.(
        `Using the shards of ${snapshot.id} at ${
          commit.slice(0, 12)
        }: the weights are the same now, but its tokenizer or chat template was ` +
          `changed since; remove ${path} to have them made again`,
      );
    }
    return path;
  }
  return undefined;
}

/** Returns a model's name as one of a folder. */
function folderName(name: string): string {
  return name.replaceAll("/", "--").replaceAll(":", "-");
}

/** Returns the revision that the checkpoint of a snapshot has. */
function revisionOf({ commit, gguf }: Pick<HubSnapshot, "commit" | "gguf">): string {
  return gguf === undefined ? commit : `${commit}:${gguf}`;
}

/** Returns the directory of shards that lie where their checkpoint does. @param gguf What a GGUF model is called within the directory. */
function shardsBeside(directory: string, gguf: string | undefined, compression: Compression): string {
  return gguf === undefined
    ? join(directory, `airkern-${compression}`)
    : ggufShardFolder(join(directory, `${gguf}.gguf`), compression);
}

/** Returns the shards of a checkpoint whose weights were removed after they were made; undefined where there are none. */
function shardsLeft(path: string, compression: Compression): string | undefined {
  if (hasWeightFiles(path)) return undefined;
  if (isGgufName(path)) return ggufShardFolder(path, compression);
  const beside = shardsBeside(path, undefined, compression), ofGguf = ggufShardFolders(path, compression);
  if (isShardDirectory(beside)) return beside;
  if (ofGguf.length < 2) return ofGguf[0];
  throw new UsageError(`Cannot open model ${path}: it holds shards of several models (${ofGguf.join(", ")}); name one of them`);
}

/** Returns where the shards of a checkpoint are, or are to be made. */
async function shardPlace(located: LocatedModel, compression: Compression, options: ShardOptions): Promise<ShardPlace> {
  const { layerShardsPath } = options;
  const { path, snapshot } = located;
  // The source may have been removed by --delete-original.
  const left = snapshot ? undefined : shardsLeft(path, compression);
  if (left !== undefined && isShardDirectory(left)) return { ...located, out: left, isEarlier: false };
  let revision: string, name: string, beside: string, folder: string;
  if (snapshot) {
    const { id, gguf, commit } = snapshot;
    revision = revisionOf(snapshot);
    beside = shardsBeside(path, gguf, compression);
    folder = `${folderName(id)}-${commit}${gguf === undefined ? "" : `-${folderName(gguf)}`}-${compression}`;
  } else {
    using checkpoint = await openCheckpoint(path);
    ({ name, revision } = checkpoint);
    beside = shardsBeside(checkpoint.path, checkpoint.gguf, compression);
    folder = `${folderName(name)}-${folderName(revision)}-${compression}`;
  }
  const out = layerShardsPath !== undefined
    ? join(layerShardsPath, folder)
    : isShardDirectory(beside) || isWritable(existing(dirname(beside)))
    ? beside
    : join(cacheDirectory(), folder);
  if (isShardDirectory(out)) {
    const { source } = readManifest(out);
    if (source.revision !== revision) {
      throw new UsageError(
        `Cannot use ${out}: it was made from revision ${source.revision}, the checkpoint now is ${revision}; remove that directory`,
      );
    }
    return { ...located, out, isEarlier: false };
  }
  const earlier = snapshot && await shardsOfEarlierCommit(snapshot, compression, options);
  return { ...located, out: earlier ?? out, isEarlier: earlier !== undefined };
}

/** Opens a directory that is shards already. */
async function openOwnShards(path: string, compression: Compression | undefined): Promise<ShardDirectory> {
  const shards = await openShards(path);
  const { compression: found } = shards.manifest;
  if (compression !== undefined && compression !== found) {
    throw new UsageError(`Cannot open ${path} as ${compression}: its weights are stored as ${found}`);
  }
  return shards;
}

/**
 * Opens the shards of a model: of a shard directory itself, or of a checkpoint, which is quantized first where that was not done yet; a model on
 * the hub is downloaded for that.
 *
 * @param model A directory, a GGUF file, or `organisation/name` of a model on the hub. What exists as a path goes first.
 * @throws {FormatError} for a path that is missing, neither of both, or damaged.
 * @throws {HubError} where the hub has no such model or does not give it.
 * @throws {UsageError} where the shards there are of another revision or format than asked for.
 */
export async function openModelShards(model: string, options: ShardOptions = {}): Promise<ShardDirectory> {
  const { compression, threads, ramBytes, deleteOriginal, onProgress, signal } = options;
  const located = await locateModel(model, options);
  if (isShardDirectory(located.path)) return await openOwnShards(located.path, compression);
  const wanted = compression ?? defaultCompression(located.path, located.snapshot && located.snapshot.gguf !== undefined);
  const { path, snapshot, out, isEarlier } = await shardPlace(located, wanted, options);
  const supply = snapshot?.weights;
  const sourceIsLeft = snapshot ? snapshot.weights.names.some((name) => existsSync(join(path, name))) : hasWeightFiles(path);
  if (!isShardDirectory(out) || (deleteOriginal && sourceIsLeft && !isEarlier)) {
    await quantizeCheckpoint({
      ...{ source: path, supply, out, compression: wanted, threads, ramBytes, deleteOriginal, onProgress, signal },
    });
  }
  return await openShards(out);
}

/**
 * Opens the shards of a model where they are made already, and otherwise predicts them from the checkpoint's headers: nothing is quantized, and
 * no weights of a model on the hub are downloaded.
 *
 * @returns `filesExist`: false where the shards are predicted; `directory`: where they would be.
 * @throws as {@linkcode openModelShards}.
 */
export async function predictModelShards(
  model: string,
  options: ShardOptions = {},
): Promise<{ shards: ShardDirectory; filesExist: boolean; directory: string }> {
  const located = await locateModel(model, options);
  const { compression } = options;
  if (isShardDirectory(located.path)) {
    return { shards: await openOwnShards(located.path, compression), filesExist: true, directory: located.path };
  }
  const wanted = compression ?? defaultCompression(located.path, located.snapshot && located.snapshot.gguf !== undefined);
  const { path, snapshot, out } = await shardPlace(located, wanted, options);
  if (isShardDirectory(out)) return { shards: await openShards(out), filesExist: true, directory: out };
  return { shards: await predictShards(path, wanted, snapshot?.weights), filesExist: false, directory: out };
}

/**
 * Returns the directory of a model's shards, which must be made already; nothing is downloaded and no weights are read.
 *
 * @throws {UsageError} where they are not made. @throws as {@linkcode openModelShards}.
 */
export async function findModelShards(model: string, options: ShardOptions = {}): Promise<string> {
  const located = await locateModel(model, { ...options, localFilesOnly: true });
  if (isShardDirectory(located.path)) return located.path;
  const compression = options.compression ??
    defaultCompression(located.path, located.snapshot && located.snapshot.gguf !== undefined);
  const { out } = await shardPlace(located, compression, options);
  if (isShardDirectory(out)) return out;
  throw new UsageError(`Cannot find shards of ${model}: there is no ${out}; quantize, pull or run makes it`);
}

/** Returns the bytes of a budget. */
function budgetBytes(name: string, budget: string | number | undefined): number | undefined {
  if (typeof budget !== "number") return budget === undefined ? undefined : parseBytes(budget);
  if (!Number.isSafeInteger(budget) || budget < 1) {
    throw new UsageError(`Cannot use ${name} ${budget}: required a whole number of bytes`);
  }
  return budget;
}

/** Returns the tokenizer of a shard directory. */
export async function loadModelTokenizer(shards: ShardDirectory): Promise<Tokenizer> {
  const { config, generationConfig } = shards.manifest;
  return await loadTokenizer(shards.path, { config, generationConfig }, shards.tokenizerContents);
}

/**
 * Opens the engine of a model. The tokenizer must be there before: what it takes is memory that the plan must know of.
 *
 * @throws as {@linkcode AutoModel.fromPretrained}.
 */
export async function openModel(shards: ShardDirectory, tokenizer: Tokenizer, options: EngineOptions = {}): Promise<Model> {
  const maxSequences = options.maxSequences ?? DEFAULT_MAX_SEQUENCES;
  const engine = await Engine.open(shards, { ...options, maxSequences });
  return new Model(engine, tokenizer, maxSequences);
}

/** Opens models. */
export class AutoModel {
  /**
   * Opens a model of a Hugging Face checkpoint directory (config.json, safetensors, tokenizer.json), of a shard directory, or of the hub, by its
   * name there. A checkpoint is quantized on first use, while it is downloaded where it is on the hub, and the shards are used again as long as
   * the checkpoint is the same.
   *
   * @param model A directory, a `.gguf` file, or `organisation/name` of a model on the hub, with `:Q4_K_M` or `:path/of/file.gguf` behind it where it
   * has several GGUF files; what exists as a path goes first.
   * @throws {FormatError} for a path that is missing, and for anything wrong in its files.
   * @throws {HubError} where the hub has no such model or does not give it.
   * @throws {UnsupportedError} for a model or setting that is not known.
   * @throws {BudgetError} where the memory or the disk cannot hold it.
   * @throws {NativeError} where the native library is not built.
   */
  static async fromPretrained(model: string, options: ModelOptions = {}): Promise<Model> {
    const { ram, vram, onNotice = (message) => console.warn(message), ...given } = options;
    const ramBytes = budgetBytes("ram", ram), vramBytes = budgetBytes("vram", vram);
    const shards = await openModelShards(model, { ...given, ramBytes, onNotice });
    const { device, contextTokens, maxSequences, passTokens, precision, kvCacheType, kvCacheLocation } = given;
    const { threads, onProgress, signal } = given;
    return await openModel(shards, await loadModelTokenizer(shards), {
      ...{ device, ramBytes, vramBytes, contextTokens, maxSequences, passTokens, precision, kvCacheType, kvCacheLocation },
      ...{ threads, onProgress, onNotice, signal },
    });
  }
}
