/**
 * Apertus: norms of query and key heads, and a plain feed-forward layer whose activation, xIELU, is learned. Follows transformers' `modeling_apertus.py`.
 * @module
 */
import type { ModelConfig } from "../architecture.ts";
import { ConfigReader } from "../config_reader.ts";
import { decoderArchitecture } from "../decoder.ts";
import { decoderConfig, plainAttention, plainMlp, preNormLayer, readShape, renamedSource, rmsNorm } from "../decoder_config.ts";
import { parseRope } from "../rope_config.ts";
import { refuseUnimplemented } from "../unimplemented_keys.ts";

/** What a config without rope parameters has, as transformers' configuration class. */
const MISSING_ROPE = {
  ...{ rope_type: "llama3", rope_theta: 12_000_000, factor: 8, original_max_position_embeddings: 8192 },
  ...{ low_freq_factor: 1, high_freq_factor: 4 },
};

/** Checkpoint names of tensors within a layer, by the stored ones. */
const LAYER_NAMES: Readonly<Record<string, string>> = {
  "input_layernorm": "attention_layernorm",
  "post_attention_layernorm": "feedforward_layernorm",
};

function parseConfig(values: Record<string, unknown>): ModelConfig {
  const config = new ConfigReader(values, "config.json");
  refuseUnimplemented(config, ["attention_bias", "qk_norm", "mlp_bias"]);
  // Releases have keys of their training code, with the values that transformers computes.
  for (const [key, only] of [["post_norm", false], ["qk_norm", true], ["mlp_bias", false]] as const) {
    if (config.boolean(key, only) !== only) throw config.refuse(key, `${only}`);
  }
  if (config.has("hidden_act") && config.raw("hidden_act") !== "xielu") throw config.refuse("hidden_act", `"xielu"`);
  const shape = readShape(config, { contextTokens: 65_536 });
  const eps = config.positive("rms_norm_eps", 1e-5);
  const bias = config.boolean("attention_bias", false);
  const attention = plainAttention(shape.headDim, {
    qkvBias: bias,
    outputBias: bias,
    queryNorm: { ...rmsNorm("self_attn.q_norm", eps), scope: "head" },
    keyNorm: { ...rmsNorm("self_attn.k_norm", eps), scope: "head" },
  });
  const hasRope = ["rope_parameters", "rope_scaling", "rope_theta"].some((key) => config.has(key));
  const rotated = hasRope ? config : config.with({ rope_parameters: MISSING_ROPE });
  return decoderConfig("apertus", shape, {
    ropes: [parseRope(rotated, { ...shape, theta: 12_000_000 })],
    layers: Array(shape.numLayers).fill(
      preNormLayer(attention, plainMlp(shape.intermediateSize, "xielu", { bias: false }), eps),
    ),
    finalNorm: rmsNorm("model.norm", eps),
    tieWordEmbeddings: config.boolean("tie_word_embeddings", false),
  });
}

/** Apertus. */
export const APERTUS = decoderArchitecture({
  modelTypes: ["apertus"],
  parseConfig,
  layerSource: (name) => renamedSource(name, LAYER_NAMES),
});
