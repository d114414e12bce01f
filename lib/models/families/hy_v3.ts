/**
 * Hunyuan 3: Qwen 3's attention, sigmoid routing with corrected choice beside a shared expert. Follows transformers' `modeling_hy_v3.py`.
 * @module
 */
import type { ModelConfig, TensorSource } from "../architecture.ts";
import { ConfigReader } from "../config_reader.ts";
import { decoderArchitecture } from "../decoder.ts";
import { decoderConfig, gatedMlp, plainAttention, preNormLayer, readActivation, readShape, rmsNorm } from "../decoder_config.ts";
import {
  extraLayerReason,
  plainMoe,
  plainRouter,
  readExperts,
  readMlpLayers,
  sharedExperts,
  widestIntermediate,
} from "../moe_config.ts";
import { parseRope } from "../rope_config.ts";
import { refuseUnimplemented } from "../unimplemented_keys.ts";

function parseConfig(values: Record<string, unknown>): ModelConfig {
  const config = new ConfigReader(values, "config.json");
  refuseUnimplemented(config, ["num_experts", "attention_bias", "qk_norm"]);
  if (!config.boolean("qk_norm", true)) throw config.refuse("qk_norm", "true");
  const shape = readShape(config, { contextTokens: 131_072, numKvHeads: 8, headDim: 128 });
  const eps = config.positive("rms_norm_eps", 1e-5);
  const activation = readActivation(config, "hidden_act", "silu");
  const bias = config.boolean("attention_bias", false);
  const attention = plainAttention(shape.headDim, {
    qkvBias: bias,
    outputBias: bias,
    queryNorm: { ...rmsNorm("self_attn.q_norm", eps), scope: "head" },
    keyNorm: { ...rmsNorm("self_attn.k_norm", eps), scope: "head" },
  });
  // enable_moe_fp32_combine says in which precision experts are added, which is float32 here anyway.
  const router = plainRouter(readExperts(config, "num_experts", { numExperts: 192, topK: 8 }), {
    ...{ score: "sigmoid", normalize: true, normalizeEpsilon: 1e-20 },
    scale: config.positive("router_scaling_factor", 2.826),
  });
  const expertSize = config.integer("moe_intermediate_size", 1536);
  const moe = plainMoe(router, activation, expertSize, {
    correctionBias: true,
    ...sharedExperts(expertSize, config.integer("num_shared_experts", 1), activation),
  });
  const dense = gatedMlp(shape.intermediateSize, { activation });
  const feedForwards = readMlpLayers(config, shape.numLayers, 1).map((sparse) => sparse ? moe : dense);
  return decoderConfig("hy_v3", { ...shape, intermediateSize: widestIntermediate(feedForwards) }, {
    ropes: [parseRope(config, { ...shape, theta: 11_158_840 })],
    layers: feedForwards.map((feedForward) => preNormLayer(attention, feedForward, eps)),
    finalNorm: rmsNorm("model.norm", eps),
    tieWordEmbeddings: config.boolean("tie_word_embeddings", false),
  });
}

function layerSource(name: string): TensorSource | undefined {
  if (name === "mlp.gate.weight") return { name: "mlp.router.gate.weight" };
  if (name === "mlp.gate.e_score_correction_bias") return { name: "mlp.expert_bias" };
  return name.startsWith("mlp.shared_expert.") ? { name: name.replace("shared_expert.", "shared_mlp.") } : undefined;
}

/** Hunyuan 3. */
export const HY_V3 = decoderArchitecture({
  modelTypes: ["hy_v3"],
  parseConfig,
  layerSource,
  ignoredTensorReason: extraLayerReason,
});
