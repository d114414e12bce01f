/**
 * A model as Hugging Face stores it: a directory with config.json and safetensors files, one or several with an index, or PyTorch files in their
 * place.
 * @module
 */
import { createHash } from "node:crypto";
import fs from "node:fs";
import { basename, dirname, join, resolve } from "node:path";
import { FormatError } from "../errors.ts";
import { type GgufSource, localGguf, readGgufHeader } from "./gguf.ts";
import { ggufModelOf, ggufModels, ggufParts, ggufShardFolders, isGgufName } from "./gguf_files.ts";
import { readGgufModel } from "./gguf_model.ts";
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
  /** The directory. */
  readonly path: string;
  /** What a GGUF file is called within its directory (gguf_files.ts); undefined for weights of another kind. */
  readonly gguf: string | undefined;
  /** Name of the model: `organisation/name`, and of a GGUF file `:` and its own, within a Hugging Face cache, else the directory's or the file's. */
  readonly name: string;
  /** Identifies the content: the snapshot's commit within a Hugging Face cache, of a GGUF file with `:` and its name, else {@linkcode fingerprint}. */
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
    gguf?: string;
    tokenizerFiles?: Map<string, string>;
  }) {
    this.path = parts.path;
    this.gguf = parts.gguf;
    this.config = parts.config;
    this.generationConfig = parts.generationConfig;
    this.files = parts.files;
    this.tensors = parts.tensors;
    this.fingerprint = parts.fingerprint;
    this.supply = parts.supply;
    this.tokenizerFiles = parts.tokenizerFiles ?? new Map();
    this.#descriptors = parts.descriptors;
    // A GGUF file may lie in a folder of the snapshot.
    const whole = parts.gguf === undefined ? parts.path : join(parts.path, parts.gguf);
    const snapshot = /\/models--([^/]+)\/snapshots\/([0-9a-f]{7,64})(\/.+)?$/.exec(whole);
    const isSnapshot = snapshot !== null && (snapshot[3] !== undefined) === (parts.gguf !== undefined);
    const within = snapshot?.[3] === undefined ? "" : `:${snapshot[3].slice(1)}`;
    this.name = isSnapshot ? snapshot[1].replaceAll("--", "/") + within : basename(whole);
    this.revision = isSnapshot ? snapshot[2] + within : parts.fingerprint;
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
    const { headerSha256: found } = await (isGgufName(path) ? readGgufHeader(localGguf(path)) : readWeightHeader(path));
    if (found !== headerSha256) {
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
  if (!tensor.logOfNegative) return;
  const values = new DataView(into.buffer, into.byteOffset, into.byteLength);
  for (let at = 0; at + 4 <= into.length; at += 4) values.setFloat32(at, Math.log(-values.getFloat32(at, true)), true);
}

/**
 * Reads where the tensors of a weight file lie, of either kind.
 * @throws {FormatError} for a file that is missing or damaged.
 */
export async function readWeightHeader(path: string): Promise<SafetensorsHeader> {
  return await (path.endsWith(".bin") ? readPytorchHeader(path) : readHeader(path));
}

/** Returns whether a directory has weights that {@linkcode openCheckpoint} reads, or a path is a GGUF file that is there. */
export function hasWeightFiles(path: string): boolean {
  return isGgufName(path) && isFile(path) || ggufFiles(path) !== undefined ||
    WEIGHT_FILES.some(({ single, index }) => fs.existsSync(join(path, single)) || fs.existsSync(join(path, index)));
}

/** Returns whether a path is a GGUF file's, or a directory's whose weights are in one, or were before its shards were made. */
export function holdsGguf(path: string): boolean {
  return isGgufName(path) || ggufFiles(path) !== undefined || wereGguf(path);
}

/** Returns whether a directory has shards of GGUF files and no weights. */
function wereGguf(path: string): boolean {
  return !hasWeightFiles(path) && ggufShardFolders(path).length > 0;
}

function isFile(path: string): boolean {
  return fs.statSync(path, { throwIfNoEntry: false })?.isFile() ?? false;
}

/**
 * Returns the names of a directory's GGUF file, or the parts it was split into; undefined where it has none, or weights of another kind.
 * @throws {FormatError} where it has several, or not all parts of one.
 */
function ggufFiles(path: string): string[] | undefined {
  if (!fs.statSync(path, { throwIfNoEntry: false })?.isDirectory()) return undefined;
  const names = fs.readdirSync(path);
  if (WEIGHT_FILES.some(({ single, index }) => names.includes(single) || names.includes(index))) return undefined;
  const models = [...ggufModels(names).values()];
  if (models.length > 1) {
    throw new FormatError(
      `Cannot read model ${path}: it holds several GGUF files (${models.map(([name]) => name).join(", ")}); name one of them`,
    );
  }
  return models.length === 0 ? undefined : ggufParts(models[0][0], names);
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
 * Opens a checkpoint and checks everything that can be checked without reading the weights.
 *
 * @param path The directory, or a GGUF file in one, of a model in several parts any of them.
 * @param supply Brings the weight files, which then need not be in the directory; all others must be.
 * @throws {FormatError} for a path that is missing or no checkpoint, and for anything wrong in its files.
 */
export async function openCheckpoint(path: string, supply?: WeightSupply): Promise<Checkpoint> {
  const stat = fs.statSync(path, { throwIfNoEntry: false });
  if (stat === undefined) throw new FormatError(`Cannot open model ${path}: no such directory`);
  // The path as given, not its target: a snapshot of a Hugging Face cache is known by its place.
  path = resolve(path);
  if (!stat.isDirectory()) {
    const name = basename(path), directory = dirname(path);
    if (isGgufName(name)) return await openGguf(directory, ggufParts(name, fs.readdirSync(directory)));
    throw new FormatError(`Cannot open model ${path}: it is a file; give the directory that holds it, or a .gguf file`);
  }
  if (supply?.names.every(isGgufName)) return await openSuppliedGguf(path, supply);
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

/** Opens a GGUF file, or the parts it was split into, which hold config and tokenizer too. */
async function openGguf(path: string, names: string[]): Promise<Checkpoint> {
  const paths = names.map((name) => join(path, name));
  const { config, headers, tokenizerFiles } = await readGgufModel(paths.map(localGguf));
  const files = headers.map((header, i): CheckpointFile => ({
    ...{ ...header, name: names[i], path: paths[i], modifiedMs: fs.statSync(paths[i]).mtimeMs },
  }));
  const tensors = joinTensors(files, { names, indexName: names[0], weightMap: undefined }), gguf = ggufModelOf(names[0]);
  const descriptors: number[] = [];
  try {
    for (const file of paths) descriptors.push(fs.openSync(file, "r"));
    const fingerprint = await fingerprintOf(config, files, descriptors, tensors);
    return new Checkpoint({
      path,
      gguf,
      config,
      generationConfig: null,
      files,
      tensors,
      descriptors,
      fingerprint,
      tokenizerFiles,
    });
  } catch (error) {
    for (const descriptor of descriptors) fs.closeSync(descriptor);
    throw error;
  }
}

/** Opens GGUF files of which some or all are to come. */
async function openSuppliedGguf(path: string, supply: WeightSupply): Promise<Checkpoint> {
  const sources = supply.names.map((name): GgufSource => {
    const file = join(path, name);
    if (fs.existsSync(file)) return localGguf(file);
    return {
      where: name,
      fileBytes: supply.fileBytes(name),
      read: (into, position) => supply.peek(name, position, into),
    };
  });
  const { config, headers, tokenizerFiles } = await readGgufModel(sources);
  const files = headers.map((header, i): CheckpointFile => ({
    ...{ ...header, name: supply.names[i], path: join(path, supply.names[i]), modifiedMs: 0 },
  }));
  const tensors = joinTensors(files, { names: [...supply.names], indexName: files[0].name, weightMap: undefined });
  const gguf = ggufModelOf(files[0].name), fingerprint = supply.identity;
  return new Checkpoint({
    ...{ path, gguf, config, generationConfig: null, files, tensors, descriptors: [], fingerprint, supply, tokenizerFiles },
  });
}
