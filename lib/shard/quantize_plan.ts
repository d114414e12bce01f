/**
 * Decides what a quantization writes: which file holds which tensors, in which format, cut into which extents.
 * @module
 */
import type { Checkpoint, CheckpointTensor } from "../checkpoint/checkpoint.ts";
import type { Dtype } from "../checkpoint/safetensors.ts";
import { JoinedVector, type RowReader, TensorRows } from "../checkpoint/tensor_rows.ts";
import { TurnedBlocks } from "../checkpoint/turned_blocks.ts";
import type { EncodedTensor } from "../encodings/encoding.ts";
import { needlessTensorReason } from "../encodings/registry.ts";
import { FormatError, UnsupportedError } from "../errors.ts";
import { AIRK_BF16, AIRK_F16, AIRK_F32 } from "../ffi/abi.ts";
import { type Architecture, isResidentMatrix, type TensorSpec } from "../models/architecture.ts";
import { EncodedRows } from "./encoded_rows.ts";
import { TurnedEncoded } from "./turned_encoded.ts";
import { rowGranularity } from "./formats.ts";
import { type Compression, MAX_EXTENT_BYTES, paddedBytes, type WeightFormatName } from "./manifest.ts";
import { isEncoded, placeTensors, type TensorPlace } from "./tensor_places.ts";

/** Most bytes of the source that one extent is made from: what bounds the quantizer's memory, whatever a tensor's size. */
export const MAX_SOURCE_CHUNK_BYTES = 32 * 1024 * 1024;

/** Element types that can be quantized: their name in a shard directory, native id and size. */
const SOURCE_TYPES: Partial<Record<Dtype, { format: WeightFormatName; id: number; bytes: number }>> = {
  F32: { format: "f32", id: AIRK_F32, bytes: 4 },
  F16: { format: "f16", id: AIRK_F16, bytes: 2 },
  BF16: { format: "bf16", id: AIRK_BF16, bytes: 2 },
};

/** One tensor to quantize. */
export interface TensorJob {
  name: string;
  /** Name relative to its group, as in the file's header. */
  relativeName: string;
  rows: number;
  cols: number;
  format: WeightFormatName;
  /** Encoded rows are kept as they are where they have `format`, else dequantized to float32. */
  source: RowReader | EncodedRows | TurnedEncoded;
  /** Added to each element once it is stored; 0 but for vectors. */
  offset: number;
  /** Whether rows are scaled to unit length, in float32, before they are stored. */
  unitRows: boolean;
  /** Native id of the source's element type, and bytes of one row of it; of encoded rows, of what is quantized. */
  sourceType: number;
  sourceRowBytes: number;
  /** Rows of each extent. */
  extentRows: number[];
  /** Most bytes that its largest extent may need. */
  maxExtentBytes: number;
}

/** One file to write. */
export interface GroupJob {
  file: string;
  /** Vectors first, then matrices in their order of use. */
  tensors: TensorJob[];
  sourceBytes: number;
  /** Most bytes the file may need. */
  maxBytes: number;
}

/** Everything to write, and what of the checkpoint is left out. */
export interface QuantizePlan {
  groups: GroupJob[];
  ignoredTensors: { name: string; reason: string }[];
}

/** Returns whether a tensor's encoded rows are stored as they are. */
export function isKept({ source, format }: TensorJob): boolean {
  return source instanceof EncodedRows && source.format === format;
}

/** Returns the bytes that so many rows of a tensor's source take when they are read. */
export function sourceBytes(tensor: TensorJob, rows: number): number {
  const { source, sourceRowBytes } = tensor;
  return source instanceof EncodedRows && isKept(tensor) ? source.bytes(rows) : rows * sourceRowBytes;
}

/** Returns the largest number of bytes that an extent may need. */
export type ExtentBound = (format: WeightFormatName, rows: number, cols: number) => number;

/**
 * Returns the format a tensor is stored in. Embedding and LM head stay at 8 bits where linear layers go to 4: they are few bytes of a large
 * model and cost the most of its quality; delicate matrices too. Routers stay as they are: a near tie decided otherwise is another expert.
 */
