/**
 * What a quantization achieved, worked out from the manifest: the same for a run that finished at once, resumed, or found all done.
 * @module
 */
import type { Compression, Manifest, TensorEntry, WeightFormatName } from "./manifest.ts";

/** Figures of a set of tensors. */
export interface QuantizeFigures {
  tensors: number;
  weights: number;
  /** Bytes of the extents without their padding. */
  bytes: number;
  bitsPerWeight: number;
  /** Weights kept apart, in percent. */
  outliersPercent: number;
  /** 10 log10 of 1 / (relative squared error, averaged over the weights); null where nothing was lost. */
  snrDb: number | null;
}

/** Figures of all tensors of one name in their layer. */
export interface KindFigures extends QuantizeFigures {
  /** Such as `self_attn.q_proj.weight` or `model.embed_tokens.weight`. */
  kind: string;
  /** Usually one; several where the source's types differ by layer and are kept. */
  formats: WeightFormatName[];
}

/** Returns a tensor's name within its layer: what all layers have in common. */
export function tensorKind(name: string): string {
  return name.replace(/^.*\.\d+\./, "");
}

function figures(tensors: readonly TensorEntry[]): QuantizeFigures {
  let weights = 0, bytes = 0, outliers = 0, relativeError = 0;
  for (const { rows, cols, extents, snrDb } of tensors) {
    weights += rows * cols;
    if (snrDb !== null) relativeError += rows * cols * 10 ** (-snrDb / 10);
    for (const extent of extents) {
      bytes += extent.bytes;
      outliers += extent.outliers;
    }
  }
  return {
    tensors: tensors.length,
    weights,
    bytes,
    bitsPerWeight: weights === 0 ? 0 : bytes * 8 / weights,
    outliersPercent: weights === 0 ? 0 : 100 * outliers / weights,
    snrDb: relativeError === 0 ? null : 10 * Math.log10(weights / relativeError),
  };
}

/** Returns the figures of all tensors, and of each kind in the order in which kinds appear. */
export function manifestFigures(manifest: Manifest): { total: QuantizeFigures; kinds: KindFigures[] } {
  const byKind = new Map<string, TensorEntry[]>();
  for (const tensor of manifest.tensors) {
    const kind = tensorKind(tensor.name);
    byKind.set(kind, [...byKind.get(kind) ?? [], tensor]);
  }
  const kinds = [...byKind].map(([kind, tensors]) => ({
    kind,
    formats: [...new Set(tensors.map(({ format }) => format))],
    ...figures(tensors),
  }));
  return { total: figures(manifest.tensors), kinds };
}

/** Result of `quantizeCheckpoint`. */
export interface QuantizeReport {
  /** Absolute path of the shard directory. */
  out: string;
  compression: Compression;
  total: QuantizeFigures;
  kinds: KindFigures[];
  /** Bytes of the shard files on disk. */
  fileBytes: number;
  seconds: number;
  ignoredTensors: { name: string; reason: string }[];
  /** Files that an earlier, interrupted run had finished. */
  resumedFiles: number;
  /** True where the output was whole already and nothing had to be written. */
  alreadyComplete: boolean;
  /** Source files removed because all of their tensors were verified in the output. */
  deletedFiles: string[];
}
