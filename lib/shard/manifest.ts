/**
 * A shard directory's manifest, `airkern.json`: its types and constants.
 *
 * A shard directory holds a manifest, the tokenizer's files, and one safetensors-compatible file a group of tensors:
 * `embedding.safetensors`, `layer-0000.safetensors`, ..., `head.safetensors`. In each file the header is padded so that data starts
 * on a multiple of 4096 bytes; the data are extents in the order of use, each a U8 tensor padded to a multiple of 4096, so that every
 * extent can be read directly from disk into aligned memory. Names in a file's header are relative to its group
 * (`self_attn.q_proj.weight#0`), so that files of equal layers can be hard links of one.
 * @module
 */
import type { PackedFormatName } from "./packed_formats.ts";

/** Name of the manifest in a shard directory. */
export const MANIFEST_FILE = "airkern.json";

/** Name and version of this program, as manifests have it. */
export const GENERATOR = "airkern 0.1.0";

/** Extents start on and are padded to this many bytes: the unit of direct I/O. */
export const EXTENT_ALIGNMENT = 4096;

/**
 * Largest extent in bytes. Small, so that the few extents between the disk and the computation stay in the processor's cache: direct reads
 * into 8 MiB used over and over are up to half faster than into 32 MiB (scripts/bench/stream.ts), and decoding from memory is not slower.
 */
export const MAX_EXTENT_BYTES: number = 4 * 1024 * 1024;

/** Rounds bytes up to {@linkcode EXTENT_ALIGNMENT}. */
export function paddedBytes(bytes: number): number {
  return Math.ceil(bytes / EXTENT_ALIGNMENT) * EXTENT_ALIGNMENT;
}

/** Formats that tensors are converted to. */
export type PlainFormatName = "f32" | "f16" | "bf16" | "q8" | "nf4" | "q4o";

/** How a stored tensor's weights are encoded; cuda/airkern.h has each layout. */
export type WeightFormatName = PlainFormatName | PackedFormatName;

/** What `quantize --format` takes: the format of the linear layers, or `none` to keep the source's types. */
export type Compression = "q4o" | "nf4" | "q8" | "none";

/** A run of whole rows of one tensor. */
export interface ExtentEntry {
  /** Position in its file in bytes, a multiple of {@linkcode EXTENT_ALIGNMENT}. */
  offset: number;
  /** Bytes of content; the file holds it padded with zeros to the alignment. */
  bytes: number;
  rows: number;
  /** Weights kept apart (q4o), else 0. */
  outliers: number;
  /** SHA-256, in hex, of the content with its padding. */
  sha256: string;
}

/** One stored tensor. Vectors (norms, biases) are f32 with shape [1, n]. */
export interface TensorEntry {
  /** Name in the original checkpoint. */
  name: string;
  /** Index into {@linkcode Manifest.files}. */
  file: number;
  format: WeightFormatName;
  rows: number;
  cols: number;
  /** In row order; their rows sum to `rows`. */
  extents: ExtentEntry[];
  /** 10 log10(squared weights / squared errors), null where nothing was lost. */
  snrDb: number | null;
}

/** One file of a shard directory. */
export interface ShardFile {
  name: string;
  bytes: number;
  /** Bytes before the first extent: the 8-byte length, the JSON header and its padding. */
  headerBytes: number;
  /** SHA-256, in hex, of those bytes; checked whenever the directory is opened. */
  headerSha256: string;
}

/** Everything about a shard directory but the weights themselves. */
export interface Manifest {
  format: "airkern-shards";
  formatVersion: 1;
  /** Name and version of the program that wrote it. */
  generator: string;
  /** The checkpoint's config.json, unchanged. */
  config: Record<string, unknown>;
  /** The checkpoint's generation_config.json, unchanged, or null. */
  generationConfig: Record<string, unknown> | null;
  /** Files copied beside the manifest. */
  tokenizerFiles: { name: string; bytes: number; sha256: string }[];
  /** Where the weights came from. `revision` identifies their content. */
  source: { name: string; revision: string };
  compression: Compression;
  files: ShardFile[];
  tensors: TensorEntry[];
  /** Tensors of the checkpoint that the model does not use, and why. */
  ignoredTensors: { name: string; reason: string }[];
}
