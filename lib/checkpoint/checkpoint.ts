/**
 * A model as Hugging Face stores it: a directory with config.json and safetensors files, one or several with an index, or PyTorch files in their
 * place.
 * @module
 */
import { createHash } from "node:crypto";
import fs from "node:fs";
import { basename, dirname, join, resolve } from "node:path";
import { FormatError } from "../errors.ts";
import { ggufModels, readGgufModel } from "./gguf_model.ts";
import { isJsonObject, isPlainFileName, type JsonObject, readJsonObject } from "./json_file.ts";
import { CONFIG_FILE, GENERATION_CONFIG_FILE, INDEX_FILE, PYTORCH_FILE, SINGLE_FILE, WEIGHT_FILES } from "./model_files.ts";
import { readAt } from "./positional_io.ts";
import { readPytorchHeader } from "./pytorch_bin.ts";
import { withQuantizationFile } from "./quantization_file.ts";
import { readHeader, type SafetensorsHeader, type SafetensorsTensor } from "./safetensors.ts";
import { readStrided } from "./strided_reads.ts";
import type { WeightSupply } from "./weight_supply.ts";

/** Bytes read at the start, the middle and the end of each tensor to tell models of equal shapes apart. */
const SAMPLE_BYTES = 4096;

/** Headers asked of a supply at a time. */
const HEADERS_IN_FLIGHT = 8;

/** One file of a checkpoint's weights. */
export interface CheckpointFile extends SafetensorsHeader {
  name: string;
  path: string;
  /** Last modification, in milliseconds since 1970; 0 where a {@linkcode WeightSupply} vouches for the content. */
  modifiedMs: number;
}

/** One tensor of a checkpoint. */
export interface CheckpointTensor extends SafetensorsTensor {
  /** Index into {@linkcode Checkpoint.files}. */
  file: number;
}

/** An open checkpoint: what it holds, and ranged reads of its tensors. */
export class Checkpoint implements Disposable {
  readonly path: string;
  /** Name of the model: `organisation/name` within a Hugging Face cache, else the directory's name. */
  readonly name: string;
  /** Identifies the content: the snapshot's commit within a Hugging Face cache, else {@linkcode fingerprint}. */
  readonly revision: string;
  /** 16 hex digits over config.json, all headers and file sizes, and samples of every tensor. */
  readonly fingerprint: string;
  readonly config: JsonObject;
  readonly generationConfig: JsonObject | null;
  /** Contents of the tokenizer's files that are not files of the directory, by name. */
  readonly tokenizerFiles: ReadonlyMap<string, string>;
  readonly files: readonly CheckpointFile[];
  readonly tensors: ReadonlyMap<string, CheckpointTensor>;
  /** Brings files that are not on disk yet; undefined where all are. */
  readonly supply: WeightSupply | undefined;
  /** One a file, undefined while it is not open. */
  readonly #descriptors: (number | undefined)[];
  readonly #opening = new Map<number, Promise<number>>();

  /** Use {@linkcode openCheckpoint}. */
  constructor(parts: {
    path: string;
    config: JsonObject;
    generationConfig: JsonObject | null;
    files: CheckpointFile[];
    tensors: Map<string, CheckpointTensor>;
    descriptors: (number | undefined)[];
    fingerprint: string;
    supply?: WeightSupply;
    tokenizerFiles?: Map<string, string>;
  }) {
    this.path = parts.path;
    this.config = parts.config;
    this.generationConfig = parts.generationConfig;
    this.files = parts.files;
    this.tensors = parts.tensors;
    this.fingerprint = parts.fingerprint;
    this.supply = parts.supply;
    this.tokenizerFiles = parts.tokenizerFiles ?? new Map();
    this.#descriptors = parts.descriptors;
    const snapshot = /\/models--([^/]+)\/snapshots\/([0-9a-f]{7,64})$/.exec(parts.path);
    this.name = snapshot ? snapshot[1].replaceAll("--", "/") : basename(parts.path);
    this.revision = snapshot ? snapshot[2] : parts.fingerprint;
  }

  /**
   * Fills `into` with a tensor's bytes from `offset` on; several reads may be in flight. Where the file is not on disk yet, the read waits until
   * it is.
   * @throws {FormatError} where the file ends early, or cannot be read.
   */
  async read(tensor: CheckpointTensor, offset: number, into: Uint8Array): Promise<void> {
    const descriptor = this.#descriptors[tensor.file] ?? await this.#open(tensor.file);
    await readTensor(this.files[tensor.file], descriptor, tensor, offset, into);
  }

