/**
 * What a model family declares: how its config is read, which tensors it has, and how one block computes.
 * @module
 */
import type { BlankFilling, ModelConfig } from "../layers/model_config.ts";
import type { Pass } from "../layers/pass.ts";

export type { BlankFilling, ModelConfig };

/**
 * The part a tensor plays, which decides how it is stored and when it is read: a `linear` matrix in its turn, an `expert`'s when a token is routed to
 * it; a `router` or the embeddings of `positions`, which take little and decide much, once and in the checkpoint's own precision.
 */
export type TensorKind = "embedding" | "positions" | "linear" | "expert" | "router" | "head" | "vector";

/** Returns whether a tensor is a matrix that stays in memory in the checkpoint's own precision. */
export function isResidentMatrix({ kind }: Pick<TensorSpec, "kind">): boolean {
  return kind === "router" || kind === "positions";
}

/**
 * The part of a checkpoint's tensor that a stored tensor is made from: where a checkpoint keeps several matrices in one, or stacks, turns or
 * names them otherwise. Row r of the matrix is row `firstRow + floor(r / runRows) * rowStep + r % runRows` of the tensor. A vector counts as a
 * column: its elements are rows.
 */
export interface TensorSource {
  name: string;
  /** Shape that the tensor has to have to count as this place, where another place has its name too. */
  shape?: readonly number[];
  /** Index into the first dimension of a tensor [n, rows, cols]. */
  index?: number;
  /** 0 without it. */
  firstRow?: number;
  /** Rows from the start of one run to the next; without it, all rows follow each other. */
  rowStep?: number;
  /** Rows of a run; 1 without it. */
  runRows?: number;
  /** Whether the tensor is stored as [cols, rows]. */
  transposed?: boolean;
  /**
   * Rows of a block, of a matrix whose blocks lie turned one below the other: all of the above then describes a matrix with rows of this many elements, of
   * which each `cols` are a block's columns.
   */
  turnedBlockRows?: number;
  /** Columns of the tensor where it is a matrix whose rows, one after the other, are a vector. */
  vectorCols?: number;
  /** Rows of each of these matrices where it is a stack of them. */
  vectorRows?: number;
}

/** One tensor of a model as it is stored, declared before anything is loaded. */
export interface TensorSpec {
  /** The checkpoint's name for it, or where that differs between families, Llama's. */
  name: string;
  /** [rows, cols] of a matrix, [1, n] of a vector. */
  rows: number;
  cols: number;
  kind: TensorKind;
  /** Of an expert's matrix: the expert's number in its layer. */
  expert?: number;
  /** Where the checkpoint has it, a vector in several places one after the other with equal shares; without it, under `name`, whole. */
  source?: TensorSource | readonly TensorSource[];
  /** Where it is in checkpoints that have no tensor of the name that `source` says: in the first of these places that they have. */
  otherSources?: readonly (TensorSource | readonly TensorSource[])[];
  /** Added to each element of a vector. */
  offset?: number;
  /** Whether each row is scaled to unit length. */
  unitRows?: boolean;
  /** Whether a matrix of kind `linear` is stored with 8 bits at least: few bytes on which much depends. */
  delicate?: boolean;
}

/** All tensors of a model by the file they are stored in, matrices in their order of use. */
export interface ModelTensors {
  /** What comes before the first layer: embeddings of tokens and, in some models, of positions, and a norm. */
  embedding: TensorSpec[];
  layers: TensorSpec[][];
  /** Final norm and, unless tied, the LM head. */
  head: TensorSpec[];
  /** Name of the tensor that gives token embeddings. */
  embeddingName: string;
  /** Name of the tensor that gives embeddings of positions, where the model has it. */
  positionsName: string;
  /** Name of the tensor that gives logits; the embedding's where the two are tied. */
  headName: string;
  /** Name of the vector that is added to them, of a model that has one. */
  headBiasName: string;
  /** Prefix of layer i's tensor names, cut off in its shard file: `model.layers.3.`. */
  layerPrefix(layer: number): string;
}

/** One model family. */
export interface Architecture {
  /** Values of `model_type` it serves. */
  modelTypes: string[];
  /** Returns whether it serves a config.json of one of them, where several models share a name; without it, it does. */
  serves?(config: Record<string, unknown>): boolean;
  /**
   * Parses a config.json.
   * @throws {UnsupportedError} for values this family does not know; nothing is ignored silently.
   */
  parseConfig(config: Record<string, unknown>): ModelConfig;
  tensors(config: ModelConfig): ModelTensors;
  /** Returns why a tensor of the checkpoint is not needed, or undefined where it is not known at all. */
  ignoredTensorReason(name: string, config: ModelConfig): string | undefined;
  /** Why a checkpoint of it that is quantized here is of no use to transformers; undefined where it is. */
  refusesExport?: string;
  /**
   * Whether transformers, once a model is quantized, has linear layers where checkpoints have stacks of experts (quantizers/base.py). They are named
   * as the tensors' other places are.
   */
  linearExperts?: boolean;
  /** Enqueues decoder block `layer` on the pass's hidden state, taking its weights in their order of use. */
  block(pass: Pass, layer: number): Promise<void>;
}
