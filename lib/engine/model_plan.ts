/**
 * Plans how a model runs within a memory budget, without loading anything.
 * @module
 */
import { kvBytesPerToken, type KvCacheType, PAGE_TOKENS } from "../cache/kv_cache.ts";
import { FormatError, UsageError } from "../errors.ts";
import type { ContextOptions } from "../ffi/context.ts";
import type { Precision } from "../ffi/ops.ts";
import { baselineBytes, machineBytes } from "../memory/budget.ts";
import type { Plan, TapeExtent } from "../memory/plan.ts";
import { plan } from "../memory/planner.ts";
import type { Architecture, ModelConfig, ModelTensors } from "../models/architecture.ts";
import { architectureFor } from "../models/registry.ts";
import { EXTENT_ALIGNMENT } from "../shard/manifest.ts";
import type { ShardDirectory } from "../shard/reader.ts";
import { embeddingRowBytes } from "./embedding_rows.ts";
import { workspaceBytes, type WorkspaceShape } from "./workspace.ts";

/** How a model is to be run. */
export interface EngineOptions {
  /** Budget of the whole process; without it, what the machine has free. */
  ramBytes?: number;
  /** Tokens a sequence may hold. Without it, those the model was made for, 4096 at most, and fewer where the budget is small. */
  contextTokens?: number;
  /** Sequences open at a time; 1 without it. */
  maxSequences?: number;
  /** Most tokens of one pass, which the plan may lower; 512 without it. */
  passTokens?: number;
  /** Most rows of logits of one pass; one a sequence without it. */
  logitRows?: number;
  /** Worker threads; one a core without it. */
  threads?: number;
  /** Best instruction set to use. */
  isa?: ContextOptions["isa"];
  /** How matrix products may round activations; `exact` without it. */
  precision?: Precision;
  /** Element type of the KV cache; `f16` without it. */
  kvCacheType?: KvCacheType;
  /** Told while the engine opens. */
  onProgress?: (progress: { phase: "load"; doneBytes: number; totalBytes: number }) => void;
  /** Stops opening. */
  signal?: AbortSignal;
}

const DEFAULT_CONTEXT_TOKENS = 4096;
/** Most tokens of one pass where a caller names no number. */
export const DEFAULT_PASS_TOKENS = 512;

/** A model and the plan to run it by. */
export interface ModelPlan {
  architecture: Architecture;
  config: ModelConfig;
  tensors: ModelTensors;
  /** Weights of a pass in their order of use, the LM head last. */
  tape: readonly TapeExtent[];
  plan: Plan;
  workspace: WorkspaceShape;
  logitRows: number;
  maxSequences: number;
  /** Pages of the KV cache. */
  kvCachePages: number;
  kvCacheType: KvCacheType;
  precision: Precision;
}

function positiveInteger(name: string, value: number | undefined, missing: number): number {
  if (value === undefined) return missing;
  if (!Number.isSafeInteger(value) || value < 1) {
    throw new UsageError(`Cannot use ${name} ${value}: required is a positive integer`);
  }
  return value;
}

function oneOf<T extends string>(name: string, value: T | undefined, known: readonly [T, ...T[]]): T {
  if (value === undefined) return known[0];
  if (!known.includes(value)) throw new UsageError(`Cannot use ${name} ${JSON.stringify(value)}: known are ${known.join(", ")}`);
  return value;
}

/** Returns the longest context a model can have: its own, unless its rotary embeddings reach further, dynamic ones as far as asked. */
export function longestContextTokens({ ropes, contextTokens }: ModelConfig): number {
  // Where layers have different ones, max_position_embeddings counts the stretched.
  if (ropes.length !== 1) return contextTokens;
  const { scaling } = ropes[0];
  if (scaling.type === "dynamic") return Infinity;
  if (scaling.type === "yarn") return Math.max(contextTokens, Math.floor(scaling.originalContextTokens * scaling.factor));
  return scaling.type === "linear" ? contextTokens * scaling.factor : contextTokens;
}

function checkContextTokens(config: ModelConfig, options: EngineOptions): number {
  const asked = positiveInteger("contextTokens", options.contextTokens, Math.min(config.contextTokens, DEFAULT_CONTEXT_TOKENS));
  if (asked > longestContextTokens(config)) {
    throw new UsageError(`Cannot use contextTokens ${asked}: the model was made for ${longestContextTokens(config)}`);
  }
  return asked;
}

