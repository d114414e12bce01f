/**
 * Decides what a quantization writes: which file holds which tensors, in which format, cut into which extents.
 * @module
 */
import type { Checkpoint } from "../checkpoint/checkpoint.ts";
import type { Dtype } from "../checkpoint/safetensors.ts";
import { JoinedVector, type RowReader, TensorRows } from "../checkpoint/tensor_rows.ts";
import { TurnedBlocks } from "../checkpoint/turned_blocks.ts";
import { FormatError, UnsupportedError } from "../errors.ts";
import { AIRK_BF16, AIRK_F16, AIRK_F32 } from "../ffi/abi.ts";
import type { Architecture, TensorKind, TensorSpec } from "../models/architecture.ts";
import { rowGranularity } from "./formats.ts";
import { type Compression, MAX_EXTENT_BYTES, paddedBytes, type WeightFormatName } from "./manifest.ts";
import { placeTensors, type TensorPlace } from "./tensor_places.ts";

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
  source: RowReader;
  /** Added to each element once it is stored; 0 but for vectors. */
  offset: number;
  /** Whether rows are scaled to unit length, in float32, before they are stored. */
  unitRows: boolean;
  /** Native id of the source's element type, and bytes of one row of it. */
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

/** Returns the largest number of bytes that an extent may need. */
export type ExtentBound = (format: WeightFormatName, rows: number, cols: number) => number;

/**
 * Returns the format a tensor is stored in. Embedding and LM head stay at 8 bits where linear layers go to 4: they are few bytes of a large
 * model and cost the most of its quality. Routers stay as they are: a near tie decided otherwise is another expert.
 */
function storedFormat(kind: TensorKind, compression: Compression, sourceFormat: WeightFormatName): WeightFormatName {
  if (kind === "vector") return "f32";
  if (compression === "none" || kind === "router") return sourceFormat;
  return kind === "linear" || kind === "expert" ? compression : "q8";
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
  const unit = most >= 64 ? 64 : granularity;
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

/** Returns the element type of a tensor's places. */
function sourceTypeOf(checkpoint: Checkpoint, places: readonly TensorPlace[]): NonNullable<(typeof SOURCE_TYPES)[Dtype]> {
  const [{ source: { dtype } }] = places;
  const type = SOURCE_TYPES[dtype];
  const wrong = type === undefined ? places[0] : places.find(({ source }) => source.dtype !== dtype);
  if (type !== undefined && wrong === undefined) return type;
  const { name, dtype: found } = wrong!.source;
  const required = type === undefined
    ? `supported: ${Object.keys(SOURCE_TYPES).join(", ")}`
    : `required: ${dtype}, as its neighbours`;
  throw new UnsupportedError(
    `Cannot use model ${checkpoint.path}: tensor ${JSON.stringify(name)} has dtype ${found}, ${required}`,
  );
}

function planTensor(
  checkpoint: Checkpoint,
  spec: TensorSpec,
  places: readonly TensorPlace[],
  prefix: string,
  compression: Compression,
  bound: ExtentBound,
): TensorJob {
  const { name, rows, cols, kind, offset = 0, unitRows = false } = spec;
  const type = sourceTypeOf(checkpoint, places);
  const blockRows = spec.source && "turnedBlockRows" in spec.source ? spec.source.turnedBlockRows : undefined;
  const readers = places.map(({ source, placement }): RowReader => {
    const shape = kind === "vector"
      ? { cols: 1, rowsTogether: cols / places.length }
      : { cols: blockRows ?? cols, rowsTogether: 1 };
    const stored = new TensorRows(checkpoint, source, { ...shape, elementBytes: type.bytes }, placement);
    return blockRows === undefined ? stored : new TurnedBlocks(stored, { blockRows, cols, elementBytes: type.bytes });
  });
  const format = storedFormat(kind, compression, unitRows ? "f32" : type.format);
  const sourceRowBytes = cols * type.bytes;
  const extentRows = cutIntoExtents(name, format, rows, cols, unitRows ? cols * 4 : sourceRowBytes, bound);
  return {
    name,
    relativeName: name.startsWith(prefix) ? name.slice(prefix.length) : name,
    rows,
    cols,
    format,
    source: readers.length === 1 ? readers[0] : new JoinedVector(readers),
    offset,
    unitRows,
    sourceType: type.id,
    sourceRowBytes,
    extentRows,
    maxExtentBytes: bound(format, Math.max(...extentRows), cols),
  };
}

/**
 * Plans the quantization of a checkpoint.
 * @throws {FormatError} for a tensor that is missing, has another shape, or is neither used whole nor known to be needless.
 * @throws {UnsupportedError} for a tensor of a type that cannot be quantized.
 */
export function planQuantization(
  checkpoint: Checkpoint,
  architecture: Architecture,
  compression: Compression,
  bound: ExtentBound,
): QuantizePlan {
  const config = architecture.parseConfig(checkpoint.config);
  const declared = architecture.tensors(config);
  const places = placeTensors(checkpoint, [...declared.embedding, ...declared.layers.flat(), ...declared.head]);
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
      sourceBytes: tensors.reduce((sum, { rows, sourceRowBytes }) => sum + rows * sourceRowBytes, 0),
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
  const used = new Set([...places.values()].flat().map(({ source }) => source.name));
  const ignoredTensors: QuantizePlan["ignoredTensors"] = [];
  for (const name of checkpoint.tensors.keys()) {
    if (used.has(name)) continue;
    const reason = architecture.ignoredTensorReason(name, config);
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
