/**
 * OLMo 1: Llama with LayerNorm that has no weights, and queries, keys and values that may be clipped. Follows transformers' `modeling_olmo.py`.
 * @module
 */
import type { ModelConfig } from "../architecture.ts";
import { ConfigReader } from "../config_reader.ts";
import { decoderArchitecture } from "../decoder.ts";
import { decoderConfig, gatedMlp, layerNorm, plainAttention, readActivation, readShape } from "../decoder_config.ts";
import { parseRope } from "../rope_config.ts";
import { refuseUnimplemented } from "../unimplemented_keys.ts";

const NORM = layerNorm("", 1e-5, { weightless: true, bias: false });

function parseConfig(values: Record<string, unknown>): ModelConfig {
  const config = new ConfigReader(values, "config.json");
  refuseUnimplemented(config, ["attention_bias", "clip_qkv"]);
  const shape = readShape(config, { contextTokens: 2048 });
  const bias = config.boolean("attention_bias", false);
  const layer = {
    attention: plainAttention(shape.headDim, {
      qkvBias: bias,
      outputBias: bias,
      clip: config.has("clip_qkv") ? config.positive("clip_qkv") : undefined,
    }),
    feedForward: gatedMlp(shape.intermediateSize, { activation: readActivation(config, "hidden_act", "silu") }),
    norms: { attentionInput: NORM, feedForwardInput: NORM },
    parallel: false,
    residualMultiplier: 1,
  };
  return decoderConfig("olmo", shape, {
    ropes: [parseRope(config, { ...shape, theta: 10_000 })],
    layers: Array(shape.numLayers).fill(layer),
    finalNorm: NORM,
    tieWordEmbeddings: config.boolean("tie_word_embeddings", false),
  });
}

/** OLMo 1. */
export const OLMO = decoderArchitecture({ modelTypes: ["olmo"], parseConfig });
