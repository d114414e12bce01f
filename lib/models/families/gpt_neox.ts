/**
 * GPT-NeoX 20B, Pythia, Dolly 2, RedPajama-INCITE, StableLM alpha: LayerNorm, a plain feed-forward layer beside the attention or behind it, heads rotated in part.
 * Follows transformers' `modeling_gpt_neox.py`.
 * @module
 */
import type { ModelConfig } from "../architecture.ts";
import { ConfigReader } from "../config_reader.ts";
import { decoderArchitecture } from "../decoder.ts";
import {
  decoderConfig,
  layerNorm,
  plainAttention,
  plainMlp,
  qkvByHeads,
  readActivation,
  readShape,
  renamedSource,
} from "../decoder_config.ts";
import { parseRope } from "../rope_config.ts";
import { refuseUnimplemented } from "../unimplemented_keys.ts";

/** Checkpoint names of tensors within a layer, by the stored ones. */
const LAYER_NAMES: Readonly<Record<string, string>> = {
  "self_attn.o_proj": "attention.dense",
  "mlp.up_proj": "mlp.dense_h_to_4h",
  "mlp.down_proj": "mlp.dense_4h_to_h",
};

function parseConfig(values: Record<string, unknown>): ModelConfig {
  const written = new ConfigReader(values, "config.json");
  refuseUnimplemented(written, ["attention_bias", "use_parallel_residual", "rotary_pct"]);
  const config = written.aliased({ rope_theta: "rotary_emb_base", partial_rotary_factor: "rotary_pct" });
  const shape = readShape(config, { contextTokens: 2048 });
  if (shape.numKvHeads !== shape.numHeads) throw config.refuse("num_key_value_heads", `num_attention_heads (${shape.numHeads})`);
  const eps = config.positive("layer_norm_eps", 1e-5);
  const bias = config.boolean("attention_bias", true);
  const layer = {
    attention: plainAttention(shape.headDim, { qkvBias: bias, outputBias: bias }),
    feedForward: plainMlp(shape.intermediateSize, readActivation(config, "hidden_act", "gelu")),
    norms: {
      attentionInput: layerNorm("input_layernorm", eps),
      feedForwardInput: layerNorm("post_attention_layernorm", eps),
    },
    parallel: config.boolean("use_parallel_residual", true),
    residualMultiplier: 1,
  };
  return decoderConfig("gpt_neox", shape, {
    ropes: [parseRope(config, { ...shape, theta: 10_000, partialRotaryFactor: 0.25 })],
    layers: Array(shape.numLayers).fill(layer),
    finalNorm: layerNorm("model.norm", eps),
    tieWordEmbeddings: config.boolean("tie_word_embeddings", false),
  });
}

/** GPT-NeoX. */
export const GPT_NEOX = decoderArchitecture({
  modelTypes: ["gpt_neox"],
  parseConfig,
  layerPrefix: (layer) => `gpt_neox.layers.${layer}.`,
  layerSource: (name, config) => renamedSource(name, LAYER_NAMES) ?? qkvByHeads(name, "attention.query_key_value", config),
  rootNames: {
    "model.embed_tokens.weight": "gpt_neox.embed_in.weight",
    "model.norm.weight": "gpt_neox.final_layer_norm.weight",
    "model.norm.bias": "gpt_neox.final_layer_norm.bias",
    "lm_head.weight": "embed_out.weight",
  },
  ignoredTensorReason: (name) => /\.attention\.(bias|masked_bias)$/.test(name) ? "masks are made from positions" : undefined,
});
