/**
 * OLMo 2: norms of what sublayers add instead of what they read, and of all queries and all keys together. Follows transformers'
 * `modeling_olmo2.py`.
 * @module
 */
import type { ModelConfig } from "./architecture.ts";
import { ConfigReader } from "./config_reader.ts";
import { decoderArchitecture } from "./decoder.ts";
import { decoderConfig, gatedMlp, plainAttention, readActivation, readShape, rmsNorm } from "./decoder_config.ts";
import { parseRope } from "./rope_config.ts";
import { refuseUnimplemented } from "./unimplemented_keys.ts";

function parseConfig(values: Record<string, unknown>): ModelConfig {
  const config = new ConfigReader(values, "config.json");
  refuseUnimplemented(config, ["attention_bias"]);
  const shape = readShape(config, { contextTokens: 2048 });
  const eps = config.positive("rms_norm_eps", 1e-5);
  const bias = config.boolean("attention_bias", false);
  const attention = plainAttention(shape.headDim, {
    qkvBias: bias,
    outputBias: bias,
    queryNorm: { ...rmsNorm("self_attn.q_norm", eps), scope: "whole" },
    keyNorm: { ...rmsNorm("self_attn.k_norm", eps), scope: "whole" },
  });
  const layer = {
    attention,
    feedForward: gatedMlp(shape.intermediateSize, { activation: readActivation(config, "hidden_act", "silu") }),
    norms: {
      attentionOutput: rmsNorm("post_attention_layernorm", eps),
      feedForwardOutput: rmsNorm("post_feedforward_layernorm", eps),
    },
    parallel: false,
    residualMultiplier: 1,
  };
  return decoderConfig("olmo2", shape, {
    ropes: [parseRope(config, { ...shape, theta: 10_000 })],
    layers: Array(shape.numLayers).fill(layer),
    finalNorm: rmsNorm("model.norm", eps),
    tieWordEmbeddings: config.boolean("tie_word_embeddings", false),
  });
}

/** OLMo 2. */
export const OLMO2 = decoderArchitecture({ modelTypes: ["olmo2"], parseConfig });
