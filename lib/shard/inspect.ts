/**
 * Describes a model on disk without loading it: what the `inspect` command prints.
 * @module
 */
import { openCheckpoint } from "../checkpoint/checkpoint.ts";
import { DTYPE_BITS } from "../checkpoint/safetensors.ts";
import type { WeightSupply } from "../checkpoint/weight_supply.ts";
import type { Compression, WeightFormatName } from "./manifest.ts";
import { openShards } from "./reader.ts";
import { type KindFigures, manifestFigures, type QuantizeFigures } from "./report.ts";

/** What a shard directory holds. */
export interface ShardInspection {
  kind: "shards";
  path: string;
  generator: string;
  source: { name: string; revision: string };
  compression: Compression;
  config: Record<string, unknown>;
  generationConfig: Record<string, unknown> | null;
  files: { name: string; bytes: number }[];
  tensors: {
    name: string;
    file: string;
    format: WeightFormatName;
    rows: number;
    cols: number;
    bytes: number;
    bitsPerWeight: number;
    outliers: number;
    snrDb: number | null;
    extents: number;
  }[];
  ignoredTensors: { name: string; reason: string }[];
  total: QuantizeFigures;
  kinds: KindFigures[];
  /** Bytes of the shard files on disk, headers and padding included. */
  fileBytes: number;
}

/** What a checkpoint holds. */
export interface CheckpointInspection {
  kind: "checkpoint";
  path: string;
  source: { name: string; revision: string };
  config: Record<string, unknown>;
  generationConfig: Record<string, unknown> | null;
  files: { name: string; bytes: number }[];
  tensors: { name: string; file: string; dtype: string; shape: number[]; bytes: number; bitsPerWeight: number }[];
  total: { tensors: number; weights: number; bytes: number; bitsPerWeight: number };
  fileBytes: number;
}

/**
 * Describes a shard directory.
 * @throws {FormatError} where it is missing or damaged.
 */
export async function inspectShards(path: string): Promise<ShardInspection> {
  const shards = await openShards(path);
  const { generator, source, compression, config, generationConfig, files, tensors, ignoredTensors } = shards.manifest;
  return {
    kind: "shards",
    path: shards.path,
    generator,
    source,
    compression,
    config,
    generationConfig,
    files: files.map(({ name, bytes }) => ({ name, bytes })),
    tensors: tensors.map(({ name, file, format, rows, cols, extents, snrDb }) => {
      const bytes = extents.reduce((sum, extent) => sum + extent.bytes, 0);
      return {
        name,
        file: files[file].name,
        format,
        rows,
        cols,
        bytes,
        bitsPerWeight: bytes * 8 / (rows * cols),
        outliers: extents.reduce((sum, extent) => sum + extent.outliers, 0),
        snrDb,
        extents: extents.length,
      };
    }),
    ignoredTensors,
    ...manifestFigures(shards.manifest),
    fileBytes: shards.fileBytes,
  };
}

/**
 * Describes a checkpoint, by its headers alone where its weights are supplied.
 * @throws {FormatError} where it is missing or damaged.
 */
export async function inspectCheckpoint(path: string, supply?: WeightSupply): Promise<CheckpointInspection> {
  using checkpoint = await openCheckpoint(path, supply);
  const { files, name, revision, config, generationConfig } = checkpoint;
  const tensors = [...checkpoint.tensors.values()].map(({ name, file, dtype, shape, bytes }) => ({
    name,
    file: files[file].name,
    dtype,
    shape,
    bytes,
    bitsPerWeight: DTYPE_BITS[dtype],
  }));
  const bytes = tensors.reduce((sum, tensor) => sum + tensor.bytes, 0);
  const weights = tensors.reduce((sum, { shape }) => sum + shape.reduce((product, n) => product * n, 1), 0);
  return {
    kind: "checkpoint",
    path: checkpoint.path,
    source: { name, revision },
    config,
    generationConfig,
    files: files.map(({ name, fileBytes }) => ({ name, bytes: fileBytes })),
    tensors,
    total: { tensors: tensors.length, weights, bytes, bitsPerWeight: weights === 0 ? 0 : bytes * 8 / weights },
    fileBytes: files.reduce((sum, file) => sum + file.fileBytes, 0),
  };
}
