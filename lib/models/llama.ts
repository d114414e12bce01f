/**
 * Llama 1, 2, 3, 3.1, 3.2 and 3.3. Follows transformers' `modeling_llama.py`.
 * @module
 */
import type { ModelConfig } from "./architecture.ts";
import type { ConfigReader } from "./config_reader.ts";
import { decoderConfig, gatedMlp, plainAttention, preNormLayer, readActivation, readShape, rmsNorm } from "./decoder_config.ts";
import { type LanguageFamily, languageModel } from "./language_model.ts";
import { parseRope } from "./rope_config.ts";
import { refuseUnimplemented } from "./unimplemented_keys.ts";

function parseLlama(config: ConfigReader, modelType: string): ModelConfig {
  refuseUnimplemented(config, ["attention_bias", "mlp_bias"]);
  // pretraining_tp splits each product into slices and adds their results, which is the same product up to rounding.
  config.integer("pretraining_tp", 1);
  const shape = readShape(config, { contextTokens: 2048 });
  const eps = config.positive("rms_norm_eps", 1e-6);
  const bias = config.boolean("attention_bias", false);
  const attention = plainAttention(shape.headDim, {
    qkvBias: bias,
    outputBias: bias,
  });
  const feedForward = gatedMlp(shape.intermediateSize, {
    activation: readActivation(config, "hidden_act", "silu"),
    bias: config.boolean("mlp_bias", false),
  });
  return decoderConfig(modelType, shape, {
    ropes: [parseRope(config, { ...shape, theta: 10_000 })],
    layers: Array(shape.numLayers).fill(preNormLayer(attention, feedForward, eps)),
    finalNorm: rmsNorm("model.norm", eps),
    tieWordEmbeddings: config.boolean("tie_word_embeddings", false),
  });
}

/** Llama within whole models. */
export const LLAMA_LANGUAGE: LanguageFamily = {
  parse: parseLlama,
  sizes: { hidden_size: 4096, intermediate_size: 11_008, num_hidden_layers: 32, num_attention_heads: 32, vocab_size: 32_000 },
};

/** The Llama family. */
export const LLAMA = languageModel(["llama"], LLAMA_LANGUAGE);
