/**
 * Trinity Nano, Mini and Large: windows with positions in three of four layers, the others see all and have no positions; gated attention, norms before
 * and after each sublayer, sigmoid routing with corrected choice. Follows transformers' `modeling_afmoe.py`.
 * @module
 */
import type { LayerConfig } from "../../layers/model_config.ts";
import type { ModelConfig, TensorSource } from "../architecture.ts";
import { ConfigReader } from "../config_reader.ts";
import { decoderArchitecture } from "../decoder.ts";
import {
  decoderConfig,
  gatedMlp,
  plainAttention,
  preNormLayer,
  readActivation,
  readShape,
  readSlidingLayers,
  readWindow,
  rmsNorm,
} from "../decoder_config.ts";
import { plainMoe, plainRouter, readExperts, sharedExperts, sharedExpertsSource, widestIntermediate } from "../moe_config.ts";
import { parseRope } from "../rope_config.ts";
import { refuseUnimplemented } from "../unimplemented_keys.ts";

/** Keys of releases with the one value that transformers computes. */
const FIXED: Readonly<Record<string, unknown>> = {
  score_func: "sigmoid",
  route_norm: true,
  n_group: 1,
  topk_group: 1,
  num_expert_groups: 1,
  num_limited_groups: 1,
};

function parseConfig(values: Record<string, unknown>): ModelConfig {
  const config = new ConfigReader(values, "config.json");
  refuseUnimplemented(config, ["num_experts", "attention_bias", "sliding_window", "layer_types"]);
  for (const [key, value] of Object.entries(FIXED)) {
    if (config.has(key) && config.raw(key) !== value) throw config.refuse(key, JSON.stringify(value));
  }
  const shape = readShape(config, { contextTokens: 16_384, headDim: 128 });
  const eps = config.positive("rms_norm_eps", 1e-5);
  const activation = readActivation(config, "hidden_act", "silu");
  if (config.boolean("attention_bias", false)) throw config.refuse("attention_bias", "false");
  const attention = plainAttention(shape.headDim, {
    queryNorm: { ...rmsNorm("self_attn.q_norm", eps), scope: "head" },
    keyNorm: { ...rmsNorm("self_attn.k_norm", eps), scope: "head" },
    gated: true,
  });
  const windowed = { ...attention, windowTokens: readWindow(config, 1024) }, whole = { ...attention, rope: undefined };
  const interval = config.integer("global_attn_every_n_layers", 4);
  const router = plainRouter(readExperts(config, "num_experts", { numExperts: 64, topK: 6 }), {
    ...{ score: "sigmoid", normalize: true, normalizeEpsilon: 1e-20 },
    scale: config.positive("route_scale", 1),
  });
  const expertSize = config.integer("moe_intermediate_size", 1408);
  const moe = plainMoe(router, activation, expertSize, {
    correctionBias: true,
    ...sharedExperts(expertSize, config.count("num_shared_experts", 2), activation),
  });
  const dense = gatedMlp(shape.intermediateSize, { activation }), denseLayers = config.count("num_dense_layers", 1);
  const norms: LayerConfig["norms"] = {
    attentionInput: rmsNorm("input_layernorm", eps),
    attentionOutput: rmsNorm("post_attention_layernorm", eps),
    feedForwardInput: rmsNorm("pre_mlp_layernorm", eps),
    feedForwardOutput: rmsNorm("post_mlp_layernorm", eps),
  };
  const sliding = readSlidingLayers(config, shape.numLayers, (layer) => (layer + 1) % interval !== 0);
  return decoderConfig("afmoe", { ...shape, intermediateSize: widestIntermediate([moe, dense]) }, {
    ropes: [parseRope(config, { ...shape, theta: 10_000 })],
    layers: sliding.map((slides, layer) =>
      preNormLayer(slides ? windowed : whole, layer < denseLayers ? dense : moe, eps, { norms })
    ),
    finalNorm: rmsNorm("model.norm", eps),
    tieWordEmbeddings: config.boolean("tie_word_embeddings", false),
    embeddingMultiplier: config.boolean("mup_enabled", false) ? Math.sqrt(shape.hiddenSize) : 1,
  });
}

function layerSource(name: string): TensorSource | undefined {
  if (name === "mlp.gate.weight") return { name: "mlp.router.gate.weight" };
  return name === "mlp.gate.e_score_correction_bias" ? { name: "mlp.expert_bias" } : sharedExpertsSource(name);
}

/** Arcee's Trinity. */
export const AFMOE = decoderArchitecture({ modelTypes: ["afmoe"], parseConfig, layerSource });
