/**
 * The language models of Llama 4 Scout and Maverick: attention within chunks, every fourth layer without positions and with queries that sharpen over
 * long contexts, one routed expert a token beside a shared one. Follows transformers' `modeling_llama4.py`.
 * @module
 */
import type { AttentionConfig, MoeConfig, RopeConfig } from "../../layers/model_config.ts";
import type { ModelConfig, TensorSource } from "../architecture.ts";
import { ConfigReader } from "../config_reader.ts";
import { decoderArchitecture } from "../decoder.ts";
import {
  decoderConfig,
  type DecoderShape,
  gatedMlp,
  plainAttention,
  preNormLayer,
  readActivation,
  readShape,
  rmsNorm,
} from "../decoder_config.ts";
import { plainMoe, plainRouter, readExperts, widestIntermediate } from "../moe_config.ts";
import { parseRope } from "../rope_config.ts";
import { refuseUnimplemented } from "../unimplemented_keys.ts";

const LAYER_TYPES = ["full_attention", "chunked_attention"];

/** Reads a list with a number a layer, where it is set and not empty. @throws {UnsupportedError} */
function readList(config: ConfigReader, key: string): number[] | undefined {
  if (!config.has(key)) return undefined;
  const list = config.raw(key);
  if (!Array.isArray(list) || !list.every(Number.isInteger)) throw config.refuse(key, "a list of integers");
  return list.length > 0 ? list : undefined;
}

/** Returns which layers rotate; the others attend without positions. */
function readRotatedLayers(config: ConfigReader, numLayers: number): boolean[] {
  const interval = config.integer("no_rope_layer_interval", 4);
  const list = readList(config, "no_rope_layers");
  if (list && list.length !== numLayers) throw config.refuse("no_rope_layers", `a list of ${numLayers}`);
  return Array.from({ length: numLayers }, (_, layer) => list ? list[layer] !== 0 : (layer + 1) % interval !== 0);
}

/** Returns which layers attend within chunks. */
function readChunkedLayers(config: ConfigReader, rotated: readonly boolean[]): readonly boolean[] {
  if (!config.has("layer_types")) return rotated;
  const types = config.raw("layer_types");
  if (!Array.isArray(types) || types.length !== rotated.length || types.some((type) => !LAYER_TYPES.includes(type))) {
    throw config.refuse("layer_types", `a list of ${rotated.length} of ${LAYER_TYPES.join(", ")}`);
  }
  return types.map((type) => type === "chunked_attention");
}

function readAttentions(config: ConfigReader, { numLayers, headDim }: DecoderShape, eps: number): AttentionConfig[] {
  const bias = config.boolean("attention_bias", false);
  const rotated = readRotatedLayers(config, numLayers), chunked = readChunkedLayers(config, rotated);
  const chunkTokens = config.raw("attention_chunk_size") === null ? undefined : config.integer("attention_chunk_size", 8192);
  // transformers normalises behind the rotation, which changes no lengths.
  const norm = { ...rmsNorm("", eps), scope: "head", weightless: true } as const;
  const norms = config.boolean("use_qk_norm", true) ? { queryNorm: norm, keyNorm: norm } : {};
  const scalesQueries = readTuning(config);
  return rotated.map((rotates, layer) => {
    const attention = plainAttention(headDim, { qkvBias: bias, outputBias: bias, ...rotates && norms });
    if (rotates) attention.rope = { index: 0, interleaved: true };
    else {
      delete attention.rope;
      if (scalesQueries) attention.queryScaling = { index: 1 };
    }
    if (chunked[layer] && chunkTokens !== undefined) attention.chunkTokens = chunkTokens;
    return attention;
  });
}

/** Reads `attn_temperature_tuning`, which releases also write as a number. */
function readTuning(config: ConfigReader): boolean {
  return typeof config.raw("attn_temperature_tuning") === "number"
    ? config.raw("attn_temperature_tuning") !== 0
    : config.boolean("attn_temperature_tuning", true);
}

/** Returns which layers have experts. */
function readMoeLayers(config: ConfigReader, numLayers: number): boolean[] {
  const step = config.integer("interleave_moe_layer_step", 1);
  const list = readList(config, "moe_layers");
  return Array.from({ length: numLayers }, (_, layer) => list ? list.includes(layer) : (layer + 1) % step === 0);
}

