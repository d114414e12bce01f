/**
 * The text model of Gemma 3: Gemma 2 with norms of query and key heads instead of soft caps, and rotary embeddings of their own for layers with
 * a window. Follows transformers' `modeling_gemma3.py`.
 * @module
 */
import type { RopeConfig } from "../layers/model_config.ts";
import type { ModelConfig } from "./architecture.ts";
import { ConfigReader } from "./config_reader.ts";
import { decoderArchitecture } from "./decoder.ts";
import { decoderConfig, readShape, readSlidingLayers, readWindow, rmsNorm } from "./decoder_config.ts";
import { GEMMA_KEYS, gemmaLayer, readGemmaAttention, readSoftcap } from "./gemma2.ts";
import { parseRope, type RopeDefaults, ropeOf } from "./rope_config.ts";
import { refuseUnimplemented } from "./unimplemented_keys.ts";

/** Returns the rotary embeddings of layers that see all and of those with a window, in the spellings of transformers v5 and v4. */
function parseRopes(config: ConfigReader, defaults: Omit<RopeDefaults, "theta">): [global: RopeConfig, local: RopeConfig] {
  const nested = config.object("rope_parameters");
  if (nested?.has("full_attention") || nested?.has("sliding_attention")) {
    for (const key of nested.keys()) {
      if (key !== "full_attention" && key !== "sliding_attention") {
        throw nested.refuse(key, "full_attention or sliding_attention");
      }
    }
    const of = (key: string, theta: number): RopeConfig => {
      const parameters = nested.object(key);
      const readers = parameters ? [parameters] : [];
      return ropeOf(readers, config, readers, { ...defaults, theta });
    };
    return [of("full_attention", 1_000_000), of("sliding_attention", 10_000)];
  }
  const local = {
    dim: defaults.headDim,
    theta: config.positive("rope_local_base_freq", 10_000),
    scaling: { type: "default" } as const,
  };
  return [parseRope(config, { ...defaults, theta: 1_000_000 }), local];
}

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
    ropes: parseRopes(config, shape),
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

/** Gemma 3 without images. */
export const GEMMA3_TEXT = decoderArchitecture({
  modelTypes: ["gemma3_text"],
  parseConfig: (values) => parseTextConfig(new ConfigReader(values, "config.json"), "gemma3_text"),
});

/** Gemma 3 with images, of which the text model is used alone. */
export const GEMMA3 = decoderArchitecture({
  modelTypes: ["gemma3"],
  parseConfig(values) {
    const config = new ConfigReader(values, "config.json"), text = config.object("text_config");
    if (!text) throw config.refuse("text_config", "an object");
    return parseTextConfig(text, "gemma3");
  },
  layerPrefix: (layer) => `language_model.model.layers.${layer}.`,
  rootNames: {
    "model.embed_tokens.weight": "language_model.model.embed_tokens.weight",
    "model.norm.weight": "language_model.model.norm.weight",
    "lm_head.weight": "language_model.lm_head.weight",
  },
  ignoredTensorReason: (name) =>
    /^(vision_tower|multi_modal_projector)\./.test(name) ? "images are not read, the text model is used alone" : undefined,
});
