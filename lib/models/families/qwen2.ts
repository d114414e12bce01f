/**
 * Qwen 1.5, 2 and 2.5: Llama with biases of queries, keys and values, and windows in upper layers where they are switched on. Follows
 * transformers' `modeling_qwen2.py`. Also the language models of Qwen 2 VL and 2.5 VL: text moves along all sides of a picture's positions alike.
 * @module
 */
import type { ModelConfig } from "../architecture.ts";
import type { ConfigReader } from "../config_reader.ts";
import {
  decoderConfig,
  gatedMlp,
  plainAttention,
  preNormLayer,
  readActivation,
  readShape,
  readSlidingLayers,
  rmsNorm,
} from "../decoder_config.ts";
import { BARE, type LanguageFamily, languageModel, NESTED, wholeModel } from "../language_model.ts";
import { MROPE_KEYS, parseRope } from "../rope_config.ts";
import { refuseUnimplemented } from "../unimplemented_keys.ts";

/** Keys of the windows. */
export const QWEN_WINDOW_KEYS = ["sliding_window", "use_sliding_window", "layer_types"];

/** Returns each layer's window, or undefined where it sees all. */
export function readQwenWindows(config: ConfigReader, numLayers: number): (number | undefined)[] {
  const used = config.boolean("use_sliding_window", false);
  const windowTokens = used ? config.integer("sliding_window", 4096) : undefined;
  const firstLayer = config.count("max_window_layers", 28);
  const sliding = readSlidingLayers(config, numLayers, (layer) => used && layer >= firstLayer);
  if (sliding.includes(true) && !used) {
    throw config.refuse("layer_types", "full_attention alone where use_sliding_window is false");
  }
  return sliding.map((slides) => slides ? windowTokens : undefined);
}

/** Defaults of configuration classes. */
interface Missing {
  numKvHeads: number;
  eps: number;
  theta: number;
  needlessKeys?: readonly string[];
}

function parseQwen2(config: ConfigReader, modelType: string, missing: Missing): ModelConfig {
  refuseUnimplemented(config, QWEN_WINDOW_KEYS);
  const shape = readShape(config, { contextTokens: 32_768, numKvHeads: missing.numKvHeads });
  const eps = config.positive("rms_norm_eps", missing.eps);
  const feedForward = gatedMlp(shape.intermediateSize, { activation: readActivation(config, "hidden_act", "silu") });
  const layer = (windowTokens: number | undefined) =>
    preNormLayer(plainAttention(shape.headDim, { qkvBias: true, windowTokens }), feedForward, eps);
  return decoderConfig(modelType, shape, {
    ropes: [parseRope(config, { ...shape, theta: missing.theta, needlessKeys: missing.needlessKeys })],
    layers: readQwenWindows(config, shape.numLayers).map(layer),
    finalNorm: rmsNorm("model.norm", eps),
    tieWordEmbeddings: config.boolean("tie_word_embeddings", false),
  });
}

/** Qwen 2 within whole models. */
export const QWEN2_LANGUAGE: LanguageFamily = {
  parse: (config, modelType) => parseQwen2(config, modelType, { numKvHeads: 32, eps: 1e-6, theta: 10_000 }),
  sizes: { hidden_size: 4096, intermediate_size: 22_016, num_hidden_layers: 32, num_attention_heads: 32, vocab_size: 151_936 },
};

/** Qwen 2. */
export const QWEN2 = languageModel(["qwen2"], QWEN2_LANGUAGE);

const VISUAL: LanguageFamily = {
  parse: (config, modelType) => {
    if (!config.has("max_window_layers")) config = config.with({ max_window_layers: 80 });
    return parseQwen2(config, modelType, { numKvHeads: 8, eps: 1e-5, theta: 1e6, needlessKeys: MROPE_KEYS });
  },
};

/** Qwen 2 VL and 2.5 VL. */
export const QWEN2_VL = wholeModel({
  modelTypes: ["qwen2_vl", "qwen2_5_vl"],
  // Releases are written flat; of those, the text_config that transformers writes has a type of its own.
  languages: { qwen2_vl_text: VISUAL, qwen2_5_vl_text: VISUAL },
  missing: "qwen2_vl_text",
  names: [BARE, NESTED],
  needless: /^(model\.)?visual\./,
  flat: true,
});
