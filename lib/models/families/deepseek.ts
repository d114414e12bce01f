/**
 * DeepSeek-V2 and V2-Lite, V3, R1, V3.2, Kimi K2 and the language model of Kimi K2.5: attention to latents, shared experts, routing limited to groups. Follows transformers'
 * `modeling_deepseek_v2.py`, `modeling_deepseek_v3.py` and `modeling_deepseek_v32.py`.
 * @module
 */
import type { AttentionConfig, LatentConfig, RopeConfig } from "../../layers/model_config.ts";
import type { RouterConfig } from "../../layers/router.ts";
import type { ModelConfig, TensorSource } from "../architecture.ts";
import type { ConfigReader } from "../config_reader.ts";
import {
  decoderConfig,
  type DecoderShape,
  gatedMlp,
  plainAttention,
  preNormLayer,
  readActivation,
  readShape,
  rmsNorm,
} from "../decoder_config.ts";
import { type LanguageFamily, languageModel, NESTED, wholeModel, WRAPPED } from "../language_model.ts";
import {
  correctedRouter,
  extraLayerReason,
  plainMoe,
  plainRouter,
  readExperts,
  readGroups,
  readMlpLayers,
  sharedExpertsSource,
  widestIntermediate,
} from "../moe_config.ts";
import { parseRope } from "../rope_config.ts";
import { refuseUnimplemented } from "../unimplemented_keys.ts";

/** The norms of latents have transformers' default, whatever `rms_norm_eps` is. */
const LATENT_NORM_EPS = 1e-6;

/** What differs between the versions. */
export interface DeepseekVersion {
  /** Defaults of their configuration classes. */
  missing: {
    contextTokens: number;
    rank?: number;
    queryRank: number;
    plainDim: number;
    valueDim: number;
    eps?: number;
    numExperts: number;
    topK: number;
    sharedExperts: number;
    denseLayers: number;
    expertSize: number;
  };
  router(config: ConfigReader, experts: Pick<RouterConfig, "numExperts" | "topK">): RouterConfig;
  /** Whether `rope_interleave` says which elements pair. */
  choosesPairs: boolean;
  /** Reads the rotation, and what queries are multiplied by, where that differs; `headDim` counts all elements of a head. */
  readRopes?(
    config: ConfigReader,
    shape: { contextTokens: number; headDim: number; rotaryDim: number; queryDim: number },
  ): RopeConfig[];
  /** Whether an indexer chooses, of longer sequences, the tokens that are attended to. */
  choosesTokens?: boolean;
}

/** Returns what scores are multiplied by: with YaRN, longer contexts need sharper attention. */
function scoreScale(config: ConfigReader, headDim: number, { scaling }: RopeConfig): number {
  const scale = 1 / Math.sqrt(headDim);
  const parameters = config.object("rope_parameters") ?? config.object("rope_scaling");
  if (scaling.type === "default" || !parameters?.has("mscale_all_dim") || parameters.raw("mscale_all_dim") === 0) return scale;
  const factor = parameters.positive("factor");
  const sharpness = factor <= 1 ? 1 : 0.1 * parameters.positive("mscale_all_dim") * Math.log(factor) + 1;
  return scale * sharpness * sharpness;
}

function readAttention(
  config: ConfigReader,
  version: DeepseekVersion,
  rope: RopeConfig,
  rotaryDim: number,
): AttentionConfig & { latent: LatentConfig } {
  const { missing } = version, plainDim = config.integer("qk_nope_head_dim", missing.plainDim);
  const latent: LatentConfig = {
    rank: config.integer("kv_lora_rank", missing.rank ?? 512),
    plainDim,
    rotaryDim,
    valueDim: config.integer("v_head_dim", missing.valueDim),
    rope: { index: 0, interleaved: version.choosesPairs ? config.boolean("rope_interleave", true) : true },
    eps: LATENT_NORM_EPS,
    bias: config.boolean("attention_bias", false),
  };
  // null stands for queries that are projected at once, a key that is not there for the default.
  if (config.raw("q_lora_rank") !== null) latent.queryRank = config.integer("q_lora_rank", missing.queryRank);
  return { ...plainAttention(plainDim + rotaryDim, { scale: scoreScale(config, plainDim + rotaryDim, rope) }), latent };
}

