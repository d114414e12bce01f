/**
 * MiniMax-M2, M2.1 and M2.5: sigmoid routing with corrected choice, norms over all query and key heads together, half of a head rotated. Follows
 * transformers' `modeling_minimax_m2.py`.
 * @module
 */
import type { ModelConfig, TensorSource } from "../architecture.ts";
import { ConfigReader } from "../config_reader.ts";
import { decoderArchitecture } from "../decoder.ts";
import { decoderConfig, plainAttention, preNormLayer, readActivation, readShape, rmsNorm } from "../decoder_config.ts";
import { mixtralExpertSource } from "./mixtral.ts";
import { extraLayerReason, plainMoe, plainRouter, readExperts } from "../moe_config.ts";
import { parseRope } from "../rope_config.ts";
import { refuseUnimplemented } from "../unimplemented_keys.ts";

/** Keys of releases with the one value that transformers computes. */
const FIXED: Readonly<Record<string, unknown>> = {
  use_qk_norm: true,
  qk_norm_type: "per_layer",
  use_routing_bias: true,
  scoring_func: "sigmoid",
  shared_intermediate_size: 0,
  layernorm_full_attention_beta: 1,
  layernorm_linear_attention_beta: 1,
  layernorm_mlp_beta: 1,
};

function parseConfig(values: Record<string, unknown>): ModelConfig {
  const config = new ConfigReader(values, "config.json");
  refuseUnimplemented(config, ["num_local_experts", "use_qk_norm"]);
  for (const [key, value] of Object.entries(FIXED)) {
    if (config.has(key) && config.raw(key) !== value) throw config.refuse(key, JSON.stringify(value));
  }
  const attentionTypes = config.has("attn_type_list") ? config.raw("attn_type_list") : [];
  if (!Array.isArray(attentionTypes) || attentionTypes.some((type) => type !== 1)) {
    throw config.refuse("attn_type_list", "a list of 1, for softmax");
  }
  const shape = readShape(config, { contextTokens: 196_608, numKvHeads: 8, headDim: 128 });
  const eps = config.positive("rms_norm_eps", 1e-6);
  const attention = plainAttention(shape.headDim, {
    queryNorm: { ...rmsNorm("self_attn.q_norm", eps), scope: "whole" },
    keyNorm: { ...rmsNorm("self_attn.k_norm", eps), scope: "whole" },
  });
  const router = plainRouter(readExperts(config, "num_local_experts", { numExperts: 256, topK: 8 }), {
    score: "sigmoid",
    normalize: true,
  });
  const moe = plainMoe(router, readActivation(config, "hidden_act", "silu"), shape.intermediateSize, { correctionBias: true });
  const partialRotaryFactor = config.integer("rotary_dim", shape.headDim) / shape.headDim;
  return decoderConfig("minimax_m2", shape, {
    ropes: [parseRope(config, { ...shape, theta: 5e6, partialRotaryFactor })],
    layers: Array(shape.numLayers).fill(preNormLayer(attention, moe, eps)),
    finalNorm: rmsNorm("model.norm", eps),
    tieWordEmbeddings: config.boolean("tie_word_embeddings", false),
  });
}

function layerSource(name: string): TensorSource | undefined {
  return name === "mlp.gate.e_score_correction_bias"
    ? { name: "block_sparse_moe.e_score_correction_bias" }
    : mixtralExpertSource(name);
}

/** MiniMax-M2. */
export const MINIMAX_M2 = decoderArchitecture({
  modelTypes: ["minimax_m2"],
  parseConfig,
  layerSource,
  ignoredTensorReason: extraLayerReason,
});
