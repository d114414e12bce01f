/**
 * Writes a checkpoint that transformers loads with bitsandbytes: linear layers as NF4 in blocks of 64 without double quantization, all else as it is.
 * Routed experts are quantized where transformers has linear layers for them, and stay as they are in stacks. Layout: `QuantState.as_dict` in
 * bitsandbytes/functional.py, `Linear4bit` in its nn/modules.py.
 * @module
 */
import fs from "node:fs";
import { dirname, join, resolve } from "node:path";
import { type Checkpoint, type CheckpointTensor, openCheckpoint } from "../checkpoint/checkpoint.ts";
import { CONFIG_FILE, GENERATION_CONFIG_FILE, INDEX_FILE } from "../checkpoint/model_files.ts";
import { sync, writeAt } from "../checkpoint/positional_io.ts";
import { tokenizerFileNames } from "../checkpoint/tokenizer_files.ts";
import { type HeaderEntry, writeHeader } from "../checkpoint/safetensors.ts";
import { type RowPlacement, type RowReader, TensorRows } from "../checkpoint/tensor_rows.ts";
import { quantizationConfig } from "../encodings/registry.ts";
import { CancelledError, FormatError, NativeError, UnsupportedError, UsageError } from "../errors.ts";
import { AIRK_BF16, AIRK_F16, AIRK_F32, AIRK_NOT_FINITE } from "../ffi/abi.ts";
import { Context } from "../ffi/context.ts";
import { quantizeRows } from "../ffi/quantize.ts";
import type { TensorSpec } from "../models/architecture.ts";
import { architectureFor } from "../models/registry.ts";
import { extentSections, rowsOfWhole } from "./formats.ts";
import { isEncoded, placeTensors } from "./tensor_places.ts";
import { PARTIAL_SUFFIX, writeError, writeWhole } from "./writer.ts";

const BLOCK = 64;
/** NF4 as bitsandbytes has it (`get_4bit_type` in functional.py). */
const NF4 = Float32Array.of(
  ...[-1, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334],
  ...[-0.09105003625154495, 0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224],
  ...[0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1],
);
/** Bytes of weights after which another file begins. */
const FILE_BYTES = 4 * 1024 ** 3;
/** Bytes that are copied, or elements that are quantized, at once. */
const CHUNK = 4 * 1024 * 1024;

const TYPES: Partial<Record<string, { id: number; bytes: number; name: string }>> = {
  F32: { id: AIRK_F32, bytes: 4, name: "float32" },
  F16: { id: AIRK_F16, bytes: 2, name: "float16" },
  BF16: { id: AIRK_BF16, bytes: 2, name: "bfloat16" },
};

/** Options of {@linkcode exportTransformersNf4}. */
export interface ExportOptions {
  /** Directory of the checkpoint. */
  source: string;
  /** Directory to write, new or empty. */
  out: string;
  threads?: number;
  onProgress?: (progress: { phase: "quantize"; doneBytes: number; totalBytes: number; tensor: string }) => void;
  signal?: AbortSignal;
}

/** What {@linkcode exportTransformersNf4} wrote. */
export interface ExportReport {
  out: string;
  files: number;
  bytes: number;
  quantizedTensors: number;
  copiedTensors: number;
}

/** A tensor of the checkpoint, or a matrix within one, and what it becomes. */
interface Item {
  tensor: CheckpointTensor;
  /** The rows of a linear layer; undefined for what is copied. */
  linear?: Linear;
  /** Bytes that are read. */
  bytes: number;
  entries: HeaderEntry[];
}

/** A linear layer to quantize. */
interface Linear {
  name: string;
  rows: number;
  cols: number;
  reader: RowReader;
}

function state({ dtype }: CheckpointTensor, { rows, cols }: Linear): Uint8Array<ArrayBuffer> {
  const type = TYPES[dtype]!.name;
  return new TextEncoder().encode(
    `{"quant_type": "nf4", "blocksize": ${BLOCK}, "dtype": "${type}", "shape": [${rows}, ${cols}]}`,
  );
}

function copied(tensor: CheckpointTensor): Item {
  const { name, dtype, shape, bytes } = tensor;
  return { tensor, bytes, entries: [{ name, dtype, shape, bytes }] };
}

