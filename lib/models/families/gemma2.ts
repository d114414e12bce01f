/**
 * Gemma 2: norms of what sublayers read and of what they add, soft caps, and a window in every other layer. Follows transformers'
 * `modeling_gemma2.py`. VaultGemma does without the norms of what is added: `modeling_vaultgemma.py`.
 * @module
 */
import type { AttentionConfig, LayerConfig } from "../../layers/model_config.ts";
import type { ModelConfig } from "../architecture.ts";
import { ConfigReader } from "../config_reader.ts";
import { decoderArchitecture } from "../decoder.ts";
import {
  decoderConfig,
  type DecoderShape,
  gatedMlp,
  plainAttention,
  readActivation,
  readShape,
  readSlidingLayers,
  readWindow,
  rmsNorm,
} from "../decoder_config.ts";
import { parseRope } from "../rope_config.ts";
import { refuseUnimplemented } from "../unimplemented_keys.ts";

/** Keys of attention and logits that Gemma 2 and 3 have. */
export const GEMMA_KEYS = [
  "attention_bias",
  "query_pre_attn_scalar",
  "attn_logit_softcapping",
  "final_logit_softcapping",
  "sliding_window",
  "layer_types",
];

/** Reads the attention of a layer that sees all, as Gemma 2 and 3 have it. */
export function readGemmaAttention(config: ConfigReader, headDim: number, missingSoftcap: number): AttentionConfig {
  const bias = config.boolean("attention_bias", false);
  return plainAttention(headDim, {
    qkvBias: bias,
    outputBias: bias,
    scale: config.positive("query_pre_attn_scalar", 256) ** -0.5,
    softcap: readSoftcap(config, "attn_logit_softcapping", missingSoftcap),
  });
}

/** Reads a soft cap: null switches it off, and only a key that is not there stands for the default. @throws {UnsupportedError} */
export function readSoftcap(config: ConfigReader, key: string, missing: number): number {
  return config.raw(key) === null ? 0 : config.raw(key) === undefined ? missing : config.positive(key);
}

/** Returns a layer with a norm before and after each sublayer, as Gemma 2 and 3 name them. */
export function gemmaLayer(config: ConfigReader, shape: DecoderShape, attention: AttentionConfig, eps: number): LayerConfig {
  const activation = readActivation(config, "hidden_activation", "gelu_pytorch_tanh");
  return {
    attention,
    feedForward: gatedMlp(shape.intermediateSize, { activation }),
    norms: {
      attentionInput: rmsNorm("input_layernorm", eps, 1),
      attentionOutput: rmsNorm("post_attention_layernorm", eps, 1),
      feedForwardInput: rmsNorm("pre_feedforward_layernorm", eps, 1),
      feedForwardOutput: rmsNorm("post_feedforward_layernorm", eps, 1),
    },
    parallel: false,
    residualMultiplier: 1,
  };
}

function parseGemma2(values: Record<string, unknown>, modelType: string, hasOutputNorms: boolean): ModelConfig {
  const config = new ConfigReader(values, "config.json");
  refuseUnimplemented(config, GEMMA_KEYS);
  const shape = readShape(config, { contextTokens: 8192, numKvHeads: 4, headDim: 256 });
  const eps = config.positive("rms_norm_eps", 1e-6);
  const attention = readGemmaAttention(config, shape.headDim, 50);
  const windowTokens = readWindow(config, 4096);
  const sliding = readSlidingLayers(config, shape.numLayers, (layer) => layer % 2 === 0);
  const layerOf = (slides: boolean): LayerConfig => {
    const layer = gemmaLayer(config, shape, { ...attention, windowTokens: slides ? windowTokens : undefined }, eps);
    const { attentionInput, feedForwardInput } = layer.norms;
    return hasOutputNorms ? layer : { ...layer, norms: { attentionInput, feedForwardInput } };
  };
  return decoderConfig(modelType, shape, {
    ropes: [parseRope(config, { ...shape, theta: 10_000 })],
    layers: sliding.map(layerOf),
    finalNorm: rmsNorm("model.norm", eps, 1),
    tieWordEmbeddings: config.boolean("tie_word_embeddings", true),
    embeddingMultiplier: Math.sqrt(shape.hiddenSize),
    logitsSoftcap: readSoftcap(config, "final_logit_softcapping", 30),
  });
}

/** Gemma 2. */
export const GEMMA2 = decoderArchitecture({
  modelTypes: ["gemma2"],
  parseConfig: (values) => parseGemma2(values, "gemma2", true),
});

/** VaultGemma. */
export const VAULTGEMMA = decoderArchitecture({
  modelTypes: ["vaultgemma"],
  parseConfig: (values) => parseGemma2(values, "vaultgemma", false),
});
