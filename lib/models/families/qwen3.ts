/**
 * Qwen 3: Llama with norms of each query and key head. Follows transformers' `modeling_qwen3.py`. Also the language model of Qwen 3 VL, which pictures alone
 * reach in more than its first layer.
 * @module
 */
import type { ModelConfig } from "../architecture.ts";
import type { ConfigReader } from "../config_reader.ts";
import { decoderConfig, gatedMlp, plainAttention, preNormLayer, readActivation, readShape, rmsNorm } from "../decoder_config.ts";
import { type LanguageFamily, languageModel, NESTED, wholeModel } from "../language_model.ts";
import { QWEN_WINDOW_KEYS, readQwenWindows } from "./qwen2.ts";
import { MROPE_KEYS, parseRope } from "../rope_config.ts";
import { refuseUnimplemented } from "../unimplemented_keys.ts";

function parseQwen3(
  config: ConfigReader,
  modelType: string,
  rope: { theta: number; needlessKeys?: readonly string[] },
): ModelConfig {
  refuseUnimplemented(config, [...QWEN_WINDOW_KEYS, "attention_bias"]);
  const shape = readShape(config, { contextTokens: 32_768, numKvHeads: 32, headDim: 128 });
  const eps = config.positive("rms_norm_eps", 1e-6);
  const bias = config.boolean("attention_bias", false);
  const feedForward = gatedMlp(shape.intermediateSize, { activation: readActivation(config, "hidden_act", "silu") });
  const layer = (windowTokens: number | undefined) =>
    preNormLayer(
      plainAttention(shape.headDim, {
        qkvBias: bias,
        outputBias: bias,
        queryNorm: { ...rmsNorm("self_attn.q_norm", eps), scope: "head" },
        keyNorm: { ...rmsNorm("self_attn.k_norm", eps), scope: "head" },
        windowTokens,
      }),
      feedForward,
      eps,
    );
  return decoderConfig(modelType, shape, {
    ropes: [parseRope(config, { ...shape, ...rope })],
    layers: readQwenWindows(config, shape.numLayers).map(layer),
    finalNorm: rmsNorm("model.norm", eps),
    tieWordEmbeddings: config.boolean("tie_word_embeddings", false),
  });
}

/** Qwen 3 within whole models. */
export const QWEN3_LANGUAGE: LanguageFamily = {
  parse: (config, modelType) => parseQwen3(config, modelType, { theta: 10_000 }),
  sizes: { hidden_size: 4096, intermediate_size: 22_016, num_hidden_layers: 32, num_attention_heads: 32, vocab_size: 151_936 },
};

/** Qwen 3. */
export const QWEN3 = languageModel(["qwen3"], QWEN3_LANGUAGE);

/** Qwen 3 VL, dense. */
export const QWEN3_VL = wholeModel({
  modelTypes: ["qwen3_vl"],
  languages: {
    qwen3_vl_text: {
      parse: (config, modelType) => parseQwen3(config, modelType, { theta: 500_000, needlessKeys: MROPE_KEYS }),
    },
  },
  missing: "qwen3_vl_text",
  names: [NESTED],
  needless: /^model\.visual\./,
});