function storedFormat(
  { kind, delicate = false }: TensorSpec,
  compression: Compression,
  sourceFormat: WeightFormatName,
): WeightFormatName {
  if (kind === "vector") return "f32";
  if (compression === "none" || isResidentMatrix({ kind })) return sourceFormat;
  return (kind === "linear" || kind === "expert") && !delicate ? compression : "q8";
}

/**
 * Cuts a matrix into extents of nearly equal rows, each within both limits.
 * @throws {UnsupportedError} where the least possible extent is above them.
 */
export function cutIntoExtents(
  name: string,
  format: WeightFormatName,
  rows: number,
  cols: number,
  sourceRowBytes: number,
  bound: ExtentBound,
): number[] {
  const granularity = rowGranularity(format, cols);
  const fits = (n: number) => n * sourceRowBytes <= MAX_SOURCE_CHUNK_BYTES && bound(format, n, cols) <= MAX_EXTENT_BYTES;
  if (fits(rows)) return [rows];
  let most = 0;
  for (let step = 2 ** Math.floor(Math.log2(rows)); step >= 1; step /= 2) {
    if (most + step < rows && fits(most + step)) most += step;
  }
  // q4o counts outliers by 64 rows, kernels work on several rows at once: whole 64s where rows are short enough.
  const unit = most >= 64 ? Math.max(64, granularity) : granularity;
  most -= most % unit;
  if (most === 0) {
    throw new UnsupportedError(
      `Cannot store tensor ${
        JSON.stringify(name)
      } as ${format}: ${granularity} rows of ${cols} exceed an extent of ${MAX_EXTENT_BYTES} bytes`,
    );
  }
  const even = Math.ceil(Math.ceil(rows / Math.ceil(rows / most)) / unit) * unit;
  const cut = Array<number>(Math.floor(rows / even)).fill(even);
  if (rows % even !== 0) cut.push(rows % even);
  return cut;
}

/** Returns the element type of plain tensors. */
function sourceTypeOf(checkpoint: Checkpoint, sources: readonly CheckpointTensor[]): NonNullable<(typeof SOURCE_TYPES)[Dtype]> {
  const [{ dtype }] = sources;
  const type = SOURCE_TYPES[dtype];
  const wrong = type === undefined ? sources[0] : sources.find((source) => source.dtype !== dtype);
  if (type !== undefined && wrong === undefined) return type;
  const { name, dtype: found } = wrong!;
  const required = type === undefined
    ? `supported: ${Object.keys(SOURCE_TYPES).join(", ")}`
    : `required: ${dtype}, as its neighbours`;
  throw new UnsupportedError(
    `Cannot use model ${checkpoint.path}: tensor ${JSON.stringify(name)} has dtype ${found}, ${required}`,
  );
}

/** Returns what reads a tensor, and what it gives. */
function readerOf(
  checkpoint: Checkpoint,
  { rows, cols, kind }: TensorSpec,
  places: readonly TensorPlace[],
): Pick<TensorJob, "source" | "sourceType" | "sourceRowBytes"> & { sourceFormat: WeightFormatName } {
  const [{ source: first, placement, turnedBlockRows: blockRows }] = places;
  // Only vectors are joined from several places, and those are never encoded.
  if (isEncoded(first)) {
    if (blockRows !== undefined) {
      const encoded = new EncodedRows(first, rows / blockRows * cols, blockRows, placement);
      const source = new TurnedEncoded(encoded, blockRows, cols);
      return { source, sourceFormat: "f32", sourceType: AIRK_F32, sourceRowBytes: cols * 4 };
    }
    const source = new EncodedRows(first, rows, cols, placement);
    return { source, sourceFormat: source.format, sourceType: AIRK_F32, sourceRowBytes: cols * 4 };
  }
  const type = sourceTypeOf(checkpoint, places.map(({ source }) => source as CheckpointTensor));
  const readers = places.map(({ source, placement }): RowReader => {
    const shape = kind === "vector"
      ? { cols: 1, rowsTogether: cols / places.length }
      : { cols: blockRows ?? cols, rowsTogether: 1 };
    const stored = new TensorRows(checkpoint, source as CheckpointTensor, { ...shape, elementBytes: type.bytes }, placement);
    return blockRows === undefined ? stored : new TurnedBlocks(stored, { blockRows, cols, elementBytes: type.bytes });
  });
  return {
    source: readers.length === 1 ? readers[0] : new JoinedVector(readers),
    sourceFormat: type.format,
    sourceType: type.id,
    sourceRowBytes: cols * type.bytes,
  };
}

