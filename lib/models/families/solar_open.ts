/**
 * Solar Open 100B: GLM-4.5's experts in every layer, plain attention. Follows transformers' `modeling_solar_open.py`.
 * @module
 */
import type { ModelConfig } from "../architecture.ts";
import { ConfigReader } from "../config_reader.ts";
import { decoderArchitecture } from "../decoder.ts";
import { decoderConfig, plainAttention, preNormLayer, readActivation, readShape, rmsNorm } from "../decoder_config.ts";
import { correctedMoe, extraLayerReason, sharedExpertsSource, widestIntermediate } from "../moe_config.ts";
import { parseRope } from "../rope_config.ts";
import { refuseUnimplemented } from "../unimplemented_keys.ts";

function parseConfig(values: Record<string, unknown>): ModelConfig {
  const config = new ConfigReader(values, "config.json");
  refuseUnimplemented(config, ["n_routed_experts", "attention_bias"]);
  if (config.count("first_k_dense_replace", 0) !== 0) throw config.refuse("first_k_dense_replace", "0");
  const shape = readShape(config, { contextTokens: 131_072, numKvHeads: 8, headDim: 128, intermediateSize: 1 });
  const eps = config.positive("rms_norm_eps", 1e-5);
  const attention = plainAttention(shape.headDim, { qkvBias: config.boolean("attention_bias", false) });
  const keys = { experts: "n_routed_experts", shared: "n_shared_experts" };
  const missing = { numExperts: 128, topK: 8, expertSize: 1280, sharedExperts: 1, scale: 1 };
  const moe = correctedMoe(config, readActivation(config, "hidden_act", "silu"), keys, missing);
  return decoderConfig("solar_open", { ...shape, intermediateSize: widestIntermediate([moe]) }, {
    ropes: [parseRope(config, { ...shape, theta: 1e6, partialRotaryFactor: 1 })],
    layers: Array(shape.numLayers).fill(preNormLayer(attention, moe, eps)),
    finalNorm: rmsNorm("model.norm", eps),
    tieWordEmbeddings: config.boolean("tie_word_embeddings", false),
  });
}

/** Solar Open. */
export const SOLAR_OPEN = decoderArchitecture({
  modelTypes: ["solar_open"],
  parseConfig,
  layerSource: sharedExpertsSource,
  ignoredTensorReason: extraLayerReason,
});
