/**
 * What the configurations of families with routed experts have in common, read with transformers' names.
 * @module
 */
import type { Activation, MlpConfig, MoeConfig } from "../layers/model_config.ts";
import type { RouterConfig } from "../layers/router.ts";
import type { ModelConfig, TensorSource } from "./architecture.ts";
import type { ConfigReader } from "./config_reader.ts";
import { gatedMlp } from "./decoder_config.ts";

/**
 * Reads the number of experts of a layer and that of a token.
 * @param key The first's; `tokenKey` is the second's.
 * @throws {UnsupportedError}
 */
export function readExperts(
  config: ConfigReader,
  key: string,
  missing: { numExperts?: number; topK?: number },
  tokenKey = "num_experts_per_tok",
): Pick<RouterConfig, "numExperts" | "topK"> {
  const numExperts = config.integer(key, missing.numExperts);
  const topK = config.integer(tokenKey, missing.topK);
  if (topK > numExperts) throw config.refuse(tokenKey, `at most ${key} (${numExperts})`);
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
    const dense = layer.kind === "moe" ? [layer.shared, layer.beside].map((part) => part?.mlp.intermediateSize ?? 0) : [];
    return Math.max(most, layer.intermediateSize, ...dense);
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

/**
 * Reads which layers have experts from `mlp_layer_types`, without it from `first_k_dense_replace`.
 * @throws {UnsupportedError}
 */
export function readMlpLayers(config: ConfigReader, numLayers: number, missingDense: number): boolean[] {
  if (!config.has("mlp_layer_types")) {
    const dense = config.count("first_k_dense_replace", missingDense);
    return Array.from({ length: numLayers }, (_, layer) => layer >= dense);
  }
  const types = config.raw("mlp_layer_types");
  if (!Array.isArray(types) || types.length !== numLayers || types.some((type) => type !== "dense" && type !== "sparse")) {
    throw config.refuse("mlp_layer_types", `a list of ${numLayers} of dense, sparse`);
  }
  return types.map((type) => type === "sparse");
}

/**
 * Returns DeepSeek-V3's router: sigmoid scores, chosen with a correction and, with several groups, from the best of them alone.
 * @param missing Defaults of the family's configuration class.
 * @throws {UnsupportedError}
 */
export function correctedRouter(
  config: ConfigReader,
  experts: Pick<RouterConfig, "numExperts" | "topK">,
  missing: { groups: { count: number; kept: number }; scale: number; normalize?: boolean },
): RouterConfig {
  for (const [key, known] of [["scoring_func", "sigmoid"], ["topk_method", "noaux_tc"]]) {
    if (config.has(key) && config.raw(key) !== known) throw config.refuse(key, JSON.stringify(known));
  }
  return plainRouter(experts, {
    score: "sigmoid",
    normalize: config.boolean("norm_topk_prob", missing.normalize ?? true),
    normalizeEpsilon: 1e-20,
    scale: config.positive("routed_scaling_factor", missing.scale),
    groups: readGroups(config, experts, missing.groups, "top2"),
  });
}

/**
 * Reads a layer of experts that a corrected router chooses, beside shared ones where there are some.
 * @param keys Where the numbers of experts of a layer and of shared ones are.
 * @param missing Defaults of the family's configuration class.
 * @throws {UnsupportedError}
 */
export function correctedMoe(
  config: ConfigReader,
  activation: Activation,
  keys: { experts: string; shared: string },
  missing: { numExperts?: number; topK?: number; expertSize: number; sharedExperts: number; normalize?: boolean; scale: number },
): MoeConfig {
  const router = correctedRouter(config, readExperts(config, keys.experts, missing), {
    groups: { count: 1, kept: 1 },
    normalize: missing.normalize,
    scale: missing.scale,
  });
  const expertSize = config.integer("moe_intermediate_size", missing.expertSize);
  return plainMoe(router, activation, expertSize, {
    correctionBias: true,
    ...sharedExperts(expertSize, config.count(keys.shared, missing.sharedExperts), activation),
  });
}

/** Returns the part of a layer of experts that says which of them every token goes to: so many of one expert's size, as one. */
export function sharedExperts(expertSize: number, count: number, activation: Activation): Pick<MoeConfig, "shared"> {
  return count === 0 ? {} : { shared: { mlp: gatedMlp(expertSize * count, { activation }), gated: false } };
}

/** Reads `n_group` and `topk_group`; undefined where all groups are kept. @throws {UnsupportedError} */
export function readGroups(
  config: ConfigReader,
  { numExperts, topK }: Pick<RouterConfig, "numExperts" | "topK">,
  missing: { count: number; kept: number },
  score: "max" | "top2",
): RouterConfig["groups"] {
  const count = config.integer("n_group", missing.count), kept = config.integer("topk_group", missing.kept);
  if (numExperts % count !== 0) throw config.refuse("n_group", `a divisor of the ${numExperts} experts`);
  if (score === "top2" && numExperts / count < 2) throw config.refuse("n_group", "at most half the experts");
  if (kept > count || kept * numExperts / count < topK) {
    throw config.refuse("topk_group", `up to n_group (${count}), with at least num_experts_per_tok (${topK}) experts in them`);
  }
  return kept === count ? undefined : { count, kept, score };
}

/** Returns where a layer's tensor lies in checkpoints that name the shared expert in the plural. */
export function sharedExpertsSource(name: string): TensorSource | undefined {
  return name.startsWith("mlp.shared_expert.") ? { name: name.replace("shared_expert.", "shared_experts.") } : undefined;
}

const EXPERT_NAME = /^mlp\.experts\.(\d+)\.(gate|up|down)_proj\.weight$/;

/** Returns where an expert's matrix lies in the tensors that stack those of all; undefined for other tensors. */
export function stackedExpertSource(name: string, config: ModelConfig, layer: number): TensorSource | undefined {
  const expert = EXPERT_NAME.exec(name);
  if (!expert) return undefined;
  const index = Number(expert[1]);
  if (expert[2] === "down") return { name: "mlp.experts.down_proj", index };
  const firstRow = expert[2] === "gate" ? 0 : config.layers[layer].feedForward.intermediateSize;
  return { name: "mlp.experts.gate_up_proj", index, firstRow };
}

/** Returns why tensors of layers after the last are not needed. */
export function extraLayerReason(name: string, { numLayers }: ModelConfig): string | undefined {
  const layer = /^model\.layers\.(\d+)\./.exec(name);
  return layer && Number(layer[1]) >= numLayers ? "predicts tokens further ahead, which is not used" : undefined;
}