  /**
   * Fills `into` as {@linkcode read} does, but without waiting for a file that is not on disk: a range of it is enough. For small tensors that
   * say how others are stored, before anything is quantized.
   * @throws as {@linkcode read}.
   */
  async peek(tensor: CheckpointTensor, offset: number, into: Uint8Array): Promise<void> {
    const { name, path } = this.files[tensor.file];
    const { strides } = tensor;
    if (this.supply === undefined || strides || this.#descriptors[tensor.file] !== undefined || fs.existsSync(path)) {
      return await this.read(tensor, offset, into);
    }
    if (offset + into.length > tensor.bytes) {
      throw new RangeError(`Cannot read ${into.length} bytes of tensor ${tensor.name} at ${offset}`);
    }
    await this.supply.peek(name, tensor.offset + offset, into);
  }

  /** Opens a file once, however many reads ask for it at a time. */
  #open(file: number): Promise<number> {
    let opening = this.#opening.get(file);
    if (opening === undefined) {
      opening = this.#acquire(file).finally(() => this.#opening.delete(file));
      this.#opening.set(file, opening);
    }
    return opening;
  }

  async #acquire(file: number): Promise<number> {
    const { name, headerSha256 } = this.files[file];
    if (this.supply === undefined) throw new Error(`${name} was closed`);
    const path = await this.supply.acquire(name);
    // The tensors' places were read from a header that came before the file.
    if ((await readWeightHeader(path)).headerSha256 !== headerSha256) {
      throw new FormatError(`Cannot read ${path}: its header is another than was read before; was it changed meanwhile?`);
    }
    return this.#descriptors[file] = fs.openSync(path, "r");
  }

  /** Closes a file that was supplied; another read opens it again. No read of it may be in flight. */
  close(file: number): void {
    const descriptor = this.#descriptors[file];
    this.#descriptors[file] = undefined;
    if (descriptor !== undefined) fs.closeSync(descriptor);
  }

  /**
   * Fills `into` with rows of a matrix, as they are stored. A vector is one row.
   * @throws {FormatError} as {@linkcode read}.
   */
  async readRows(tensor: CheckpointTensor, firstRow: number, rows: number, into: Uint8Array): Promise<void> {
    const rowBytes = tensor.shape.length < 2 ? tensor.bytes : tensor.bytes / tensor.shape[0];
    await this.read(tensor, firstRow * rowBytes, into.subarray(0, rows * rowBytes));
  }

  /** Closes the files. No read may be in flight. */
  [Symbol.dispose](): void {
    for (const descriptor of this.#descriptors.splice(0)) if (descriptor !== undefined) fs.closeSync(descriptor);
  }
}

async function readTensor(
  file: CheckpointFile,
  descriptor: number,
  tensor: CheckpointTensor,
  offset: number,
  into: Uint8Array,
): Promise<void> {
  const where = `tensor ${JSON.stringify(tensor.name)} of ${file.path} at byte ${tensor.offset + offset}`;
  if (offset + into.length > tensor.bytes) {
    throw new RangeError(`Cannot read ${into.length} bytes of ${where}: it has ${tensor.bytes - offset}`);
  }
  const read = async (part: Uint8Array, position: number): Promise<void> => {
    let got: number;
    try {
      got = await readAt(descriptor, part, position);
    } catch (error) {
      throw new FormatError(`Cannot read ${where}: ${(error as Error).message}`);
    }
    if (got === part.length) return;
    throw new FormatError(`Cannot read ${where}: the file ended after ${got} of ${part.length} bytes; was it changed meanwhile?`);
  };
  const { strides } = tensor;
  await (strides === undefined ? read(into, tensor.offset + offset) : readStrided({ ...tensor, strides }, offset, into, read));
}

/**
 * Reads where the tensors of a weight file lie, of either kind.
 * @throws {FormatError} for a file that is missing or damaged.
 */
export async function readWeightHeader(path: string): Promise<SafetensorsHeader> {
  return await (path.endsWith(".bin") ? readPytorchHeader(path) : readHeader(path));
}

/** Returns whether a directory has weights that {@linkcode openCheckpoint} reads. */
export function hasWeightFiles(path: string): boolean {
  return ggufFiles(path) !== undefined ||
    WEIGHT_FILES.some(({ single, index }) => fs.existsSync(join(path, single)) || fs.existsSync(join(path, index)));
}

/**
 * Returns the names of a directory's GGUF file, or the parts it was split into; undefined where it has none, or weights of another kind.
 * @throws {FormatError} where it has several, or not all parts of one.
 */