function parseTextConfig(config: ConfigReader, modelType: string): ModelConfig {
  refuseUnimplemented(config, [
    ...["num_local_experts", "attention_bias", "attention_chunk_size", "layer_types", "no_rope_layers", "use_qk_norm"],
  ]);
  const shape = readShape(config, { contextTokens: 4096 * 32, numKvHeads: 8 });
  const eps = config.positive("rms_norm_eps", 1e-5);
  const activation = readActivation(config, "hidden_act", "silu");
  const router = plainRouter(readExperts(config, "num_local_experts", { numExperts: 16, topK: 1 }), {
    score: "topk_sigmoid",
    scalesInput: true,
  });
  const moe: MoeConfig = plainMoe(router, activation, shape.intermediateSize, {
    shared: { mlp: gatedMlp(shape.intermediateSize, { activation }), gated: false },
  });
  const dense = gatedMlp(config.integer("intermediate_size_mlp", 16384), { activation });
  const feedForwards = readMoeLayers(config, shape.numLayers).map((routed) => routed ? moe : dense);
  const ropes: RopeConfig[] = [parseRope(config, { ...shape, theta: 500_000 })];
  const attentions = readAttentions(config, shape, eps);
  if (attentions.some(({ queryScaling }) => queryScaling)) {
    const scaling = {
      type: "temperature" as const,
      attentionScale: config.positive("attn_scale", 0.1),
      floorTokens: config.positive("floor_scale", 8192),
      firstPosition: 1 as const,
    };
    ropes.push({ dim: shape.headDim, theta: 1, scaling });
  }
  return decoderConfig(modelType, { ...shape, intermediateSize: widestIntermediate(feedForwards) }, {
    ropes,
    layers: feedForwards.map((feedForward, layer) => preNormLayer(attentions[layer], feedForward, eps)),
    finalNorm: rmsNorm("model.norm", eps),
    tieWordEmbeddings: config.boolean("tie_word_embeddings", false),
  });
}

function layerSource(name: string, { layers }: ModelConfig, layer: number): TensorSource | undefined {
  if (!name.startsWith("mlp.")) return undefined;
  if (name === "mlp.gate.weight") return { name: "feed_forward.router.weight" };
  const expert = /^mlp\.experts\.(\d+)\.(\w+)_proj\.weight$/.exec(name);
  if (!expert) return { name: name.replace("mlp.", "feed_forward.") };
  const source = { index: Number(expert[1]), transposed: true };
  if (expert[2] === "down") return { name: "feed_forward.experts.down_proj", ...source };
  const firstRow = expert[2] === "gate" ? 0 : layers[layer].feedForward.intermediateSize;
  return { name: "feed_forward.experts.gate_up_proj", ...source, firstRow };
}

/** Where quantized checkpoints have experts: each matrix by itself, as transformers takes the stacks apart once it quantizes. */
function otherLayerSource(name: string): TensorSource | undefined {
  return name.startsWith("mlp.experts.") ? { name: name.replace("mlp.", "feed_forward.") } : undefined;
}

/** The language model by itself. */
export const LLAMA4_TEXT = decoderArchitecture({
  linearExperts: true,
  modelTypes: ["llama4_text"],
  parseConfig: (values) => parseTextConfig(new ConfigReader(values, "config.json"), "llama4_text"),
  layerSource,
  otherLayerSource,
});

/** Parts of the whole model that only images go through. */
const IMAGE_TENSORS = /^(vision_model|multi_modal_projector)\./;

/** The language model within the whole model, as it is released. */
export const LLAMA4 = decoderArchitecture({
  linearExperts: true,
  modelTypes: ["llama4"],
  parseConfig: (values) => {
    const config = new ConfigReader(values, "config.json");
    refuseUnimplemented(config);
    const text = config.object("text_config");
    if (!text) throw config.refuse("text_config", "an object");
    if (config.boolean("tie_word_embeddings", false)) throw config.refuse("tie_word_embeddings", "false");
    return parseTextConfig(text, "llama4");
  },
  layerPrefix: (layer) => `language_model.model.layers.${layer}.`,
  layerSource,
  otherLayerSource,
  rootNames: {
    "model.embed_tokens.weight": "language_model.model.embed_tokens.weight",
    "model.norm.weight": "language_model.model.norm.weight",
    "lm_head.weight": "language_model.lm_head.weight",
  },
  ignoredTensorReason: (name) => IMAGE_TENSORS.test(name) ? "images are not used" : undefined,
});
