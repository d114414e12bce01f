/**
 * BLOOM and BLOOMZ: LayerNorm, of the embeddings too, ALiBi, a plain feed-forward layer, biases. Follows transformers' `modeling_bloom.py`.
 * @module
 */
import { alibiSlopes } from "../alibi.ts";
import type { ModelConfig } from "../architecture.ts";
import { ConfigReader } from "../config_reader.ts";
import { decoderArchitecture, type DecoderNames } from "../decoder.ts";
import { decoderConfig, layerNorm, plainAttention, plainMlp, qkvByHeads, readShape, renamedSource } from "../decoder_config.ts";
import { refuseUnimplemented } from "../unimplemented_keys.ts";

/** Checkpoint names of tensors within a layer, by the stored ones. */
const LAYER_NAMES: Readonly<Record<string, string>> = {
  "self_attn.o_proj": "self_attention.dense",
  "mlp.up_proj": "mlp.dense_h_to_4h",
  "mlp.down_proj": "mlp.dense_4h_to_h",
};

function names(prefix: string): DecoderNames {
  return {
    layerPrefix: (layer) => `${prefix}h.${layer}.`,
    rootNames: {
      "model.embed_tokens.weight": `${prefix}word_embeddings.weight`,
      "model.embed_layernorm.weight": `${prefix}word_embeddings_layernorm.weight`,
      "model.embed_layernorm.bias": `${prefix}word_embeddings_layernorm.bias`,
      "model.norm.weight": `${prefix}ln_f.weight`,
      "model.norm.bias": `${prefix}ln_f.bias`,
    },
  };
}

function parseConfig(values: Record<string, unknown>): ModelConfig {
  const written = new ConfigReader(values, "config.json");
  refuseUnimplemented(written);
  // pretraining_tp and slow_but_exact split products into slices, which gives the same up to rounding.
  const config = written.aliased({ hidden_size: "n_embed" })
    .aliased({ num_hidden_layers: "n_layer", num_attention_heads: "n_head", max_position_embeddings: "seq_length" });
  if (config.boolean("apply_residual_connection_post_layernorm", false)) {
    throw config.refuse("apply_residual_connection_post_layernorm", "false");
  }
  const shape = readShape(config, { contextTokens: 2048, intermediateSize: 4 * config.integer("hidden_size") });
  if (shape.numKvHeads !== shape.numHeads) throw config.refuse("num_key_value_heads", `num_attention_heads (${shape.numHeads})`);
  const eps = config.positive("layer_norm_epsilon", 1e-5);
  const layer = {
    attention: plainAttention(shape.headDim, { qkvBias: true, outputBias: true, rope: undefined }),
    feedForward: plainMlp(shape.intermediateSize, "gelu_tanh"),
    norms: {
      attentionInput: layerNorm("input_layernorm", eps),
      feedForwardInput: layerNorm("post_attention_layernorm", eps),
    },
    parallel: false,
    residualMultiplier: 1,
  };
  return decoderConfig("bloom", shape, {
    ropes: [],
    alibiSlopes: alibiSlopes(shape.numHeads),
    layers: Array(shape.numLayers).fill(layer),
    embeddingNorm: layerNorm("model.embed_layernorm", eps),
    finalNorm: layerNorm("model.norm", eps),
    tieWordEmbeddings: config.boolean("tie_word_embeddings", true),
  });
}

/** BLOOM. */
export const BLOOM = decoderArchitecture({
  // Releases were saved without a head and so without the prefix.
  ...names(""),
  otherNames: [names("transformer.")],
  modelTypes: ["bloom"],
  parseConfig,
  layerSource: (name, config) => renamedSource(name, LAYER_NAMES) ?? qkvByHeads(name, "self_attention.query_key_value", config),
});
