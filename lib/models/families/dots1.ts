/**
 * dots.llm1: Qwen 3's attention, DeepSeek-V3's experts. Follows transformers' `modeling_dots1.py`.
 * @module
 */
import type { ModelConfig } from "../architecture.ts";
import { ConfigReader } from "../config_reader.ts";
import { decoderArchitecture } from "../decoder.ts";
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
import { correctedMoe, extraLayerReason, readMlpLayers, sharedExpertsSource, widestIntermediate } from "../moe_config.ts";
import { parseRope } from "../rope_config.ts";
import { refuseUnimplemented } from "../unimplemented_keys.ts";

/** Releases write "noaux_tc", which names how experts are chosen, where others write how they are scored. */
function withScoring(values: Record<string, unknown>): Record<string, unknown> {
  return values.scoring_func === "noaux_tc" ? { ...values, scoring_func: "sigmoid" } : values;
}

function parseConfig(values: Record<string, unknown>): ModelConfig {
  const config = new ConfigReader(withScoring(values), "config.json");
  refuseUnimplemented(config, ["n_routed_experts", "attention_bias", "sliding_window", "layer_types"]);
  const shape = readShape(config, { contextTokens: 2048 });
  const eps = config.positive("rms_norm_eps", 1e-6);
  const activation = readActivation(config, "hidden_act", "silu");
  const bias = config.boolean("attention_bias", false);
  const attention = plainAttention(shape.headDim, {
    qkvBias: bias,
    outputBias: bias,
    queryNorm: { ...rmsNorm("self_attn.q_norm", eps), scope: "head" },
    keyNorm: { ...rmsNorm("self_attn.k_norm", eps), scope: "head" },
  });
  const windowTokens = readWindow(config, 4096), plainLayers = config.count("max_window_layers", 62);
  const sliding = readSlidingLayers(
    config,
    shape.numLayers,
    (layer) => windowTokens !== undefined && layer >= plainLayers,
  );
  const keys = { experts: "n_routed_experts", shared: "n_shared_experts" };
  const moe = correctedMoe(config, activation, keys, { expertSize: 1408, sharedExperts: 0, normalize: false, scale: 1 });
  const dense = gatedMlp(shape.intermediateSize, { activation });
  const feedForwards = readMlpLayers(config, shape.numLayers, 0).map((sparse) => sparse ? moe : dense);
  return decoderConfig("dots1", { ...shape, intermediateSize: widestIntermediate(feedForwards) }, {
    ropes: [parseRope(config, { ...shape, theta: 10_000 })],
    layers: feedForwards.map((feedForward, layer) =>
      preNormLayer({ ...attention, windowTokens: sliding[layer] ? windowTokens : undefined }, feedForward, eps)
    ),
    finalNorm: rmsNorm("model.norm", eps),
    tieWordEmbeddings: config.boolean("tie_word_embeddings", false),
  });
}

/** dots.llm1. */
export const DOTS1 = decoderArchitecture({
  modelTypes: ["dots1"],
  parseConfig,
  layerSource: sharedExpertsSource,
  ignoredTensorReason: extraLayerReason,
});