function quantized(tensor: CheckpointTensor, linear: Linear): Item {
  const { name, rows, cols } = linear, elements = rows * cols, blocks = Math.ceil(elements / BLOCK);
  const codes = Math.ceil(elements / 2), text = state(tensor, linear).length;
  const entries: HeaderEntry[] = [
    { name, dtype: "U8", shape: [codes, 1], bytes: codes },
    { name: `${name}.absmax`, dtype: "F32", shape: [blocks], bytes: blocks * 4 },
    { name: `${name}.quant_map`, dtype: "F32", shape: [16], bytes: 64 },
    { name: `${name}.quant_state.bitsandbytes__nf4`, dtype: "U8", shape: [text], bytes: text },
  ];
  return { tensor, linear, bytes: elements * TYPES[tensor.dtype]!.bytes, entries };
}

/** Returns what a tensor of routers or experts belongs to, as `llm_int8_skip_modules` names it. */
function skippedModule(name: string): string {
  return /^.+\.experts(?=\.)/.exec(name)?.[0] ?? name.replace(/\.(weight|bias)$/, "");
}

/** Returns the name that an expert's matrix of a stack has by itself, which is one of its other places. */
function matrixName({ expert, otherSources = [] }: TensorSpec, stack: string): string | undefined {
  const prefix = /^.*\.experts\./.exec(stack)?.[0];
  if (expert === undefined || prefix === undefined) return undefined;
  return otherSources.flat().find(({ name, index }) => index === undefined && name.startsWith(`${prefix}${expert}.`))?.name;
}

/** Returns the reader of rows that lie somewhere in a tensor. */
function readerOf(checkpoint: Checkpoint, tensor: CheckpointTensor, cols: number, placement: RowPlacement): RowReader {
  return new TensorRows(checkpoint, tensor, { cols, rowsTogether: 1, elementBytes: TYPES[tensor.dtype]!.bytes }, placement);
}

/** Returns what becomes of the checkpoint's tensors, and which modules are not to be taken for linear layers. */
function planItems(checkpoint: Checkpoint): { items: Item[]; skipped: string[] } {
  const refuse = (reason: string) => new UnsupportedError(`Cannot write ${checkpoint.path} for transformers: ${reason}`);
  if (quantizationConfig(checkpoint.config) !== undefined) throw refuse("it is quantized already");
  const architecture = architectureFor(checkpoint.config);
  if (architecture.refusesExport !== undefined) throw refuse(architecture.refusesExport);
  const config = architecture.parseConfig(checkpoint.config), declared = architecture.tensors(config);
  const specs = [...declared.embedding, ...declared.layers.flat(), ...declared.head];
  const items = new Map<CheckpointTensor, Item[]>(), skipped = new Set(["lm_head"]);
  for (const [spec, places] of placeTensors(checkpoint, specs)) {
    for (const { source, placement } of places) {
      if (isEncoded(source)) throw refuse("it is quantized already");
      const [rows, cols] = source.shape, { name } = source;
      const apart = architecture.linearExperts === true ? matrixName(spec, name) : undefined, isApart = apart !== undefined;
      const isLinear = isApart ||
        spec.kind === "linear" && source.shape.length === 2 && name.endsWith(".weight") && placement.transposed === undefined;
      if (isLinear && TYPES[source.dtype] === undefined) {
        throw refuse(`tensor ${JSON.stringify(name)} has dtype ${source.dtype}`);
      }
      if (isApart) {
        const linear = { name: apart, rows: spec.rows, cols: spec.cols };
        const item = quantized(source, { ...linear, reader: readerOf(checkpoint, source, spec.cols, placement) });
        items.set(source, [...items.get(source) ?? [], item]);
      } else if (isLinear) {
        const whole = readerOf(checkpoint, source, cols, { firstRow: 0, runRows: rows, rowStep: rows });
        items.set(source, [quantized(source, { name, rows, cols, reader: whole })]);
      } else items.set(source, [copied(source)]);
      // A linear layer that lies otherwise, too.
      const isPlainLayer = spec.kind === "router" || (spec.kind === "linear" || spec.expert !== undefined) && !isLinear;
      if (isPlainLayer) skipped.add(skippedModule(name));
    }
  }
  // What the language model alone does not use: images' parts, which stay as they are.
  for (const tensor of checkpoint.tensors.values()) {
    if (items.has(tensor)) continue;
    if (architecture.ignoredTensorReason(tensor.name, config) === undefined) {
      throw refuse(`tensor ${JSON.stringify(tensor.name)} is not one of a ${config.modelType} model of this config.json`);
    }
    items.set(tensor, [copied(tensor)]);
    if (tensor.shape.length === 2) skipped.add(skippedModule(tensor.name));
  }
  const ordered = [...items].sort(([a], [b]) => a.file - b.file || a.offset - b.offset);
  return { items: ordered.flatMap(([, items]) => items), skipped: [...skipped] };
}

