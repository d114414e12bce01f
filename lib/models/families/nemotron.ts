/**
 * Nemotron-4, Minitron and Mistral-NeMo-Minitron's elder: LayerNorm whose weights are stored as distances from 1, feed-forward layers without a gate, heads rotated
 * by half. Follows transformers' `modeling_nemotron.py`. Llama-Nemotron Nano and Super v1 8B and 70B are of the Llama family.
 * @module
 */
import type { NormConfig } from "../../layers/model_config.ts";
import type { ModelConfig } from "../architecture.ts";
import { ConfigReader } from "../config_reader.ts";
import { decoderArchitecture } from "../decoder.ts";
import { decoderConfig, plainAttention, readActivation, readShape } from "../decoder_config.ts";
import { parseRope } from "../rope_config.ts";
import { refuseUnimplemented } from "../unimplemented_keys.ts";

function parseConfig(values: Record<string, unknown>): ModelConfig {
  const config = new ConfigReader(values, "config.json");
  refuseUnimplemented(config, ["attention_bias", "mlp_bias"]);
  const shape = readShape(config, { contextTokens: 4096 });
  const eps = config.positive("norm_eps", 1e-5);
  const bias = config.boolean("attention_bias", false);
  const norm = (name: string): NormConfig => ({ kind: "layer", name, eps, bias: true, offset: 1 });
  const layer = {
    attention: plainAttention(shape.headDim, { qkvBias: bias, outputBias: bias }),
    feedForward: {
      kind: "plain" as const,
      activation: readActivation(config, "hidden_act", "relu2"),
      intermediateSize: shape.intermediateSize,
      bias: config.boolean("mlp_bias", false),
    },
    norms: { attentionInput: norm("input_layernorm"), feedForwardInput: norm("post_attention_layernorm") },
    parallel: false,
    residualMultiplier: 1,
  };
  return decoderConfig("nemotron", shape, {
    ropes: [parseRope(config, { ...shape, theta: 10_000, partialRotaryFactor: 0.5 })],
    layers: Array(shape.numLayers).fill(layer),
    finalNorm: norm("model.norm"),
    tieWordEmbeddings: config.boolean("tie_word_embeddings", false),
  });
}

/** Nemotron. */
export const NEMOTRON = decoderArchitecture({ modelTypes: ["nemotron"], parseConfig });