function ggufFiles(path: string): string[] | undefined {
  if (!fs.existsSync(path)) return undefined;
  const names = fs.readdirSync(path);
  if (WEIGHT_FILES.some(({ single, index }) => names.includes(single) || names.includes(index))) return undefined;
  const models = [...ggufModels(names).values()];
  if (models.length > 1) {
    throw new FormatError(
      `Cannot read model ${path}: it holds several GGUF files (${models.map(([name]) => name).join(", ")}), required one`,
    );
  }
  return models[0];
}

/** Which files a checkpoint has, and for a sharded one where its index says each tensor is. */
interface FileList {
  names: string[];
  indexName: string;
  weightMap: Map<string, string> | undefined;
}

function listFiles(path: string, supply?: WeightSupply): FileList {
  const kind = WEIGHT_FILES.find(({ single, index }) =>
    [single, index].some((name) => fs.existsSync(join(path, name)) || supply?.names.includes(name))
  );
  if (kind === undefined) {
    if (fs.existsSync(join(path, "airkern.json"))) {
      throw new FormatError(`Cannot read ${path} as a checkpoint: it is a shard directory already (airkern.json)`);
    }
    throw new FormatError(
      `Cannot read model ${path}: it holds neither ${SINGLE_FILE} nor ${INDEX_FILE}, nor ${PYTORCH_FILE} or its index, nor a .gguf file`,
    );
  }
  const indexPath = join(path, kind.index);
  const index = readJsonObject(indexPath);
  if (index === undefined) return { names: [kind.single], indexName: kind.index, weightMap: undefined };
  if (!isJsonObject(index.weight_map)) throw new FormatError(`Cannot read ${indexPath}: it has no weight_map`);
  const weightMap = new Map<string, string>();
  for (const [tensor, name] of Object.entries(index.weight_map)) {
    if (!isPlainFileName(name)) {
      throw new FormatError(
        `Cannot read ${indexPath}: tensor ${JSON.stringify(tensor)} is in ${JSON.stringify(name)}, which is no file name`,
      );
    }
    weightMap.set(tensor, name);
  }
  return { names: [...new Set(weightMap.values())].sort(), indexName: kind.index, weightMap };
}

/** Joins the files' tensors into one table and checks it against the index, both ways. */
function joinTensors(files: CheckpointFile[], { weightMap, indexName }: FileList): Map<string, CheckpointTensor> {
  const tensors = new Map<string, CheckpointTensor>();
  files.forEach((file, index) => {
    for (const tensor of file.tensors) {
      const other = tensors.get(tensor.name);
      const subject = `tensor ${JSON.stringify(tensor.name)}`;
      if (other) throw new FormatError(`Cannot read ${file.path}: ${subject} is in ${files[other.file].name} too`);
      if (weightMap && weightMap.get(tensor.name) !== file.name) {
        const listed = weightMap.get(tensor.name);
        throw new FormatError(
          `Cannot read ${file.path}: its ${subject} is listed ${listed ? `in ${listed}` : "nowhere"} by ${indexName}`,
        );
      }
      tensors.set(tensor.name, { ...tensor, file: index });
    }
  });
  for (const [name, file] of weightMap ?? []) {
    if (!tensors.has(name)) {
      throw new FormatError(
        `Cannot read ${indexName}: tensor ${JSON.stringify(name)} should be in ${file}, which does not have it`,
      );
    }
  }
  return tensors;
}

/**
 * Hashes what tells one model from another without reading it all: fine-tunes of one model have equal headers and sizes, so samples of every
 * tensor belong to it. Modification times do not, so that a copy is the same model.
 */
async function fingerprintOf(
  config: JsonObject,
  files: CheckpointFile[],
  descriptors: number[],
  tensors: Map<string, CheckpointTensor>,
): Promise<string> {
  const hash = createHash("sha256").update(JSON.stringify(config));
  for (const file of files) hash.update(`\n${file.name} ${file.fileBytes} ${file.headerSha256}`);
  const sample = new Uint8Array(SAMPLE_BYTES);
  for (const tensor of [...tensors.values()].sort((a, b) => a.file - b.file || a.offset - b.offset)) {
    const into = sample.subarray(0, Math.min(SAMPLE_BYTES, tensor.bytes));
    const last = tensor.bytes - into.length;
    for (const offset of new Set([0, Math.floor(last / 2), last])) {
      await readTensor(files[tensor.file], descriptors[tensor.file], tensor, offset, into);
      hash.update(into);
    }
  }
  return hash.digest("hex").slice(0, 16);
}

/** Reads the headers of files that are to come, a few at a time. */
async function suppliedFiles(path: string, names: readonly string[], supply: WeightSupply): Promise<CheckpointFile[]> {
  const files: CheckpointFile[] = [];
  const next = names.entries();
  const worker = async () => {
    for (const [index, name] of next) {
      files[index] = { ...await supply.header(name), name, path: join(path, name), modifiedMs: 0 };
    }
  };
  const outcomes = await Promise.allSettled(Array.from({ length: HEADERS_IN_FLIGHT }, worker));
  for (const outcome of outcomes) if (outcome.status === "rejected") throw outcome.reason;
  return files;
}

