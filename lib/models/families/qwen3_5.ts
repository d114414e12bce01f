/**
 * The language models of Qwen 3.5 and 3.6, dense and with experts: Qwen3-Next's layers, whose projections have tensors of their own. Follows
 * transformers' `modeling_qwen3_5.py` and `modeling_qwen3_5_moe.py`.
 * @module
 */
import { deltaNetWidths } from "../../layers/delta_net.ts";
import type { DeltaNetConfig, MlpConfig, MoeConfig } from "../../layers/model_config.ts";
import type { ModelConfig, TensorSource } from "../architecture.ts";
import { ConfigReader } from "../config_reader.ts";
import { decoderArchitecture } from "../decoder.ts";
import { decoderConfig, gatedMlp, preNormLayer, readActivation, readShape, rmsNorm } from "../decoder_config.ts";
import { aheadReason, HYBRID_KEYS, hybridNorms, hybridSource, readHybridLayers } from "../hybrid_config.ts";
import { plainMoe, plainRouter, readExperts, stackedExpertSource, widestIntermediate } from "../moe_config.ts";
import { MROPE_KEYS, parseRope } from "../rope_config.ts";
import { refuseUnimplemented } from "../unimplemented_keys.ts";

/** Returns the experts of every layer. */
function readMoe(config: ConfigReader): MoeConfig {
  const activation = readActivation(config, "hidden_act", "silu");
  // Releases have these two keys, of which transformers has one value alone.
  if (!config.boolean("norm_topk_prob", true)) throw config.refuse("norm_topk_prob", "true");
  const dense = config.has("mlp_only_layers") ? config.raw("mlp_only_layers") : [];
  if (!Array.isArray(dense) || dense.length > 0) throw config.refuse("mlp_only_layers", "an empty list");
  const router = plainRouter(readExperts(config, "num_experts", { numExperts: 256, topK: 8 }), { normalize: true });
  return plainMoe(router, activation, config.integer("moe_intermediate_size", 512), {
    shared: { mlp: gatedMlp(config.integer("shared_expert_intermediate_size", 512), { activation }), gated: true },
  });
}

function parseTextConfig(config: ConfigReader, modelType: string, hasExperts: boolean, tied: boolean): ModelConfig {
  refuseUnimplemented(config, [...HYBRID_KEYS, ...(hasExperts ? ["num_experts"] : [])]);
  const moe = hasExperts ? readMoe(config) : undefined;
  const shape = readShape(config, {
    ...{ contextTokens: 32_768, numKvHeads: hasExperts ? 2 : 4, headDim: 256 },
    ...(moe && { intermediateSize: moe.intermediateSize }),
  });
  const eps = config.positive("rms_norm_eps", 1e-6);
  const feedForward: MlpConfig | MoeConfig = moe ??
    gatedMlp(shape.intermediateSize, { activation: readActivation(config, "hidden_act", "silu") });
  const norms = hybridNorms(eps);
  return decoderConfig(modelType, { ...shape, intermediateSize: widestIntermediate([feedForward]) }, {
    ropes: [parseRope(config, { ...shape, theta: 10_000, partialRotaryFactor: 0.25, needlessKeys: MROPE_KEYS })],
    layers: readHybridLayers(config, shape, eps).map((attention) => preNormLayer(attention, feedForward, eps, { norms })),
    finalNorm: rmsNorm("model.norm", eps, 1),
    tieWordEmbeddings: tied,
  });
}

/** Returns whether the embedding gives the logits too, which both the whole model's config and the language model's may say. */
function readTied(config: ConfigReader, text: ConfigReader): boolean {
  const tied = config.boolean("tie_word_embeddings", text.boolean("tie_word_embeddings", false));
  if (text.has("tie_word_embeddings") && text.boolean("tie_word_embeddings", false) !== tied) {
    throw text.refuse("tie_word_embeddings", `the same as beside text_config (${tied})`);
  }
  return tied;
}

/** Queries, keys and values are one tensor, each after the other. */
function projectionSource(part: string, deltaNet: DeltaNetConfig): TensorSource | undefined {
  const { keys } = deltaNetWidths(deltaNet), firstRow = { q: 0, k: keys, v: 2 * keys }[part];
  return firstRow === undefined ? undefined : { name: "linear_attn.in_proj_qkv.weight", firstRow };
}

function textModel(modelType: string, hasExperts: boolean) {
  return decoderArchitecture({
    modelTypes: [modelType],
    parseConfig: (values) => {
      const config = new ConfigReader(values, "config.json");
      return parseTextConfig(config, modelType, hasExperts, config.boolean("tie_word_embeddings", false));
    },
    layerSource: (name, config, layer) => hybridSource(name, config, layer, projectionSource),
    otherLayerSource: stackedExpertSource,
    ignoredTensorReason: aheadReason,
  });
}

function wholeModel(modelType: string, hasExperts: boolean) {
  return decoderArchitecture({
    modelTypes: [modelType],
    parseConfig: (values) => {
      const config = new ConfigReader(values, "config.json"), text = config.object("text_config");
      refuseUnimplemented(config);
      if (!text) throw config.refuse("text_config", "an object");
      return parseTextConfig(text, modelType, hasExperts, readTied(config, text));
    },
    layerPrefix: (layer) => `model.language_model.layers.${layer}.`,
    layerSource: (name, config, layer) => hybridSource(name, config, layer, projectionSource),
    otherLayerSource: stackedExpertSource,
    rootNames: {
      "model.embed_tokens.weight": "model.language_model.embed_tokens.weight",
      "model.norm.weight": "model.language_model.norm.weight",
    },
    ignoredTensorReason: (name) => name.startsWith("model.visual.") ? "images are not used" : aheadReason(name),
  });
}

/** Qwen 3.5, dense, the language model by itself. */
export const QWEN3_5_TEXT = textModel("qwen3_5_text", false);

/** Qwen 3.5 with experts, the language model by itself. */
export const QWEN3_5_MOE_TEXT = textModel("qwen3_5_moe_text", true);

/** Qwen 3.5, dense, as it is released: the language model within one that also sees images. */
export const QWEN3_5 = wholeModel("qwen3_5", false);

/** Qwen 3.5 with experts, as it is released. */
export const QWEN3_5_MOE = wholeModel("qwen3_5_moe", true);
