/**
 * Plans how a model runs within a memory budget, without loading anything.
 * @module
 */
import { KV_CACHE_TYPES, type KvCacheType, PAGE_TOKENS, pagesPerSequence } from "../cache/kv_cache.ts";
import { FormatError, UnsupportedError, UsageError } from "../errors.ts";
import type { ContextOptions } from "../ffi/context.ts";
import type { DeviceChoice } from "../ffi/device.ts";
import type { Precision } from "../ffi/ops.ts";
import { baselineBytes, machineBytes } from "../memory/budget.ts";
import type { ExpertTable, KvDemand, Plan, PlanRequest, TapeExtent } from "../memory/plan.ts";
import { planWithExperts } from "../memory/expert_planner.ts";
import { kvCacheBytes, plan } from "../memory/planner.ts";
import { limitResident } from "../memory/resident_limit.ts";
import { type Architecture, isResidentMatrix, type ModelConfig, type ModelTensors } from "../models/architecture.ts";
import { architectureFor } from "../models/registry.ts";
import { EXTENT_ALIGNMENT } from "../shard/manifest.ts";
import type { ShardDirectory } from "../shard/reader.ts";
import { embeddingRowBytes } from "./embedding_rows.ts";
import { expertTableOf } from "./expert_table.ts";
import { kvCacheShape } from "./layer_caches.ts";
import { type DeviceMemory, deviceNeeds, groupDemands, hostNeeds, type KvCacheLocation } from "./memory_needs.ts";
import { layerWeightsPerToken } from "./token_products.ts";
import type { WorkspaceShape } from "./workspace.ts";

/** How a model is to be run. */
export interface EngineOptions {
  /** Where to compute: `auto` without it. */
  device?: DeviceChoice;
  /** Budget of the whole process in host memory; without it, what the machine has free. */
  ramBytes?: number;
  /** Budget of device memory, of a device that has its own; without it, what the device has free. */
  vramBytes?: number;
  /** Most bytes of weights to keep in memory; without it, as many as fit. */
  residentBytes?: number;
  /** Tokens a sequence may hold. Without it, those the model was made for, 4096 at most, and fewer where the budget is small. */
  contextTokens?: number;
  /** Sequences open at a time; 1 without it. */
  maxSequences?: number;
  /**
   * Most tokens of one pass, which the plan may lower; 512 without it. Of a model that reads a prompt as a whole it is the longest prompt, which the plan
   * keeps to; its context without it.
   */
  passTokens?: number;
  /** Most rows of logits of one pass; one a sequence without it. */
  logitRows?: number;
  /** Worker threads; one a core without it. */
  threads?: number;
  /** Best instruction set to use. */
  isa?: ContextOptions["isa"];
  /** How matrix products, and on a GPU attention to prompts, may round activations; `exact` without it. */
  precision?: Precision;
  /** Element type of the KV cache; `f16` without it. `q8` takes half the memory of `f16` and rounds keys and values to 8 bits. */
  kvCacheType?: KvCacheType;
  /** Most memory that routed experts may take; what the budget leaves without it. */
  expertCacheBytes?: number;
  /** Where a device with memory of its own has the KV cache; `vram` without it. */
  kvCacheLocation?: KvCacheLocation;
  /** Told where something else is done than was asked for. */
  onNotice?: (message: string) => void;
  /** Told while the engine opens. */
  onProgress?: (progress: { phase: "load"; doneBytes: number; totalBytes: number }) => void;
  /** Stops opening. */
  signal?: AbortSignal;
}

const DEFAULT_CONTEXT_TOKENS = 4096;
export { KV_CACHE_TYPES, type KvCacheType };

/** Most tokens of one pass where a caller names no number. */
const DEFAULT_PASS_TOKENS = 512;

/** Returns the most tokens of one pass that are of use for prompts of so many tokens. */
export function usefulPassTokens({ blankFilling }: ModelConfig, promptTokens: number): number {
  return blankFilling ? promptTokens : Math.min(promptTokens, DEFAULT_PASS_TOKENS);
}

