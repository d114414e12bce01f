/**
 * GLM 4: heads rotated by half in interleaved pairs, biases of queries, keys and values, a fused gate; GLM-4-0414 (`glm4`) has norms of what
 * sublayers add too, and so has the language model of GLM-4.1V and 4.6V-Flash. Follows transformers' `modeling_glm.py`, `modeling_glm4.py` and
 * `modeling_glm4v.py`.
 * @module
 */
import type { LayerConfig } from "../../layers/model_config.ts";
import type { ModelConfig } from "../architecture.ts";
import type { ConfigReader } from "../config_reader.ts";
import {
  decoderConfig,
  fusedGateUp,
  gatedMlp,
  plainAttention,
  preNormLayer,
  readActivation,
  readShape,
  rmsNorm,
} from "../decoder_config.ts";
import { BARE, type LanguageFamily, languageModel, NESTED, wholeModel } from "../language_model.ts";
import { MROPE_KEYS, parseRope } from "../rope_config.ts";
import { refuseUnimplemented } from "../unimplemented_keys.ts";

/** Defaults of configuration classes. */
interface Missing {
  contextTokens: number;
  /** Without it, a head has its share of the width. */
  headDim?: number;
  eps: number;
  partialRotaryFactor: number;
  needlessKeys?: readonly string[];
}

function parseGlm(config: ConfigReader, modelType: string, hasOutputNorms: boolean, missing: Missing): ModelConfig {
  refuseUnimplemented(config, ["attention_bias"]);
  const { eps: missingEps, partialRotaryFactor, needlessKeys, ...missingShape } = missing;
  const shape = readShape(config, { ...missingShape, numKvHeads: 2 });
  const eps = config.positive("rms_norm_eps", missingEps);
  const attention = plainAttention(shape.headDim, {
    qkvBias: config.boolean("attention_bias", true),
    rope: { index: 0, interleaved: true },
  });
  const feedForward = gatedMlp(shape.intermediateSize, { activation: readActivation(config, "hidden_act", "silu") });
  const layer: LayerConfig = preNormLayer(attention, feedForward, eps);
  if (hasOutputNorms) {
    layer.norms.attentionOutput = rmsNorm("post_self_attn_layernorm", eps);
    layer.norms.feedForwardOutput = rmsNorm("post_mlp_layernorm", eps);
  }
  return decoderConfig(modelType, shape, {
    ropes: [parseRope(config, { ...shape, theta: 10_000, partialRotaryFactor, needlessKeys })],
    layers: Array(shape.numLayers).fill(layer),
    finalNorm: rmsNorm("model.norm", eps),
    tieWordEmbeddings: config.boolean("tie_word_embeddings", false),
  });
}

const layerSource = (name: string, config: ModelConfig) => fusedGateUp(name, "mlp.gate_up_proj", config);

const GLM_MISSING: Missing = { contextTokens: 131_072, headDim: 128, eps: 1.5625e-7, partialRotaryFactor: 0.5 };

/** GLM-4-9B as transformers has it. */
export const GLM = languageModel(["glm"], {
  parse: (config, modelType) => parseGlm(config, modelType, false, GLM_MISSING),
  layerSource,
});

/** GLM-4-0414. */
export const GLM4 = languageModel(["glm4"], {
  parse: (config, modelType) => parseGlm(config, modelType, true, GLM_MISSING),
  layerSource,
});

const VISUAL: LanguageFamily = {
  parse: (config, modelType) => {
    if (!config.boolean("attention_bias", true)) throw config.refuse("attention_bias", "true");
    const missing = { contextTokens: 32_768, eps: 1e-5, partialRotaryFactor: 1, needlessKeys: MROPE_KEYS };
    return parseGlm(config, modelType, true, missing);
  },
  layerSource,
};

/** GLM-4.1V and 4.6V-Flash. */
export const GLM4V = wholeModel({
  modelTypes: ["glm4v", "glm46v"],
  languages: { glm4v_text: VISUAL, glm4v: VISUAL },
  missing: "glm4v_text",
  names: [NESTED, BARE],
  needless: /^(model\.)?visual\./,
});
