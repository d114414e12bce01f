/**
 * Says what each layer keeps of a sequence: keys and values, or states of fixed size.
 * @module
 */
import type { KvCacheShape, KvCacheType } from "../cache/kv_cache.ts";
import type { StateShapes } from "../cache/recurrent_states.ts";
import { recurrentStates } from "../layers/recurrent.ts";
import type { ModelConfig } from "../models/architecture.ts";

/** Returns each layer's place among those that keep keys and values; undefined for the others. */
export function kvLayers({ layers }: Pick<ModelConfig, "layers">): (number | undefined)[] {
  let count = 0;
  return layers.map(({ attention }) => recurrentStates(attention) ? undefined : count++);
}

/** Returns the shape of a model's KV cache. */
export function kvCacheShape(config: ModelConfig, type: KvCacheType): KvCacheShape {
  const { numKvHeads, headDim, sharedValueDim, layers } = config;
  return {
    numKvHeads,
    headDim,
    sharedValueDim,
    type,
    numLayers: layers.filter(({ attention }) => !recurrentStates(attention)).length,
  };
}

/** Returns the states that each layer keeps a sequence. */
export function stateShapes({ layers }: Pick<ModelConfig, "layers">): StateShapes {
  return layers.map(({ attention }) => recurrentStates(attention) ?? []);
}

/** Returns whether any layer keeps states. */
export function keepsStates({ layers }: Pick<ModelConfig, "layers">): boolean {
  return layers.some(({ attention }) => recurrentStates(attention));
}