/** Distributes tensors over files. */
function planFiles(items: Item[]): Item[][] {
  const files: Item[][] = [[]];
  let bytes = 0;
  for (const item of items) {
    const itemBytes = item.entries.reduce((sum, entry) => sum + entry.bytes, 0);
    if (bytes > 0 && bytes + itemBytes > FILE_BYTES) {
      files.push([]);
      bytes = 0;
    }
    files.at(-1)!.push(item);
    bytes += itemBytes;
  }
  return files;
}

/** Writes one file's content. */
class Exporter {
  readonly #checkpoint: Checkpoint;
  readonly #context: Context;
  readonly #options: ExportOptions;
  readonly #totalBytes: number;
  #doneBytes = 0;

  constructor(checkpoint: Checkpoint, context: Context, options: ExportOptions, totalBytes: number) {
    this.#checkpoint = checkpoint;
    this.#context = context;
    this.#options = options;
    this.#totalBytes = totalBytes;
  }

  #progress(tensor: string, bytes: number): void {
    if (this.#options.signal?.aborted) throw new CancelledError("Quantizing was cancelled; remove the directory to begin again");
    this.#doneBytes += bytes;
    this.#options.onProgress?.({ phase: "quantize", doneBytes: this.#doneBytes, totalBytes: this.#totalBytes, tensor });
  }

  /** Returns the file's length. */
  async write(path: string, items: readonly Item[]): Promise<number> {
    const entries = items.flatMap(({ entries }) => entries), header = writeHeader(entries);
    const descriptor = fs.openSync(path + PARTIAL_SUFFIX, "w");
    let end = header.length;
    try {
      await writeAt(descriptor, header, 0);
      for (const item of items) {
        if (item.linear) await this.#quantize(descriptor, item, item.linear, end);
        else await this.#copy(descriptor, item, end);
        end += item.entries.reduce((sum, { bytes }) => sum + bytes, 0);
      }
      await sync(descriptor);
    } catch (error) {
      throw writeError(path, error);
    } finally {
      fs.closeSync(descriptor);
    }
    fs.renameSync(path + PARTIAL_SUFFIX, path);
    return end;
  }

  async #copy(descriptor: number, { tensor }: Item, position: number): Promise<void> {
    for (let at = 0; at < tensor.bytes; at += CHUNK) {
      const chunk = new Uint8Array(Math.min(CHUNK, tensor.bytes - at));
      await this.#checkpoint.read(tensor, at, chunk);
      await writeAt(descriptor, chunk, position + at);
      this.#progress(tensor.name, chunk.length);
    }
  }

  async #quantize(descriptor: number, { tensor, entries }: Item, linear: Linear, position: number): Promise<void> {
    const { name, rows, cols, reader } = linear, type = TYPES[tensor.dtype]!, [codes, absmax, map] = entries;
    const absmaxAt = position + codes.bytes, mapAt = absmaxAt + absmax.bytes, stateAt = mapAt + map.bytes;
    await writeAt(descriptor, new Uint8Array(NF4.buffer), mapAt);
    await writeAt(descriptor, state(tensor, linear), stateAt);
    const unit = rowsOfWhole(BLOCK, cols), step = Math.max(1, Math.floor(CHUNK / (cols * unit))) * unit;
    for (let row = 0; row < rows; row += step) {
      const count = Math.min(step, rows - row), source = new Uint8Array(count * cols * type.bytes);
      await reader.read(row, count, source);
      const sections = extentSections("nf4", count, cols, 0), extent = new Uint8Array(sections[1].offset + sections[1].bytes);
      try {
        await quantizeRows(this.#context, this.#context.formatId("nf4"), source, type.id, count, cols, new Uint8Array(0), extent);
      } catch (error) {
        if (!(error instanceof NativeError) || error.status !== AIRK_NOT_FINITE) throw error;
        throw new FormatError(
          `Cannot quantize model ${this.#checkpoint.path}: tensor ${JSON.stringify(name)} holds NaN or infinity`,
        );
      }
      const [scale, code] = sections.map(({ offset, bytes }) => extent.subarray(offset, offset + bytes));
      await writeAt(descriptor, scale, absmaxAt + row * cols / BLOCK * 4);
      await writeAt(descriptor, code, position + row * cols / 2);
      this.#progress(name, source.length);
    }
  }
}

