/**
 * Opens a model of the hub at a revision: looks it up, or takes what the cache has, and brings its small files.
 * @module
 */
import fs from "node:fs";
import { join } from "node:path";
import { chooseGguf, ggufModelOf, ggufModelsWithin, ggufParts, isGgufName } from "../checkpoint/gguf_files.ts";
import { readJsonObject } from "../checkpoint/json_file.ts";
import { CONFIG_FILE, QUANTIZATION_FILES, SINGLE_FILE, WEIGHT_FILES } from "../checkpoint/model_files.ts";
import { isNamedTemplate, tokenizerFileNames } from "../checkpoint/tokenizer_files.ts";
import { HubError } from "../errors.ts";
import { ModelCache } from "./cache.ts";
import { HubClient } from "./client.ts";
import { type DownloadDisk, type DownloadProgress, Downloads } from "./downloads.ts";
import { checkRevision, isCommitHash } from "./model_id.ts";
import { listRepository, resolveCommit } from "./repository.ts";
import type { RetryPolicy } from "./retry.ts";
import { ggufWeights, smallFiles, weightNames } from "./selection.ts";
import { type HubOptions, hubSettings } from "./settings.ts";
import { HubWeights } from "./weights.ts";

/** Small files that are fetched at a time. */
const SMALL_FILES_IN_FLIGHT = 4;

/** How a model of the hub is opened. */
export interface SnapshotOptions extends HubOptions {
  /** Branch, tag or commit. Default: `main`. */
  revision?: string;
  /** Which of the repository's GGUF models: a quantization such as `Q4_K_M`, or the path of a file. */
  gguf?: string;
  /** Is told while files are downloaded. */
  onProgress?: (progress: DownloadProgress) => void;
  /** Is told where the cache is used because the hub did not answer. */
  onNotice?: (message: string) => void;
  /** Stops downloading; what is there is kept. */
  signal?: AbortSignal;
  /** @ignore For tests. */
  retryPolicy?: Partial<RetryPolicy>;
  /** @ignore For tests. */
  disk?: DownloadDisk;
}

/** A model of the hub at one commit. Its small files are in `path`; its weights come when they are asked for. */
export interface HubSnapshot {
  id: string;
  commit: string;
  /** Directory of the snapshot. */
  path: string;
  /** What the GGUF model is called within the repository (gguf_files.ts), where it is one. */
  gguf: string | undefined;
  weights: HubWeights;
  /** Asks what the model has in common with an earlier commit of it; nothing where the hub does not say. */
  compare(commit: string): Promise<{ sameWeights: boolean; sameTokenizer: boolean }>;
}

/** Returns the snapshot in the cache as far as it is there; undefined where it holds neither config.json nor a GGUF model. */
function cachedSnapshot(
  cache: ModelCache,
  client: HubClient,
  commit: string | undefined,
  offlineReason: string,
  asked: string | undefined,
): HubSnapshot | undefined {
  if (commit === undefined) return undefined;
  const path = cache.snapshotPath(commit), has = (name: string) => fs.existsSync(join(path, name));
  const downloads = new Downloads({ cache, client, commit, offlineReason });
  const isOther = asked === undefined && WEIGHT_FILES.some(({ single, index }) => has(single) || has(index));
  const models = isOther ? new Map<string, string[]>() : ggufModelsWithin(path);
  if (models.size > 0) {
    const chosen = chooseGguf([...models.keys()], asked, `model ${cache.id} in the cache`, (model) => model);
    const files = models.get(chosen)!;
    // Of those of which shards are left alone, nobody will read a file; its name is what would be asked for.
    const names = files.length === 0 ? [`${chosen}.gguf`] : ggufParts(files[0], files);
    return ggufSnapshot(downloads, names);
  }
  return asked === undefined && has(CONFIG_FILE) ? withWeights(downloads, undefined) : undefined;
}

/** Adds a GGUF model's files. */
function ggufSnapshot(downloads: Downloads, names: readonly string[]): HubSnapshot {
  const { id, commit, directory: path } = downloads, weights = new HubWeights(downloads, names);
  return {
    id,
    commit,
    path,
    gguf: ggufModelOf(names[0]),
    weights,
    compare: (earlier) => compareCommits(downloads, names, earlier),
  };
}

/** Adds the weights that the index names, which is there by now. */
function withWeights(downloads: Downloads, listed: ReadonlyMap<string, unknown> | undefined): HubSnapshot {
  const { id, commit, directory: path } = downloads;
  const isThere = (name: string) => fs.existsSync(join(path, name));
  // Where nobody can say, the name that such a checkpoint has: whoever reads it will be told that it is not there.
  const any = WEIGHT_FILES.some(({ single, index }) => isThere(single) || isThere(index));
  const has = listed ? (name: string) => listed.has(name) : any ? isThere : (name: string) => name === SINGLE_FILE;
  const names = weightNames(id, has, (name) => readJsonObject(join(path, name)));
  const weights = new HubWeights(downloads, names);
  return { id, commit, path, gguf: undefined, weights, compare: (earlier) => compareCommits(downloads, names, earlier) };
}