/** A model and the plan to run it by. */
export interface ModelPlan {
  architecture: Architecture;
  config: ModelConfig;
  tensors: ModelTensors;
  /** Weights of a pass in their order of use, the LM head last. */
  tape: readonly TapeExtent[];
  /** The routed experts, if there are any. */
  expertTable: ExpertTable | undefined;
  plan: Plan;
  workspace: WorkspaceShape;
  logitRows: number;
  maxSequences: number;
  /** Pages of the KV cache, of each group of layers. */
  kvCachePages: readonly number[];
  kvCacheType: KvCacheType;
  kvCacheLocation: KvCacheLocation;
  /** Multiplications and additions that the weights' products take for a token. */
  flopsPerToken: number;
  /** Device memory for what operations keep between their kernels; 0 where the device computes from host memory. */
  scratchBytes: number;
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
export function longestContextTokens({ ropes, contextTokens, contextLimit }: ModelConfig): number {
  if (contextLimit) return Math.min(contextTokens, contextLimit.tokens);
  // Where layers have different ones, max_position_embeddings counts the stretched.
  if (ropes.length !== 1) return contextTokens;
  const { scaling } = ropes[0];
  if (scaling.type === "dynamic") return Infinity;
  if (scaling.type === "yarn") return Math.max(contextTokens, Math.floor(scaling.originalContextTokens * scaling.factor));
  return scaling.type === "linear" ? contextTokens * scaling.factor : contextTokens;
}

function checkContextTokens(config: ModelConfig, options: EngineOptions): number {
  const asked = positiveInteger("contextTokens", options.contextTokens, Math.min(config.contextTokens, DEFAULT_CONTEXT_TOKENS));
  const { contextLimit } = config;
  if (contextLimit && asked > contextLimit.tokens) {
    throw new UnsupportedError(
      `Cannot use contextTokens ${asked}: ${contextLimit.reason}, required at most ${contextLimit.tokens}`,
    );
  }
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
    // Only of these is a matrix the same as its extents one after the other.
    if (isResidentMatrix(spec) && !["f32", "f16", "bf16"].includes(entry.format)) {
      throw new FormatError(`Cannot use ${spec.kind} ${spec.name}: it is stored as ${entry.format}, required f32, f16 or bf16`);
    }
  }
}