/** Returns how many tokens a sequence may have so that an indexer would choose all of them. */
function readContextLimit(config: ConfigReader): ModelConfig["contextLimit"] {
  const types = config.has("layer_types") ? config.raw("layer_types") : [];
  if (!Array.isArray(types) || types.some((type) => type !== "indexed_attention")) {
    throw config.refuse("layer_types", "a list of indexed_attention");
  }
  const tokens = config.integer("index_topk", 2048);
  return { tokens, reason: `the model attends to a choice of ${tokens} tokens in longer sequences, which is not implemented` };
}

function parseDeepseek(config: ConfigReader, modelType: string, version: DeepseekVersion): ModelConfig {
  refuseUnimplemented(config, [
    "n_routed_experts",
    "attention_bias",
    "mlp_bias",
    ...version.choosesTokens ? ["layer_types"] : [],
  ]);
  const { missing } = version;
  if (config.has("moe_layer_freq") && config.raw("moe_layer_freq") !== 1) throw config.refuse("moe_layer_freq", "1");
  if (config.boolean("mlp_bias", false)) throw config.refuse("mlp_bias", "false");
  const rotaryDim = config.integer("qk_rope_head_dim", 64);
  const shape = readShape(config, {
    contextTokens: missing.contextTokens,
    headDim: version.readRopes ? rotaryDim + config.integer("qk_nope_head_dim", missing.plainDim) : rotaryDim,
  });
  const headDim = rotaryDim + config.integer("qk_nope_head_dim", missing.plainDim);
  if (shape.headDim !== (version.readRopes ? headDim : rotaryDim)) {
    throw config.refuse("head_dim", version.readRopes ? `${headDim}, as both parts have` : `qk_rope_head_dim (${rotaryDim})`);
  }
  const { contextTokens } = shape, queryDim = rotaryDim + config.integer("kv_lora_rank", missing.rank ?? 512);
  const [rope, ...furtherRopes] = version.readRopes?.(config, { contextTokens, headDim, rotaryDim, queryDim }) ??
    [parseRope(config, { contextTokens, headDim: rotaryDim, theta: 10_000 })];
  const attention = readAttention(config, version, rope, rotaryDim);
  if (furtherRopes.length > 0) attention.queryScaling = { index: 1 };
  const eps = config.positive("rms_norm_eps", missing.eps ?? 1e-6);
  const activation = readActivation(config, "hidden_act", "silu");
  const experts = readExperts(config, "n_routed_experts", missing);
  const expertSize = config.integer("moe_intermediate_size", missing.expertSize);
  const router = version.router(config, experts);
  const moe = plainMoe(router, activation, expertSize, {
    correctionBias: router.score === "sigmoid",
    shared: {
      mlp: gatedMlp(expertSize * config.integer("n_shared_experts", missing.sharedExperts), { activation }),
      gated: false,
    },
  });
  const dense = gatedMlp(shape.intermediateSize, { activation });
  const feedForwards = readMlpLayers(config, shape.numLayers, missing.denseLayers).map((sparse) => sparse ? moe : dense);
  const { rank } = attention.latent, contextLimit = version.choosesTokens ? readContextLimit(config) : undefined;
  const latentShape: DecoderShape = {
    ...shape,
    headDim: rank + rotaryDim,
    numKvHeads: 1,
    intermediateSize: widestIntermediate(feedForwards),
    contextTokens: Math.min(shape.contextTokens, contextLimit?.tokens ?? Infinity),
  };
  return decoderConfig(modelType, latentShape, {
    ropes: [rope, ...furtherRopes],
    sharedValueDim: rank,
    ...(contextLimit && { contextLimit }),
    layers: feedForwards.map((feedForward) => preNormLayer(attention, feedForward, eps)),
    finalNorm: rmsNorm("model.norm", eps),
    tieWordEmbeddings: config.boolean("tie_word_embeddings", false),
  });
}

