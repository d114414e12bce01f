/**
 * The text model of Gemma 3: Gemma 2 with norms of query and key heads instead of soft caps, and rotary embeddings of their own for layers with
 * a window. Follows transformers' `modeling_gemma3.py`.
 * @module
 */
import type { ModelConfig } from "../architecture.ts";
import type { ConfigReader } from "../config_reader.ts";
import { decoderConfig, readShape, readSlidingLayers, readWindow, rmsNorm } from "../decoder_config.ts";
import { GEMMA_KEYS, gemmaLayer, readGemmaAttention, readSoftcap } from "./gemma2.ts";
import { type LanguageFamily, languageModel, NESTED, wholeModel, WRAPPED } from "../language_model.ts";
import { parseLayerRopes } from "../rope_config.ts";
import { refuseUnimplemented } from "../unimplemented_keys.ts";

/** Sizes of transformers' configuration class: releases leave out what equals them. */
const MISSING = {
  ...{ hiddenSize: 2304, intermediateSize: 9216, numLayers: 26, numHeads: 8, numKvHeads: 4, headDim: 256 },
  ...{ vocabSize: 262_208, contextTokens: 131_072 },
};

function parseTextConfig(config: ConfigReader, modelType: string): ModelConfig {
  // transformers has the key attn_logit_softcapping and no use for it: set, it is a model that neither computes.
  const keys = GEMMA_KEYS.filter((key) => key !== "attn_logit_softcapping");
  refuseUnimplemented(config, [...keys, "sliding_window_pattern", "rope_local_base_freq"]);
  const shape = readShape(config, MISSING);
  const eps = config.positive("rms_norm_eps", 1e-6);
  const attention = {
    ...readGemmaAttention(config, shape.headDim, 0),
    queryNorm: { ...rmsNorm("self_attn.q_norm", eps, 1), scope: "head" as const },
    keyNorm: { ...rmsNorm("self_attn.k_norm", eps, 1), scope: "head" as const },
  };
  const windowTokens = readWindow(config, 4096);
  const pattern = config.integer("sliding_window_pattern", 6);
  const sliding = readSlidingLayers(config, shape.numLayers, (layer) => (layer + 1) % pattern !== 0);
  return decoderConfig(modelType, shape, {
    ropes: parseLayerRopes(config, shape, { all: 1_000_000, windowed: 10_000 }, config.positive("rope_local_base_freq", 10_000)),
    layers: sliding.map((slides) => {
      const rope = { index: slides ? 1 : 0, interleaved: false };
      return gemmaLayer(config, shape, { ...attention, rope, windowTokens: slides ? windowTokens : undefined }, eps);
    }),
    finalNorm: rmsNorm("model.norm", eps, 1),
    tieWordEmbeddings: config.boolean("tie_word_embeddings", true),
    embeddingMultiplier: Math.sqrt(shape.hiddenSize),
    logitsSoftcap: readSoftcap(config, "final_logit_softcapping", 0),
  });
}

const TEXT: LanguageFamily = { parse: parseTextConfig };

/** Gemma 3 without images. */
export const GEMMA3_TEXT = languageModel(["gemma3_text"], TEXT);

/** Gemma 3 with images, of which the text model is used alone. */
export const GEMMA3 = wholeModel({
  modelTypes: ["gemma3"],
  languages: { gemma3_text: TEXT },
  missing: "gemma3_text",
  names: [WRAPPED, NESTED],
  needless: /^(model\.)?(vision_tower|multi_modal_projector)\./,
  tied: true,
});