/** Returns what stays in memory whatever the budget, norms, biases, routers and embeddings of positions, with the 4-byte words that each takes. */
function residentWords(shards: ShardDirectory, tensors: ModelTensors): Map<string, number> {
  const resident = [...tensors.embedding, ...tensors.layers.flat(), ...tensors.head]
    .filter((spec) => spec.kind === "vector" || isResidentMatrix(spec));
  return new Map(
    resident.map(({ name }) => {
      const bytes = shards.tensor(name).extents.reduce((sum, extent) => sum + extent.bytes, 0);
      return [name, Math.ceil(bytes / 4)];
    }),
  );
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
 * Returns the plan of a model in a shard directory, for a device with memory of its own where one is given. Nothing is loaded.
 *
 * @throws {UnsupportedError} for a model that no architecture serves, {FormatError} where tensors are missing or of a wrong shape,
 * {UsageError} for an option that means nothing, {BudgetError} where a budget cannot hold the minimum.
 */
export function planModel(shards: ShardDirectory, options: EngineOptions = {}, device?: DeviceMemory): ModelPlan {
  const architecture = architectureFor(shards.manifest.config);
  const config = architecture.parseConfig(shards.manifest.config);
  const tensors = architecture.tensors(config);
  checkTensors(shards, tensors);

  const precision = oneOf("precision", options.precision, ["exact", "fast"]);
  if (options.expertCacheBytes !== undefined) positiveInteger("expertCacheBytes", options.expertCacheBytes, 0);
  const kvCacheType = oneOf("kvCacheType", options.kvCacheType, KV_CACHE_TYPES);
  for (const name of ["ramBytes", "vramBytes"] as const) {
    if (options[name] !== undefined) positiveInteger(name, options[name], 0);
  }
  if (options.residentBytes !== undefined && !(options.residentBytes >= 0)) {
    throw new UsageError(`Cannot use residentBytes ${options.residentBytes}: required is a number of bytes`);
  }
  checkDeviceOptions(options, device !== undefined);
  const kvCacheLocation = device ? oneOf("kvCacheLocation", options.kvCacheLocation, ["vram", "ram"]) : "ram";
  const askedContextTokens = checkContextTokens(config, options);
  const contextPages = Math.ceil(askedContextTokens / PAGE_TOKENS);
  const maxSequences = positiveInteger("maxSequences", options.maxSequences, 1);
  const askedPassTokens = positiveInteger(
    "passTokens",
    options.passTokens,
    config.blankFilling ? askedContextTokens : DEFAULT_PASS_TOKENS,
  );
  const askedLogitRows = positiveInteger("logitRows", options.logitRows, maxSequences);
  const shape: WorkspaceShape = {
    passTokens: askedPassTokens,
    logitRows: askedLogitRows,
    maxSequences,
    pageTableEntries: contextPages * maxSequences,
    embeddingRowBytes: embeddingRowBytes(shards.tensor(tensors.embeddingName)),
    vectors: residentWords(shards, tensors),
  };
  const tape = tapeOf(shards, tensors), expertTable = expertTableOf(shards, config, tensors);
  const cacheShape = kvCacheShape(config, kvCacheType);
  // A smaller pass than asked for leaves fewer tokens to keep beside a window; counting those asked for keeps the plan independent of that.
  const groups = groupDemands(cacheShape, contextPages, askedPassTokens);
  const kvCache = { groups, location: kvCacheLocation };
  const needs = device
    ? deviceNeeds(config, shape, {
      ...{ device, vramBytes: options.vramBytes, precision, kvCache, contextTokens: contextPages * PAGE_TOKENS },
    })
    : hostNeeds(config, shape, groups);
  const request: PlanRequest = {
    ramBytes: options.ramBytes,
    machineBytes: machineBytes(),
    baselineBytes: baselineBytes(),
    tape,
    contextTokens: contextPages * PAGE_TOKENS,
    maxSequences,
    contextIsFlexible: options.contextTokens === undefined,
    logitRows: askedLogitRows,
    passTokens: askedPassTokens,
    passIsWhole: config.blankFilling !== undefined,
    ...needs.request,
  };
  const planned = expertTable ? planWithExperts(request, expertTable, options.expertCacheBytes) : plan(request);
  const limited = limitResident(planned, tape, options.residentBytes ?? Infinity);
  const { contextTokens, ...sizes } = wholePages(limited, request);
  const plannedPages = contextTokens / PAGE_TOKENS;
  const logitRows = Math.min(askedLogitRows, planned.passTokens);
  return {
    architecture,
    config,
    tensors,
    tape,
    expertTable,
    plan: { ...limited, ...sizes, contextTokens: Math.min(askedContextTokens, contextTokens) },
    workspace: { ...shape, passTokens: planned.passTokens, logitRows, pageTableEntries: plannedPages * maxSequences },
    logitRows,
    maxSequences,
    kvCachePages: cacheShape.groups.map((group) => maxSequences * pagesPerSequence(group, plannedPages, askedPassTokens)),
    kvCacheType,
    kvCacheLocation,
    flopsPerToken: flopsPerToken(config, tensors),
    scratchBytes: needs.scratchBytes(planned.passTokens),
    precision,
  };
}

/** Returns the multiplications and additions of a token's matrix products. */
function flopsPerToken(config: ModelConfig, tensors: ModelTensors): number {
  const { headName, embedding, head } = tensors;
  const logits = [...embedding, ...head].filter((spec) => spec.name === headName);
  return 2 * (layerWeightsPerToken(config, tensors) + logits.reduce((sum, { rows, cols }) => sum + rows * cols, 0));
}

/** Refuses what means nothing on the device, by name. */
function checkDeviceOptions(options: EngineOptions, hasOwnMemory: boolean): void {
  const refuse = (name: string, why: string): never => {
    throw new UsageError(`Cannot use ${name}: the device ${why}`);
  };
  if (hasOwnMemory) {
    if (options.residentBytes !== undefined) {
      refuse(`residentBytes ${options.residentBytes}`, "has memory of its own; use vramBytes");
    }
    return;
  }
  const why = "computes from the host's memory and has none of its own";
  if (options.vramBytes !== undefined) refuse(`a budget of ${options.vramBytes} bytes of device memory`, why);
  if (options.kvCacheLocation === "vram") refuse("kvCacheLocation vram", why);
}

/** Rounds a plan's KV cache to whole pages: what the planner lowered is rounded down, never up. */
function wholePages(
  planned: Plan,
  { kv, device, maxSequences }: PlanRequest,
): Pick<Plan, "kvCacheBytes" | "totalBytes" | "device" | "contextTokens"> {
  const contextTokens = Math.floor(planned.contextTokens / PAGE_TOKENS) * PAGE_TOKENS;
  const round = (part: { kvCacheBytes: number; totalBytes: number }, demands: readonly KvDemand[]) => {
    const bytes = kvCacheBytes(demands, contextTokens, maxSequences);
    return { kvCacheBytes: bytes, totalBytes: part.totalBytes - part.kvCacheBytes + bytes };
  };
  return {
    ...round(planned, kv),
    ...(planned.device ? { device: { ...planned.device, ...round(planned.device, device!.kv) } } : {}),
    contextTokens,
  };
}