/** Returns the `quantization_config` that transformers writes for such a checkpoint. */
function configOf(dtype: string, skipped: string[]): Record<string, unknown> {
  return {
    quant_method: "bitsandbytes",
    load_in_4bit: true,
    load_in_8bit: false,
    bnb_4bit_quant_type: "nf4",
    bnb_4bit_use_double_quant: false,
    bnb_4bit_compute_dtype: dtype,
    bnb_4bit_quant_storage: "uint8",
    llm_int8_enable_fp32_cpu_offload: false,
    llm_int8_has_fp16_weight: false,
    llm_int8_skip_modules: skipped,
  };
}

/**
 * Writes a checkpoint for transformers and bitsandbytes.
 *
 * @throws {UnsupportedError} for a model that is quantized already, or that transformers does not load so.
 * @throws {UsageError} where `out` is not empty.
 * @throws {FormatError} for anything wrong in the checkpoint.
 */
export async function exportTransformersNf4(options: ExportOptions): Promise<ExportReport> {
  const out = resolve(options.out);
  using checkpoint = await openCheckpoint(options.source);
  const { items, skipped } = planItems(checkpoint), files = planFiles(items);
  if (fs.existsSync(out) && fs.readdirSync(out).length > 0) throw new UsageError(`Cannot write ${out}: it is not empty`);
  fs.mkdirSync(out, { recursive: true });
  using context = await Context.load({ kind: "cpu", threads: options.threads });
  const exporter = new Exporter(checkpoint, context, options, items.reduce((sum, { bytes }) => sum + bytes, 0));
  const weightMap: Record<string, string> = {};
  let bytes = 0;
  for (const [i, file] of files.entries()) {
    const number = (n: number) => `${n}`.padStart(5, "0");
    const name = files.length === 1 ? "model.safetensors" : `model-${number(i + 1)}-of-${number(files.length)}.safetensors`;
    bytes += await exporter.write(join(out, name), file);
    for (const entry of file.flatMap(({ entries }) => entries)) weightMap[entry.name] = name;
  }
  if (files.length > 1) {
    await writeWhole(join(out, INDEX_FILE), JSON.stringify({ metadata: { total_size: bytes }, weight_map: weightMap }, null, 2));
  }
  for (const name of [GENERATION_CONFIG_FILE, ...tokenizerFileNames(checkpoint.path)]) {
    const path = join(checkpoint.path, name);
    if (!fs.existsSync(path)) continue;
    fs.mkdirSync(dirname(join(out, name)), { recursive: true });
    await writeWhole(join(out, name), fs.readFileSync(path));
  }
  const linear = items.find(({ linear }) => linear);
  const dtype = linear === undefined ? "float32" : TYPES[linear.tensor.dtype]!.name;
  // Last, since without it a directory is no checkpoint. In the source's own spelling: transformers tells 0.0 from 0.
  const config = fs.readFileSync(join(checkpoint.path, CONFIG_FILE), "utf8").replace(/\s*\}\s*$/, "");
  const quantization = JSON.stringify(configOf(dtype, skipped), null, 2).replaceAll("\n", "\n  ");
  await writeWhole(join(out, CONFIG_FILE), `${config},\n  "quantization_config": ${quantization}\n}\n`);
  const quantizedTensors = items.filter(({ linear }) => linear).length;
  return { out, files: files.length, bytes, quantizedTensors, copiedTensors: items.length - quantizedTensors };
}