/**
 * Opens a checkpoint directory and checks everything that can be checked without reading the weights.
 *
 * @param supply Brings the weight files, which then need not be in the directory; all others must be.
 * @throws {FormatError} for a path that is missing or no checkpoint, and for anything wrong in its files.
 */
export async function openCheckpoint(path: string, supply?: WeightSupply): Promise<Checkpoint> {
  const stat = fs.statSync(path, { throwIfNoEntry: false });
  if (stat === undefined) throw new FormatError(`Cannot open model ${path}: no such directory`);
  if (!stat.isDirectory()) throw new FormatError(`Cannot open model ${path}: it is a file; give the directory that holds it`);
  // The path as given, not its target: a snapshot of a Hugging Face cache is known by its place.
  path = resolve(path);
  const gguf = supply === undefined ? ggufFiles(path) : undefined;
  if (gguf !== undefined) return await openGguf(path, gguf);
  const list = listFiles(path, supply);
  const ownConfig = readJsonObject(join(path, CONFIG_FILE));
  if (ownConfig === undefined) throw new FormatError(`Cannot read model ${path}: it holds no ${CONFIG_FILE}`);
  const config = withQuantizationFile(path, ownConfig);
  const generationConfig = readJsonObject(join(path, GENERATION_CONFIG_FILE)) ?? null;
  if (supply !== undefined) {
    const files = await suppliedFiles(path, list.names, supply);
    const tensors = joinTensors(files, list);
    return new Checkpoint({
      path,
      config,
      generationConfig,
      files,
      tensors,
      descriptors: [],
      fingerprint: supply.identity,
      supply,
    });
  }
  const files: CheckpointFile[] = [];
  for (const name of list.names) {
    const file = join(path, name);
    if (!fs.existsSync(file)) {
      throw new FormatError(`Cannot read model ${path}: ${list.indexName} lists ${name}, which is missing`);
    }
    const header = await readWeightHeader(file);
    files.push({ ...header, name, path: file, modifiedMs: fs.statSync(file).mtimeMs });
  }
  const tensors = joinTensors(files, list);
  const descriptors: number[] = [];
  try {
    for (const file of files) descriptors.push(fs.openSync(file.path, "r"));
    const fingerprint = await fingerprintOf(config, files, descriptors, tensors);
    return new Checkpoint({ path, config, generationConfig, files, tensors, descriptors, fingerprint });
  } catch (error) {
    for (const descriptor of descriptors) fs.closeSync(descriptor);
    throw error;
  }
}

/** Opens a directory whose weights, config and tokenizer are in a GGUF file, or the parts it was split into. */
async function openGguf(path: string, names: string[]): Promise<Checkpoint> {
  const paths = names.map((name) => join(path, name)), { config, headers, tokenizerFiles } = await readGgufModel(paths);
  const files = headers.map((header, i): CheckpointFile => ({
    ...{ ...header, name: names[i], path: paths[i], modifiedMs: fs.statSync(paths[i]).mtimeMs },
  }));
  const tensors = joinTensors(files, { names, indexName: names[0], weightMap: undefined });
  const descriptors: number[] = [];
  try {
    for (const file of paths) descriptors.push(fs.openSync(file, "r"));
    const fingerprint = await fingerprintOf(config, files, descriptors, tensors);
    return new Checkpoint({ path, config, generationConfig: null, files, tensors, descriptors, fingerprint, tokenizerFiles });
  } catch (error) {
    for (const descriptor of descriptors) fs.closeSync(descriptor);
    throw error;
  }
}

/**
 * Removes a file of a checkpoint. Within a Hugging Face cache the file is a link to a blob; the blob goes too, unless another snapshot
 * links to it.
 */
export function removeCheckpointFile(path: string): void {
  const target = fs.realpathSync(path);
  fs.unlinkSync(path);
  const snapshot = dirname(resolve(path));
  const snapshots = dirname(snapshot);
  const blobs = join(dirname(snapshots), "blobs");
  if (basename(snapshots) !== "snapshots" || !fs.existsSync(blobs) || dirname(target) !== fs.realpathSync(blobs)) return;
  for (const revision of fs.readdirSync(snapshots)) {
    const folder = join(snapshots, revision);
    for (const name of fs.readdirSync(folder)) {
      const link = join(folder, name);
      if (fs.existsSync(link) && fs.realpathSync(link) === target) return;
    }
  }
  fs.unlinkSync(target);
}