/** Returns DeepSeek-V2's router: the likeliest of a softmax, in larger models from the groups with the likeliest experts alone. */
function softmaxRouter(config: ConfigReader, experts: Pick<RouterConfig, "numExperts" | "topK">): RouterConfig {
  if (config.has("scoring_func") && config.raw("scoring_func") !== "softmax") throw config.refuse("scoring_func", `"softmax"`);
  if (config.boolean("norm_topk_prob", false)) throw config.refuse("norm_topk_prob", "false");
  const method = config.has("topk_method") ? config.raw("topk_method") : "greedy";
  if (method !== "greedy" && method !== "group_limited_greedy") {
    throw config.refuse("topk_method", `"greedy" or "group_limited_greedy"`);
  }
  return plainRouter(experts, {
    scale: config.positive("routed_scaling_factor", 1),
    groups: method === "greedy" ? undefined : readGroups(config, experts, { count: 1, kept: 1 }, "max"),
  });
}

/** Returns where DeepSeek keeps a layer's tensor. */
export function deepseekSource(name: string, config: ModelConfig, layer: number): TensorSource | undefined {
  const { latent } = config.layers[layer].attention;
  if (latent) {
    // One tensor has, for each head, the rows that make its keys and those that make its values.
    const stored = "self_attn.kv_b_proj.weight", { plainDim, valueDim, rank } = latent, rowStep = plainDim + valueDim;
    if (name === "self_attn.k_b_proj.weight") return { name: stored, runRows: plainDim, rowStep, turnedBlockRows: rank };
    if (name === "self_attn.v_b_proj.weight") return { name: stored, firstRow: plainDim, runRows: valueDim, rowStep };
  }
  return sharedExpertsSource(name);
}

/** Returns a version's family. */
export function deepseek(version: DeepseekVersion): LanguageFamily {
  return {
    parse: (config, modelType) => parseDeepseek(config, modelType, version),
    layerSource: deepseekSource,
    ignoredTensorReason: (name, config) =>
      version.choosesTokens && name.includes(".self_attn.indexer.")
        ? "chooses tokens of longer sequences, which are refused"
        : extraLayerReason(name, config),
  };
}

/** DeepSeek-V2. */
export const DEEPSEEK_V2 = languageModel(
  ["deepseek_v2"],
  deepseek({
    missing: {
      ...{ contextTokens: 2048, queryRank: 1536, plainDim: 128, valueDim: 128 },
      ...{ numExperts: 64, topK: 6, sharedExperts: 2, denseLayers: 0, expertSize: 1407 },
    },
    router: softmaxRouter,
    choosesPairs: false,
  }),
);

const V3_VERSION: DeepseekVersion = {
  missing: {
    ...{ contextTokens: 4096, queryRank: 1536, plainDim: 128, valueDim: 128 },
    ...{ numExperts: 256, topK: 8, sharedExperts: 1, denseLayers: 3, expertSize: 2048 },
  },
  router: (config, experts) => correctedRouter(config, experts, { groups: { count: 8, kept: 4 }, scale: 2.5 }),
  choosesPairs: true,
};

const V3 = deepseek(V3_VERSION);

/** DeepSeek-V3 and R1, and Kimi K2: the same in other sizes. */
export const DEEPSEEK_V3 = languageModel(["deepseek_v3", "kimi_k2"], V3);

/** DeepSeek-V3.2, in sequences of which its indexer chooses every token. */
export const DEEPSEEK_V32 = languageModel(
  ["deepseek_v32"],
  deepseek({
    ...V3_VERSION,
    missing: { ...V3_VERSION.missing, contextTokens: 163_840 },
    choosesPairs: false,
    choosesTokens: true,
  }),
);

/** Kimi K2.5 and 2.6, Kimi K2 that also sees images. */
export const KIMI_K25 = wholeModel({
  modelTypes: ["kimi_k25"],
  languages: { deepseek_v3: V3, kimi_k2: V3 },
  missing: "deepseek_v3",
  names: [WRAPPED, NESTED],
  needless: /^(model\.)?(vision_tower|mm_projector)\./,
});
