/**
 * Llama 1, 2, 3, 3.1, 3.2 and 3.3. Follows transformers' `modeling_llama.py`. Llama 3.2 with images has layers between Llama's that attend to images, and that text
 * alone passes by: `modeling_mllama.py`.
 * @module
 */
import type { ModelConfig } from "../architecture.ts";
import type { ConfigReader } from "../config_reader.ts";
import { decoderConfig, gatedMlp, plainAttention, preNormLayer, readActivation, readShape, rmsNorm } from "../decoder_config.ts";
import { type LanguageFamily, languageModel, NESTED, wholeModel, WRAPPED } from "../language_model.ts";
import { parseRope } from "../rope_config.ts";
import { refuseUnimplemented } from "../unimplemented_keys.ts";

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

/** Rows of the embedding that are tokens of pictures and have no logits. */
const IMAGE_ROWS = 8;

function parseMllama(config: ConfigReader, modelType: string): ModelConfig {
  const layers = config.integer("num_hidden_layers"), crossing = config.raw("cross_attention_layers");
  if (!Array.isArray(crossing) || !crossing.every((layer) => Number.isSafeInteger(layer) && layer >= 0 && layer < layers)) {
    throw config.refuse("cross_attention_layers", `a list of layers from 0 to ${layers - 1}`);
  }
  const layerNumbers = [...Array(layers).keys()].filter((layer) => !crossing.includes(layer));
  if (layerNumbers.length === 0) throw config.refuse("cross_attention_layers", "a list without some layer");
  if (config.boolean("tie_word_embeddings", false)) throw config.refuse("tie_word_embeddings", "false");
  const missing = { num_key_value_heads: 8, max_position_embeddings: 131_072, rms_norm_eps: 1e-5 };
  const llama = parseLlama(config.withMissing(missing).with({ num_hidden_layers: layerNumbers.length }), modelType);
  return { ...llama, layerNumbers, embeddingRows: llama.vocabSize + IMAGE_ROWS };
}

/** Llama 3.2 11B and 90B Vision. */
export const MLLAMA = wholeModel({
  modelTypes: ["mllama"],
  languages: {
    mllama_text_model: {
      parse: parseMllama,
      ignoredTensorReason: (name, { layerNumbers }) => {
        const layer = /^model\.layers\.(\d+)\./.exec(name);
        return layer && !layerNumbers!.includes(Number(layer[1]))
          ? "a layer that attends to images, which are not used"
          : undefined;
      },
    },
  },
  missing: "mllama_text_model",
  names: [WRAPPED, NESTED],
  needless: /^(model\.)?(vision_model|multi_modal_projector)\./,
});
