/**
 * Qwen1.5-MoE and Qwen2-57B-A14B. Follows transformers' `modeling_qwen2_moe.py`.
 * @module
 */
import type { ModelConfig } from "../architecture.ts";
import { ConfigReader } from "../config_reader.ts";
import { decoderArchitecture } from "../decoder.ts";
import { decoderConfig, gatedMlp, plainAttention, preNormLayer, readActivation, readShape, rmsNorm } from "../decoder_config.ts";
import { plainMoe, plainRouter, readExperts, readSparseLayers, widestIntermediate } from "../moe_config.ts";
import { parseRope } from "../rope_config.ts";
import { refuseUnimplemented } from "../unimplemented_keys.ts";

function parseConfig(values: Record<string, unknown>): ModelConfig {
  const config = new ConfigReader(values, "config.json");
  refuseUnimplemented(config, ["num_experts", "qkv_bias", "sliding_window", "layer_types"]);
  const shape = readShape(config, { contextTokens: 32768 });
  const eps = config.positive("rms_norm_eps", 1e-6);
  // Both say the same, the newer one in layers; sliding_window counts with use_sliding_window alone, which is refused.
  const types = config.has("layer_types") ? config.raw("layer_types") : [];
  if (!Array.isArray(types) || types.some((type) => type !== "full_attention")) {
    throw config.refuse("layer_types", `"full_attention" for every layer`);
  }
  const activation = readActivation(config, "hidden_act", "silu");
  const attention = plainAttention(shape.headDim, { qkvBias: config.boolean("qkv_bias", true) });
  const dense = gatedMlp(shape.intermediateSize, { activation });
  const router = plainRouter(readExperts(config, "num_experts", { numExperts: 60, topK: 4 }), {
    normalize: config.boolean("norm_topk_prob", false),
  });
  const moe = plainMoe(router, activation, config.integer("moe_intermediate_size", 1408), {
    shared: { mlp: gatedMlp(config.integer("shared_expert_intermediate_size", 5632), { activation }), gated: true },
  });
  const feedForwards = readSparseLayers(config, shape.numLayers).map((sparse) => sparse ? moe : dense);
  return decoderConfig("qwen2_moe", { ...shape, intermediateSize: widestIntermediate(feedForwards) }, {
    ropes: [parseRope(config, { ...shape, theta: 10_000 })],
    layers: feedForwards.map((feedForward) => preNormLayer(attention, feedForward, eps)),
    finalNorm: rmsNorm("model.norm", eps),
    tieWordEmbeddings: config.boolean("tie_word_embeddings", false),
  });
}

/** The Qwen2 MoE family. */
export const QWEN2_MOE = decoderArchitecture({ modelTypes: ["qwen2_moe"], parseConfig });
