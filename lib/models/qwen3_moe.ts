/**
 * Qwen3 MoE: 30B-A3B, 235B-A22B, Coder 480B-A35B. Follows transformers' `modeling_qwen3_moe.py`.
 * @module
 */
import type { ModelConfig } from "./architecture.ts";
import { ConfigReader } from "./config_reader.ts";
import { decoderArchitecture } from "./decoder.ts";
import { decoderConfig, gatedMlp, plainAttention, preNormLayer, readActivation, readShape, rmsNorm } from "./decoder_config.ts";
import { plainMoe, plainRouter, readExperts, readSparseLayers, widestIntermediate } from "./moe_config.ts";
import { parseRope } from "./rope_config.ts";
import { refuseUnimplemented } from "./unimplemented_keys.ts";

function parseConfig(values: Record<string, unknown>): ModelConfig {
  const config = new ConfigReader(values, "config.json");
  // sliding_window counts with use_sliding_window alone, which is refused.
  refuseUnimplemented(config, ["num_experts", "num_local_experts", "sliding_window"]);
  const shape = readShape(config, { contextTokens: 32768 });
  const eps = config.positive("rms_norm_eps", 1e-6);
  const activation = readActivation(config, "hidden_act", "silu");
  const bias = config.boolean("attention_bias", false);
  const attention = plainAttention(shape.headDim, {
    qkvBias: bias,
    outputBias: bias,
    queryNorm: { ...rmsNorm("self_attn.q_norm", eps), scope: "head" },
    keyNorm: { ...rmsNorm("self_attn.k_norm", eps), scope: "head" },
  });
  const dense = gatedMlp(shape.intermediateSize, { activation });
  const key = config.has("num_local_experts") ? "num_local_experts" : "num_experts";
  const router = plainRouter(readExperts(config, key, { numExperts: 128, topK: 8 }), {
    normalize: config.boolean("norm_topk_prob", false),
  });
  const moe = plainMoe(router, activation, config.integer("moe_intermediate_size", 768));
  const feedForwards = readSparseLayers(config, shape.numLayers).map((sparse) => sparse ? moe : dense);
  return decoderConfig("qwen3_moe", { ...shape, intermediateSize: widestIntermediate(feedForwards) }, {
    ropes: [parseRope(config, { ...shape, theta: 10_000 })],
    layers: feedForwards.map((feedForward) => preNormLayer(attention, feedForward, eps)),
    finalNorm: rmsNorm("model.norm", eps),
    tieWordEmbeddings: config.boolean("tie_word_embeddings", false),
  });
}

/** The Qwen3 MoE family. */
export const QWEN3_MOE = decoderArchitecture({ modelTypes: ["qwen3_moe"], parseConfig });
