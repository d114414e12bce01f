/**
 * Says how much memory a model needs of the host and of the device, as the planner counts it.
 * @module
 */
import { kvBytesPerToken, type KvCacheShape, PAGE_TOKENS, pagesPerSequence } from "../cache/kv_cache.ts";
import { recurrentStateBytes } from "../cache/recurrent_states.ts";
import type { Precision } from "../ffi/ops.ts";
import { arenaBytes } from "../ffi/device_arena.ts";
import type { KvDemand, PlanRequest } from "../memory/plan.ts";
import type { ModelConfig } from "../models/architecture.ts";
import { expertWorkspaceBytes } from "./expert_workspace.ts";
import { stateShapes } from "./layer_caches.ts";
import { cpuScratchBytesPerToken, cudaScratchBytes } from "./scratch.ts";
import { workspaceBytes, type WorkspaceShape } from "./workspace.ts";

/** Where the KV cache is: in the memory that the device computes from, or in the host's, whence each layer's part is copied in every pass. */
export type KvCacheLocation = "vram" | "ram";

/** What a plan must know of a device with memory of its own. */
export interface DeviceMemory {
  /** Bytes that can be had. */
  freeBytes: number;
}

/** The parts of a request that depend on the model and on where it is computed. */
export interface MemoryNeeds {
  request: Pick<
    PlanRequest,
    "vectorBytes" | "kv" | "stateBytes" | "activationBytesPerToken" | "logitsBytesPerRow" | "device"
  >;
  /** Returns the device memory that operations keep between their kernels; 0 where they use the library's own. */
  scratchBytes(passTokens: number): number;
}

/** Layers of a cache in host memory that are on the device at a time: one is computed on while the next is copied. */
export const KV_WINDOW_LAYERS = 2;

/**
 * Parts that an engine's arena is cut into, each aligned: scratch memory, workspace, KV cache, states, resident weights, slots, experts, and what those work in.
 */
const ARENA_PARTS = 8;

/** Returns the bytes of a workspace with what layers with routed experts take beside it; their fixed activations count as vectors. */
function workspaceWithExperts(config: ModelConfig, shape: WorkspaceShape): ReturnType<typeof workspaceBytes> {
  const workspace = workspaceBytes(config, shape), experts = expertWorkspaceBytes(config);
  return {
    ...workspace,
    arrays: {
      ...workspace.arrays,
      bytesPerToken: workspace.arrays.bytesPerToken + experts.arrays.bytesPerToken,
      fixedBytes: workspace.arrays.fixedBytes + experts.arrays.fixedBytes,
    },
    activationBytesPerToken: workspace.activationBytesPerToken + experts.activations.bytesPerToken,
    vectorBytes: workspace.vectorBytes + experts.activations.fixedBytes,
  };
}

/** Returns what a model needs where host memory is all there is. */
export function hostNeeds(config: ModelConfig, shape: WorkspaceShape, kv: readonly KvDemand[]): MemoryNeeds {
  const { arrays, activationBytesPerToken, vectorBytes, widestInput } = workspaceWithExperts(config, shape);
  return {
    request: {
      vectorBytes: vectorBytes + arrays.fixedBytes,
      kv,
      stateBytes: recurrentStateBytes(stateShapes(config), shape.maxSequences),
      activationBytesPerToken: activationBytesPerToken + cpuScratchBytesPerToken({ widestInput }) + arrays.bytesPerToken,
      logitsBytesPerRow: arrays.bytesPerLogitRow,
    },
    scratchBytes: () => 0,
  };
}

/** What a group of layers keeps. */
export interface GroupDemand extends KvDemand {
  layers: number;
}

/** Returns what layers keep, by group, in passes of so many tokens. */
export function groupDemands({ type, groups, layers }: KvCacheShape, contextPages: number, passTokens: number): GroupDemand[] {
  return groups.map((group, index) => {
    const count = layers.filter((of) => of === index).length;
    return {
      layers: count,
      bytesPerToken: count * kvBytesPerToken(type, group),
      mostTokens: group.view && pagesPerSequence(group, contextPages, passTokens) * PAGE_TOKENS,
    };
  });
}

/** Returns what is on the device of a cache in host memory: that many layers, each as large as the largest may be. */
function kvWindowDemand(groups: readonly GroupDemand[]): KvDemand {
  const layers = Math.min(KV_WINDOW_LAYERS, groups.reduce((sum, group) => sum + group.layers, 0));
  const mostTokens = Math.max(...groups.map(({ mostTokens = Infinity }) => mostTokens));
  return { bytesPerToken: layers * Math.max(...groups.map((group) => group.bytesPerToken / group.layers)), mostTokens };
}

/** What {@linkcode deviceNeeds} depends on beside the model. */
export interface DeviceNeedsOptions {
  device: DeviceMemory;
  /** Budget of device memory. */
  vramBytes: number | undefined;
  precision: Precision;
  /** What layers keep, by group, and where. */
  kvCache: { groups: readonly GroupDemand[]; location: KvCacheLocation };
  contextTokens: number;
}

/** Returns what a model needs on a device with memory of its own, and of the host for it. */
export function deviceNeeds(config: ModelConfig, shape: WorkspaceShape, options: DeviceNeedsOptions): MemoryNeeds {
  const { arrays, activationBytesPerToken, vectorBytes, widestInput } = workspaceWithExperts(config, shape);
  const { device, vramBytes, precision, kvCache, contextTokens } = options;
  const { numHeads, headDim } = config, { maxSequences } = shape;
  const scratch = cudaScratchBytes({ precision, widestInput, numHeads, headDim, maxSequences, contextTokens });
  const inVram = kvCache.location === "vram";
  return {
    request: {
      // Vectors pass through host memory when the engine opens.
      vectorBytes: vectorBytes + arrays.fixedBytes,
      kv: inVram ? [] : kvCache.groups,
      stateBytes: 0,
      activationBytesPerToken: arrays.bytesPerToken,
      logitsBytesPerRow: arrays.bytesPerLogitRow,
      device: {
        vramBytes,
        freeBytes: device.freeBytes,
        vectorBytes: vectorBytes + arrays.fixedBytes,
        scratchBytes: scratch.fixedBytes + ARENA_PARTS * arenaBytes(1),
        kv: inVram ? kvCache.groups : [kvWindowDemand(kvCache.groups)],
        stateBytes: recurrentStateBytes(stateShapes(config), maxSequences),
        activationBytesPerToken: activationBytesPerToken + scratch.bytesPerToken + arrays.bytesPerToken,
        logitsBytesPerRow: arrays.bytesPerLogitRow,
      },
    },
    scratchBytes: (passTokens) => scratch.fixedBytes + scratch.bytesPerToken * passTokens,
  };
}