/** Checks that the directory has each tensor that the architecture declares, in its shape. */
function checkTensors(shards: ShardDirectory, tensors: ModelTensors): void {
  for (const spec of [...tensors.embedding, ...tensors.layers.flat(), ...tensors.head]) {
    const entry = shards.tensor(spec.name);
    if (entry.rows !== spec.rows || entry.cols !== spec.cols) {
      throw new FormatError(
        `Cannot use tensor ${spec.name}: its shape is ${entry.rows} x ${entry.cols}, required ${spec.rows} x ${spec.cols}`,
      );
    }
    if (spec.kind === "vector" && entry.format !== "f32") {
      throw new FormatError(`Cannot use vector ${spec.name}: it is stored as ${entry.format}, required f32`);
    }
  }
}

/** Returns the weights of a pass in their order of use. */
function tapeOf(shards: ShardDirectory, tensors: ModelTensors): TapeExtent[] {
  const matrices = tensors.layers.flat().filter((spec) => spec.kind === "linear").map((spec) => spec.name);
  return [...matrices, tensors.headName].flatMap((name) => {
    const tensor = shards.tensorIndex(name);
    return shards.manifest.tensors[tensor].extents.map(({ bytes }, extent) => ({
      tensor,
      extent,
      paddedBytes: Math.ceil(bytes / EXTENT_ALIGNMENT) * EXTENT_ALIGNMENT,
    }));
  });
}

/**
 * Returns the plan of a model in a shard directory. Nothing is loaded.
 *
 * @throws {UnsupportedError} for a model that no architecture serves, {FormatError} where tensors are missing or of a wrong shape,
 * {UsageError} for an option that means nothing, {BudgetError} where the budget cannot hold the minimum.
 */
export function planModel(shards: ShardDirectory, options: EngineOptions = {}): ModelPlan {
  const architecture = architectureFor(shards.manifest.config);
  const config = architecture.parseConfig(shards.manifest.config);
  const tensors = architecture.tensors(config);
  checkTensors(shards, tensors);

  const precision = oneOf("precision", options.precision, ["exact", "fast"]);
  const kvCacheType = oneOf("kvCacheType", options.kvCacheType, ["f16", "f32"]);
  if (options.ramBytes !== undefined) positiveInteger("ramBytes", options.ramBytes, 0);
  const askedContextTokens = checkContextTokens(config, options);
  const contextPages = Math.ceil(askedContextTokens / PAGE_TOKENS);
  const maxSequences = positiveInteger("maxSequences", options.maxSequences, 1);
  const askedPassTokens = positiveInteger("passTokens", options.passTokens, DEFAULT_PASS_TOKENS);
  const askedLogitRows = positiveInteger("logitRows", options.logitRows, maxSequences);
  const shape: WorkspaceShape = {
    passTokens: askedPassTokens,
    logitRows: askedLogitRows,
    maxSequences,
    pageTableEntries: contextPages * maxSequences,
    embeddingRowBytes: embeddingRowBytes(shards.tensor(tensors.embeddingName)),
    vectors: new Map(
      [...tensors.layers.flat(), ...tensors.head].filter((spec) => spec.kind === "vector").map((spec) => [spec.name, spec.cols]),
    ),
  };
  const workspace = workspaceBytes(config, shape);
  const tape = tapeOf(shards, tensors);
  const bytesPerToken = kvBytesPerToken({ ...config, type: kvCacheType });
  const planned = plan({
    ramBytes: options.ramBytes,
    machineBytes: machineBytes(),
    baselineBytes: baselineBytes(),
    tape,
    vectorBytes: workspace.fixedBytes,
    kvBytesPerToken: bytesPerToken,
    contextTokens: contextPages * PAGE_TOKENS,
    maxSequences,
    contextIsFlexible: options.contextTokens === undefined,
    activationBytesPerToken: workspace.bytesPerToken,
    logitsBytesPerRow: workspace.bytesPerLogitRow,
    logitRows: askedLogitRows,
    passTokens: askedPassTokens,
  });
  // The planner counts tokens, the cache has whole pages: what it lowered is rounded down, never up.
  const pagesPerSequence = Math.floor(planned.contextTokens / PAGE_TOKENS);
  const kvCachePages = pagesPerSequence * maxSequences;
  const kvCacheBytes = kvCachePages * PAGE_TOKENS * bytesPerToken;
  const logitRows = Math.min(askedLogitRows, planned.passTokens);
  return {
    architecture,
    config,
    tensors,
    tape,
    plan: {
      ...planned,
      contextTokens: Math.min(askedContextTokens, pagesPerSequence * PAGE_TOKENS),
      kvCacheBytes,
      totalBytes: planned.totalBytes - planned.kvCacheBytes + kvCacheBytes,
    },
    workspace: { ...shape, passTokens: planned.passTokens, logitRows, pageTableEntries: kvCachePages },
    logitRows,
    maxSequences,
    kvCachePages,
    kvCacheType,
    precision,
  };
}
