/**
 * Granite 3: Llama with multipliers of embeddings, scores, residuals and logits. Follows transformers' `modeling_granite.py`.
 * @module
 */
import type { ModelConfig } from "../architecture.ts";
import { ConfigReader } from "../config_reader.ts";
import { decoderArchitecture } from "../decoder.ts";
import { decoderConfig, gatedMlp, plainAttention, preNormLayer, readActivation, readShape, rmsNorm } from "../decoder_config.ts";
import { parseRope } from "../rope_config.ts";
import { refuseUnimplemented } from "../unimplemented_keys.ts";

function parseConfig(values: Record<string, unknown>): ModelConfig {
  const config = new ConfigReader(values, "config.json");
  const multipliers = ["embedding_multiplier", "attention_multiplier", "residual_multiplier", "logits_scaling"];
  refuseUnimplemented(config, [...multipliers, "attention_bias", "mlp_bias"]);
  const shape = readShape(config, { contextTokens: 2048 });
  const eps = config.positive("rms_norm_eps", 1e-6);
  const bias = config.boolean("attention_bias", false);
  const attention = plainAttention(shape.headDim, {
    qkvBias: bias,
    outputBias: bias,
    scale: config.positive("attention_multiplier", 1),
  });
  const feedForward = gatedMlp(shape.intermediateSize, {
    activation: readActivation(config, "hidden_act", "silu"),
    bias: config.boolean("mlp_bias", false),
  });
  const residualMultiplier = config.positive("residual_multiplier", 1);
  return decoderConfig("granite", shape, {
    ropes: [parseRope(config, { ...shape, theta: 10_000 })],
    layers: Array(shape.numLayers).fill(preNormLayer(attention, feedForward, eps, { residualMultiplier })),
    finalNorm: rmsNorm("model.norm", eps),
    tieWordEmbeddings: config.boolean("tie_word_embeddings", false),
    embeddingMultiplier: config.positive("embedding_multiplier", 1),
    logitsMultiplier: 1 / config.positive("logits_scaling", 1),
  });
}

/** Granite. */
export const GRANITE = decoderArchitecture({ modelTypes: ["granite"], parseConfig });
