/**
 * What the configurations of families with routed experts have in common, read with transformers' names.
 * @module
 */
import type { Activation, MlpConfig, MoeConfig } from "../layers/model_config.ts";
import type { RouterConfig } from "../layers/router.ts";
import type { ConfigReader } from "./config_reader.ts";

/** Reads the number of experts of a layer and that of a token. @throws {UnsupportedError} */
export function readExperts(
  config: ConfigReader,
  key: string,
  missing: { numExperts: number; topK: number },
): Pick<RouterConfig, "numExperts" | "topK"> {
  const numExperts = config.integer(key, missing.numExperts);
  const topK = config.integer("num_experts_per_tok", missing.topK);
  if (topK > numExperts) throw config.refuse("num_experts_per_tok", `at most ${key} (${numExperts})`);
  return { numExperts, topK };
}

/** Returns a router that takes the likeliest of a softmax over all experts; a family changes what differs. */
export function plainRouter(
  experts: Pick<RouterConfig, "numExperts" | "topK">,
  changes: Partial<RouterConfig> = {},
): RouterConfig {
  return { ...experts, score: "softmax", normalize: false, normalizeEpsilon: 0, scale: 1, scalesInput: false, ...changes };
}

/** Returns a layer of experts without biases; a family changes what differs. */
export function plainMoe(
  router: RouterConfig,
  activation: Activation,
  intermediateSize: number,
  changes: Partial<MoeConfig> = {},
): MoeConfig {
  return { kind: "moe", activation, intermediateSize, bias: false, router, routerBias: false, correctionBias: false, ...changes };
}

/** Returns the widest of a model's feed-forward layers, inside. */
export function widestIntermediate(layers: readonly (MlpConfig | MoeConfig)[]): number {
  return layers.reduce((most, layer) => {
    const shared = layer.kind === "moe" ? layer.shared?.mlp.intermediateSize ?? 0 : 0;
    return Math.max(most, layer.intermediateSize, shared);
  }, 1);
}

/** Reads which layers have experts from `mlp_only_layers` and `decoder_sparse_step`. @throws {UnsupportedError} */
export function readSparseLayers(config: ConfigReader, numLayers: number): boolean[] {
  const step = config.integer("decoder_sparse_step", 1);
  const dense = config.has("mlp_only_layers") ? config.raw("mlp_only_layers") : [];
  if (!Array.isArray(dense) || !dense.every((layer) => Number.isInteger(layer) && layer >= 0 && layer < numLayers)) {
    throw config.refuse("mlp_only_layers", `a list of layers from 0 to ${numLayers - 1}`);
  }
  return Array.from({ length: numLayers }, (_, layer) => !dense.includes(layer) && (layer + 1) % step === 0);
}
