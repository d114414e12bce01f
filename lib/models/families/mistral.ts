/**
 * Mistral 7B and its kin: Llama with a sliding window. Ministral 3, and what else is of its kind, has queries that sharpen over long contexts. Mistral Small
 * 3.1 and later see images too. Follows transformers' `modeling_mistral.py`, `modeling_ministral3.py` and `modeling_mistral3.py`.
 * @module
 */
import type { RopeConfig } from "../../layers/model_config.ts";
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
  readWindow,
  rmsNorm,
} from "../decoder_config.ts";
import { type LanguageFamily, languageModel, NESTED, wholeModel, WRAPPED } from "../language_model.ts";
import { MISTRAL4_LANGUAGE } from "./mistral4.ts";
import { parseRope } from "../rope_config.ts";
import { refuseUnimplemented } from "../unimplemented_keys.ts";

/** `chooses`: whether `layer_types` says which layers have a window, all of them where it is not set. */
function parseMistral(config: ConfigReader, modelType: string, chooses = false): ModelConfig {
  refuseUnimplemented(config, ["sliding_window", ...(chooses ? ["layer_types"] : [])]);
  const shape = readShape(config, { contextTokens: 131_072, numKvHeads: 8 });
  const eps = config.positive("rms_norm_eps", 1e-6);
  const windowTokens = readWindow(config, 4096);
  const sliding = chooses ? readSlidingLayers(config, shape.numLayers, () => true) : Array<boolean>(shape.numLayers).fill(true);
  const attention = plainAttention(shape.headDim), windowed = { ...attention, windowTokens };
  const feedForward = gatedMlp(shape.intermediateSize, { activation: readActivation(config, "hidden_act", "silu") });
  return decoderConfig(modelType, shape, {
    ropes: [parseRope(config, { ...shape, theta: 10_000 })],
    layers: sliding.map((slides) => preNormLayer(slides ? windowed : attention, feedForward, eps)),
    finalNorm: rmsNorm("model.norm", eps),
    tieWordEmbeddings: config.boolean("tie_word_embeddings", false),
  });
}

/** What the config of Ministral 3 is without keys that transformers' configuration class has. */
const MINISTRAL3_ROPE = {
  ...{ rope_type: "yarn", rope_theta: 1e6, factor: 16, original_max_position_embeddings: 16_384 },
  ...{ beta_fast: 32, beta_slow: 1, mscale: 1, mscale_all_dim: 1, llama_4_scaling_beta: 0.1 },
};

/** Keys of rope parameters that say nothing of the rotation. */
const MINISTRAL3_ROPE_KEYS = ["llama_4_scaling_beta", "max_position_embeddings"];

/** Returns the rotation, and what queries are multiplied by. */
function parseMinistral3Ropes(config: ConfigReader, shape: { contextTokens: number; headDim: number }): RopeConfig[] {
  const written = config.has("rope_parameters") || config.has("rope_scaling");
  const reader = written ? config : config.with({ rope_parameters: MINISTRAL3_ROPE });
  const rope = parseRope(reader, { ...shape, theta: 1e6, needlessKeys: MINISTRAL3_ROPE_KEYS });
  const parameters = reader.object("rope_parameters") ?? reader.object("rope_scaling")!;
  const scaling: RopeConfig["scaling"] = {
    type: "temperature",
    attentionScale: parameters.positive("llama_4_scaling_beta"),
    floorTokens: parameters.integer("original_max_position_embeddings"),
    firstPosition: 0,
  };
  return [rope, { dim: shape.headDim, theta: 1, scaling }];
}

function parseMinistral3(config: ConfigReader, modelType: string): ModelConfig {
  refuseUnimplemented(config, ["sliding_window"]);
  const shape = readShape(config, { contextTokens: 262_144, numKvHeads: 8, headDim: 128 });
  const eps = config.positive("rms_norm_eps", 1e-5);
  const attention = plainAttention(shape.headDim, { windowTokens: readWindow(config), queryScaling: { index: 1 } });
  const feedForward = gatedMlp(shape.intermediateSize, { activation: readActivation(config, "hidden_act", "silu") });
  return decoderConfig(modelType, shape, {
    ropes: parseMinistral3Ropes(config, shape),
    layers: Array(shape.numLayers).fill(preNormLayer(attention, feedForward, eps)),
    finalNorm: rmsNorm("model.norm", eps),
    tieWordEmbeddings: config.boolean("tie_word_embeddings", false),
  });
}

/** Mistral within whole models. */
export const MISTRAL_LANGUAGE: LanguageFamily = {
  parse: (config, modelType) => parseMistral(config, modelType),
  sizes: { hidden_size: 4096, intermediate_size: 14_336, num_hidden_layers: 32, num_attention_heads: 32, vocab_size: 32_000 },
};

const MINISTRAL3_LANGUAGE: LanguageFamily = { parse: parseMinistral3 };

/** Mistral. */
export const MISTRAL = languageModel(["mistral"], MISTRAL_LANGUAGE);

/** Ministral 8B 2410, as transformers has it. */
export const MINISTRAL = languageModel(["ministral"], {
  parse: (config, modelType) => parseMistral(config, modelType, true),
});

/** Ministral 3 without images. */
export const MINISTRAL3 = languageModel(["ministral3"], MINISTRAL3_LANGUAGE);

/** Mistral Small 3.1 and later, Devstral, Magistral, Ministral 3, with images. */
export const MISTRAL3 = wholeModel({
  modelTypes: ["mistral3"],
  languages: { mistral: MISTRAL_LANGUAGE, ministral3: MINISTRAL3_LANGUAGE, mistral4: MISTRAL4_LANGUAGE },
  missing: "mistral",
  names: [WRAPPED, NESTED],
  needless: /^(model\.)?(vision_tower|multi_modal_projector)\./,
});
