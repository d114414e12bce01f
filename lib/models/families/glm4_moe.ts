/**
 * GLM-4.5 and 4.6, and their Air: sigmoid routing with corrected choice, a shared expert, first layers dense. Follows transformers'
 * `modeling_glm4_moe.py`. Also the language model of GLM-4.5V and 4.6V: `modeling_glm4v_moe.py`.
 * @module
 */
import type { ModelConfig } from "../architecture.ts";
import type { ConfigReader } from "../config_reader.ts";
import { decoderConfig, gatedMlp, plainAttention, preNormLayer, readActivation, readShape, rmsNorm } from "../decoder_config.ts";
import { BARE, type LanguageFamily, languageModel, NESTED, wholeModel } from "../language_model.ts";
import {
  correctedRouter,
  extraLayerReason,
  plainMoe,
  readExperts,
  sharedExpertsSource,
  widestIntermediate,
} from "../moe_config.ts";
import { MROPE_KEYS, parseRope } from "../rope_config.ts";
import { refuseUnimplemented } from "../unimplemented_keys.ts";

/** `seesImages`: whether it is the language model of one that does. */
function parseMoe(config: ConfigReader, modelType: string, seesImages: boolean): ModelConfig {
  refuseUnimplemented(config, ["n_routed_experts", "attention_bias", ...(seesImages ? [] : ["use_qk_norm"])]);
  const shape = readShape(config, { contextTokens: 131_072, numKvHeads: 8 });
  const eps = config.positive("rms_norm_eps", 1e-5);
  const activation = readActivation(config, "hidden_act", "silu");
  const attention = plainAttention(shape.headDim, {
    qkvBias: config.boolean("attention_bias", seesImages),
  });
  if (config.boolean("use_qk_norm", false)) {
    attention.queryNorm = { ...rmsNorm("self_attn.q_norm", eps), scope: "head" };
    attention.keyNorm = { ...rmsNorm("self_attn.k_norm", eps), scope: "head" };
  }
  const experts = readExperts(config, "n_routed_experts", { numExperts: 128, topK: 8 });
  const expertSize = config.integer("moe_intermediate_size", 1408);
  const moe = plainMoe(correctedRouter(config, experts, { groups: { count: 1, kept: 1 }, scale: 1 }), activation, expertSize, {
    correctionBias: true,
    shared: { mlp: gatedMlp(expertSize * config.integer("n_shared_experts", 1), { activation }), gated: false },
  });
  const dense = gatedMlp(shape.intermediateSize, { activation });
  const denseLayers = config.count("first_k_dense_replace", 1);
  const feedForwards = Array.from({ length: shape.numLayers }, (_, layer) => layer < denseLayers ? dense : moe);
  return decoderConfig(modelType, { ...shape, intermediateSize: widestIntermediate(feedForwards) }, {
    ropes: [
      parseRope(config, { ...shape, theta: 10_000, partialRotaryFactor: 0.5, needlessKeys: seesImages ? MROPE_KEYS : [] }),
    ],
    layers: feedForwards.map((feedForward) => preNormLayer(attention, feedForward, eps)),
    finalNorm: rmsNorm("model.norm", eps),
    tieWordEmbeddings: config.boolean("tie_word_embeddings", false),
  });
}

/** GLM-4.5. */
export const GLM4_MOE = languageModel(["glm4_moe"], {
  parse: (config, modelType) => parseMoe(config, modelType, false),
  layerSource: sharedExpertsSource,
  ignoredTensorReason: extraLayerReason,
});

const VISUAL: LanguageFamily = {
  parse: (config, modelType) => parseMoe(config, modelType, true),
  layerSource: sharedExpertsSource,
  ignoredTensorReason: extraLayerReason,
};

/** GLM-4.5V and 4.6V. */
export const GLM4V_MOE = wholeModel({
  modelTypes: ["glm4v_moe"],
  languages: { glm4v_moe_text: VISUAL, glm4v_moe: VISUAL },
  missing: "glm4v_moe_text",
  names: [NESTED, BARE],
  needless: /^(model\.)?visual\./,
});
