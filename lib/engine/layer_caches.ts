/**
 * Says what each layer keeps of a sequence: keys and values, or states of fixed size.
 * @module
 */
import type { KvCacheShape, KvCacheType, KvGroup } from "../cache/kv_cache.ts";
import type { StateShapes } from "../cache/recurrent_states.ts";
import { type View, viewKey } from "../cache/view.ts";
import { headShape } from "../layers/head_shape.ts";
import type { AttentionConfig } from "../layers/model_config.ts";
import { recurrentStates } from "../layers/recurrent.ts";
import type { ModelConfig } from "../models/architecture.ts";

/** Returns what a layer sees, or undefined where that is all before. */
export function viewOf({ windowTokens, chunkTokens }: AttentionConfig): View | undefined {
  if (windowTokens !== undefined) return { kind: "window", tokens: windowTokens };
  return chunkTokens === undefined ? undefined : { kind: "chunk", tokens: chunkTokens };
}

/** Returns the views of all layers, each once. */
export function viewsOf({ layers }: Pick<ModelConfig, "layers">): View[] {
  const views = layers.flatMap(({ attention }) => viewOf(attention) ?? []);
  return [...new Map(views.map((view) => [viewKey(view), view])).values()];
}

/** Returns each layer's place among those that keep keys and values; undefined for the others. */
export function kvLayers({ layers }: Pick<ModelConfig, "layers">): (number | undefined)[] {
  let count = 0;
  return layers.map(({ attention }) => recurrentStates(attention) ? undefined : count++);
}

/** Returns the shape of a model's KV cache: layers in groups of those that keep alike. */
export function kvCacheShape(config: ModelConfig, type: KvCacheType): KvCacheShape {
  const groups = new Map<string, { index: number; group: KvGroup }>(), layers: number[] = [];
  for (const { attention } of config.layers) {
    if (recurrentStates(attention)) continue;
    const view = viewOf(attention), heads = headShape(config, attention);
    const group = { ...heads, sharesKeys: config.sharedValueDim !== undefined, view };
    const key = JSON.stringify([heads.numKvHeads, heads.headDim, heads.valueDim, view ? viewKey(view) : ""]);
    const { index } = groups.get(key) ?? { index: groups.size };
    groups.set(key, { index, group });
    layers.push(index);
  }
  return { type, groups: [...groups.values()].map(({ group }) => group), layers };
}

/** Returns the states that each layer keeps a sequence. */
export function stateShapes({ layers }: Pick<ModelConfig, "layers">): StateShapes {
  return layers.map(({ attention }) => recurrentStates(attention) ?? []);
}

/** Returns whether any layer keeps states. */
export function keepsStates({ layers }: Pick<ModelConfig, "layers">): boolean {
  return layers.some(({ attention }) => recurrentStates(attention));
}
