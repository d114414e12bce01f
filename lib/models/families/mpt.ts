/**
 * MPT 7B and 30B: LayerNorm without biases, ALiBi, a plain feed-forward layer, queries, keys and values in one matrix, which may be clipped. Follows transformers'
 * `modeling_mpt.py`.
 * @module
 */
import { mptAlibiSlopes } from "../alibi.ts";
import type { ModelConfig } from "../architecture.ts";
import { ConfigReader } from "../config_reader.ts";
import { decoderArchitecture } from "../decoder.ts";
import { decoderConfig, fusedQkv, layerNorm, plainAttention, plainMlp, readShape, renamedSource } from "../decoder_config.ts";
import { refuseUnimplemented } from "../unimplemented_keys.ts";

/** Checkpoint names of tensors within a layer, by the stored ones. */
const LAYER_NAMES: Readonly<Record<string, string>> = {
  "input_layernorm": "norm_1",
  "post_attention_layernorm": "norm_2",
  "self_attn.o_proj": "attn.out_proj",
  "mlp.up_proj": "ffn.up_proj",
  "mlp.down_proj": "ffn.down_proj",
};

/** Keys with the values that transformers computes. */
const FIXED: Readonly<Record<string, readonly unknown[]>> = {
  no_bias: [true],
  norm_type: ["low_precision_layernorm"],
  logit_scale: [],
  embedding_fraction: [1],
  expansion_ratio: [4],
};

/** The same of `attn_config`. */
const FIXED_ATTENTION: Readonly<Record<string, readonly unknown[]>> = {
  alibi: [true],
  attn_type: ["multihead_attention"],
  prefix_lm: [false],
  qk_ln: [false],
};

function checkFixed(config: ConfigReader, fixed: typeof FIXED): void {
  for (const [key, known] of Object.entries(fixed)) {
    if (config.has(key) && !known.includes(config.raw(key))) {
      throw config.refuse(key, known.map((value) => JSON.stringify(value)).join(" or ") || "not set");
    }
  }
}

function parseConfig(values: Record<string, unknown>): ModelConfig {
  const written = new ConfigReader(values, "config.json");
  checkFixed(written, FIXED);
  refuseUnimplemented(written, ["logit_scale"]);
  const config = written.aliased({
    ...{ hidden_size: "d_model", num_hidden_layers: "n_layers", num_attention_heads: "n_heads" },
    max_position_embeddings: "max_seq_len",
  });
  const shape = readShape(config, { contextTokens: 2048, intermediateSize: 4 * config.integer("hidden_size") });
  if (shape.numKvHeads !== shape.numHeads) throw config.refuse("num_key_value_heads", `n_heads (${shape.numHeads})`);
  const attention = config.object("attn_config") ?? new ConfigReader({}, "attn_config of config.json");
  checkFixed(attention, FIXED_ATTENTION);
  // Positions that are learned are those of models without ALiBi, whatever learned_pos_emb says.
  const eps = config.positive("layer_norm_epsilon", 1e-5);
  const norm = (name: string) => layerNorm(name, eps, { bias: false });
  const layer = {
    attention: plainAttention(shape.headDim, {
      rope: undefined,
      scale: attention.positive("softmax_scale", 1 / Math.sqrt(shape.headDim)),
      clip: attention.has("clip_qkv") ? attention.positive("clip_qkv") : undefined,
    }),
    feedForward: plainMlp(shape.intermediateSize, "gelu", { bias: false }),
    norms: { attentionInput: norm("input_layernorm"), feedForwardInput: norm("post_attention_layernorm") },
    parallel: false,
    residualMultiplier: 1,
  };
  return decoderConfig("mpt", shape, {
    ropes: [],
    alibiSlopes: mptAlibiSlopes(shape.numHeads, attention.positive("alibi_bias_max", 8)),
    layers: Array(shape.numLayers).fill(layer),
    finalNorm: norm("model.norm"),
    tieWordEmbeddings: config.boolean("tie_word_embeddings", true),
  });
}

/** MPT. */
export const MPT = decoderArchitecture({
  modelTypes: ["mpt"],
  parseConfig,
  layerPrefix: (layer) => `transformer.blocks.${layer}.`,
  layerSource: (name, config) => renamedSource(name, LAYER_NAMES) ?? fusedQkv(name, "attn.Wqkv", config),
  rootNames: { "model.embed_tokens.weight": "transformer.wte.weight", "model.norm.weight": "transformer.norm_f.weight" },
});