function planTensor(
  checkpoint: Checkpoint,
  spec: TensorSpec,
  places: readonly TensorPlace[],
  prefix: string,
  compression: Compression,
  bound: ExtentBound,
): TensorJob {
  const { name, rows, cols, offset = 0, unitRows = false } = spec;
  const { source, sourceFormat, sourceType, sourceRowBytes } = readerOf(checkpoint, spec, places);
  const format = storedFormat(spec, compression, unitRows ? "f32" : sourceFormat);
  // What is kept is read in the extent's own size.
  const isKept = source instanceof EncodedRows && format === sourceFormat;
  const rowBytes = isKept ? 0 : unitRows ? cols * 4 : sourceRowBytes;
  const extentRows = cutIntoExtents(name, format, rows, cols, rowBytes, bound);
  return {
    name,
    relativeName: name.startsWith(prefix) ? name.slice(prefix.length) : name,
    rows,
    cols,
    format,
    source,
    offset,
    unitRows,
    sourceType,
    sourceRowBytes,
    extentRows,
    maxExtentBytes: bound(format, Math.max(...extentRows), cols),
  };
}

/**
 * Plans the quantization of a checkpoint.
 * @param encoded Its tensors whose values are encoded, by the names of the plain ones.
 * @throws {FormatError} for a tensor that is missing, has another shape, or is neither used whole nor known to be needless.
 * @throws {UnsupportedError} for a tensor of a type that cannot be quantized.
 */
export function planQuantization(
  checkpoint: Checkpoint,
  architecture: Architecture,
  compression: Compression,
  bound: ExtentBound,
  encoded: ReadonlyMap<string, EncodedTensor> = new Map(),
): QuantizePlan {
  const config = architecture.parseConfig(checkpoint.config);
  const declared = architecture.tensors(config);
  const places = placeTensors(checkpoint, [...declared.embedding, ...declared.layers.flat(), ...declared.head], encoded);
  const group = (file: string, specs: TensorSpec[], prefix: string): GroupJob => {
    const ordered = [...specs.filter((spec) => spec.kind === "vector"), ...specs.filter((spec) => spec.kind !== "vector")];
    const tensors = ordered.map((spec) => planTensor(checkpoint, spec, places.get(spec)!, prefix, compression, bound));
    let maxBytes = paddedBytes(1024 + 256 * tensors.reduce((sum, tensor) => sum + tensor.extentRows.length, 0));
    for (const { format, cols, extentRows } of tensors) {
      for (const rows of extentRows) maxBytes += paddedBytes(bound(format, rows, cols));
    }
    return {
      file,
      tensors,
      sourceBytes: tensors.reduce(
        (sum, tensor) => sum + tensor.extentRows.reduce((bytes, rows) => bytes + sourceBytes(tensor, rows), 0),
        0,
      ),
      maxBytes,
    };
  };
  const groups = [
    group("embedding.safetensors", declared.embedding, ""),
    ...declared.layers.map((specs, layer) =>
      group(`layer-${String(layer).padStart(4, "0")}.safetensors`, specs, declared.layerPrefix(layer))
    ),
    group("head.safetensors", declared.head, ""),
  ];
  const used = new Set(
    [...places.values()].flat().flatMap(({ source }) => isEncoded(source) ? source.parts.map(({ name }) => name) : [source.name]),
  );
  const ignoredTensors: QuantizePlan["ignoredTensors"] = [];
  for (const name of checkpoint.tensors.keys()) {
    if (used.has(name)) continue;
    const reason = architecture.ignoredTensorReason(name, config) ?? needlessTensorReason(checkpoint.config, name);
    if (reason === undefined) {
      throw new FormatError(
        `Cannot use model ${checkpoint.path}: tensor ${
          JSON.stringify(name)
        } is not one of a ${config.modelType} model of this config.json`,
      );
    }
    ignoredTensors.push({ name, reason });
  }
  return { groups, ignoredTensors };
}