/** Compares the content of a model's files at its commit and at an earlier one. */
async function compareCommits(
  downloads: Downloads,
  weightNames: readonly string[],
  earlier: string,
): Promise<{ sameWeights: boolean; sameTokenizer: boolean }> {
  const files = await downloads.filesAt(earlier);
  const same = (name: string) => files?.get(name)?.hash.hex === downloads.findHash(name);
  const tokenizerFiles = [...tokenizerFileNames(downloads.directory), ...[...files?.keys() ?? []].filter(isNamedTemplate)];
  // A GGUF file holds config and tokenizer too.
  const isGguf = weightNames.every(isGgufName), configFiles = isGguf ? [] : [CONFIG_FILE, ...Object.keys(QUANTIZATION_FILES)];
  return {
    sameWeights: files !== undefined && [...configFiles, ...weightNames].every(same),
    sameTokenizer: files !== undefined && (isGguf || tokenizerFiles.every(same)),
  };
}

/** Returns whether nothing of a cached snapshot can be missing, so that the hub need not be asked. */
function isComplete({ path, weights, gguf }: HubSnapshot): boolean {
  const has = (name: string) => fs.existsSync(join(path, name));
  return gguf !== undefined && weights.names.every(has) ||
    ["tokenizer.json", "tokenizer.model", "ice_text.model", "tiktoken.model"].some(has) && weights.names.every(has);
}

/**
 * Opens a model of the hub.
 *
 * The hub is asked what the revision is now, unless that is a commit of which all is cached. Where the hub does not answer or refuses,
 * the cache serves, with a notice.
 *
 * @param id `organisation/name`.
 * @throws {HubError} where neither the hub nor the cache has it.
 * @throws {UsageError} for a revision that cannot be one, {CancelledError} after the signal.
 */
export async function openSnapshot(id: string, options: SnapshotOptions = {}): Promise<HubSnapshot> {
  const { onProgress, onNotice, signal, retryPolicy, disk, gguf } = options;
  const revision = checkRevision(options.revision ?? "main");
  const settings = hubSettings(options);
  const cache = new ModelCache(settings.cacheDirectory, id);
  const client = new HubClient(settings, id, { signal, retryPolicy });
  const known = cache.commit(revision);
  if (settings.offline) {
    const reason = options.localFilesOnly
      ? "the network may not be used for this"
      : "the network may not be used (HF_HUB_OFFLINE)";
    const cached = cachedSnapshot(cache, client, known, reason, gguf);
    if (cached) return cached;
    const at = revision === "main" ? "" : ` at revision ${revision}`, which = gguf === undefined ? "" : `:${gguf}`;
    throw new HubError(
      `Cannot use model ${id}${which}${at}: it is not in ${settings.cacheDirectory}, and ${reason}`,
      "offline",
    );
  }
  if (isCommitHash(revision)) {
    const cached = cachedSnapshot(cache, client, known, "", gguf);
    if (cached && isComplete(cached)) return cached;
  }
  try {
    const commit = await resolveCommit(client, id, revision);
    const repository = await listRepository(client, id, commit);
    const downloads = new Downloads({ cache, client, commit, repository, onProgress, disk });
    const ggufNames = ggufWeights(repository, gguf);
    if (ggufNames !== undefined) {
      downloads.createDirectory();
      cache.writeRef(revision, commit);
      return ggufSnapshot(downloads, ggufNames);
    }
    const names = smallFiles(repository).map(({ path }) => path);
    const missing = [...downloads.expect(names)].reduce((sum, [, bytes]) => sum + bytes, 0);
    downloads.checkDiskSpace(missing);
    const waiting = [...names];
    const worker = async () => {
      for (let name = waiting.shift(); name !== undefined; name = waiting.shift()) await downloads.fetch(name);
    };
    const outcomes = await Promise.allSettled(Array.from({ length: SMALL_FILES_IN_FLIGHT }, worker));
    for (const outcome of outcomes) if (outcome.status === "rejected") throw outcome.reason;
    cache.writeRef(revision, commit);
    return withWeights(downloads, repository.files);
  } catch (error) {
    if (!(error instanceof HubError)) throw error;
    const cached = cachedSnapshot(cache, client, known, `the hub could not be asked for it: ${error.message}`, gguf);
    if (!cached) throw error;
    onNotice?.(`${error.message}; using what is cached, ${cached.commit.slice(0, 12)}`);
    return cached;
  }
}
