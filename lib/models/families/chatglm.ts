/**
 * ChatGLM 2 and 3, and GLM-4-9B as it was first released: GLM under names of Megatron. Follows what their published `modeling_chatglm.py`
 * compute; the first ChatGLM is another model of the same name.
 * @module
 */
import type { ModelConfig, TensorSource } from "../architecture.ts";
import { ConfigReader } from "../config_reader.ts";
import { decoderArchitecture, REMOTE_CODE } from "../decoder.ts";
import {
  decoderConfig,
  type DecoderShape,
  fusedGateUp,
  fusedQkv,
  gatedMlp,
  plainAttention,
  preNormLayer,
  rmsNorm,
} from "../decoder_config.ts";
import { refuseUnimplemented } from "../unimplemented_keys.ts";

/** Settings with the one value that these models have: others would be other computations. */
const REQUIRED: Readonly<Record<string, boolean>> = {
  rmsnorm: true,
  post_layer_norm: true,
  original_rope: true,
  apply_residual_connection_post_layernorm: false,
  add_bias_linear: false,
  position_encoding_2d: false,
  interleaved_qkv: false,
};

function readChatglmShape(config: ConfigReader): DecoderShape {
  const numHeads = config.integer("num_attention_heads");
  const numKvHeads = config.boolean("multi_query_attention", false) ? config.integer("multi_query_group_num", 1) : numHeads;
  if (numHeads % numKvHeads !== 0) throw config.refuse("multi_query_group_num", `a divisor of num_attention_heads (${numHeads})`);
  return {
    hiddenSize: config.integer("hidden_size"),
    intermediateSize: config.integer("ffn_hidden_size"),
    numLayers: config.integer("num_layers"),
    numHeads,
    numKvHeads,
    headDim: config.integer("kv_channels", 128),
    vocabSize: config.integer("padded_vocab_size"),
    contextTokens: config.integer("seq_length", 2048),
  };
}

function parseConfig(values: Record<string, unknown>): ModelConfig {
  const config = new ConfigReader(values, "config.json");
  for (const [key, required] of Object.entries(REQUIRED)) {
    if (config.boolean(key, required) !== required) throw config.refuse(key, `${required}`);
  }
  refuseUnimplemented(config);
  const shape = readChatglmShape(config);
  const dim = shape.headDim / 2;
  if (dim % 2 !== 0) throw config.refuse("kv_channels", "a multiple of 4, of which half is rotated in pairs");
  const eps = config.positive("layernorm_epsilon", 1e-5);
  const attention = plainAttention(shape.headDim, {
    qkvBias: config.boolean("add_qkv_bias", false),
    rope: { index: 0, interleaved: true },
  });
  return decoderConfig("chatglm", shape, {
    // Longer contexts came with a larger base.
    ropes: [{ dim, theta: 10_000 * config.positive("rope_ratio", 1), scaling: { type: "default" } }],
    layers: Array(shape.numLayers).fill(preNormLayer(attention, gatedMlp(shape.intermediateSize), eps)),
    finalNorm: rmsNorm("model.norm", eps),
    tieWordEmbeddings: config.boolean("tie_word_embeddings", false),
  });
}

function layerSource(name: string, config: ModelConfig): TensorSource | undefined {
  if (name === "self_attn.o_proj.weight") return { name: "self_attention.dense.weight" };
  if (name === "mlp.down_proj.weight") return { name: "mlp.dense_4h_to_h.weight" };
  return fusedQkv(name, "self_attention.query_key_value", config) ?? fusedGateUp(name, "mlp.dense_h_to_4h", config);
}

/** ChatGLM. */
export const CHATGLM = decoderArchitecture({
  modelTypes: ["chatglm"],
  refusesExport: REMOTE_CODE,
  parseConfig,
  layerPrefix: (layer) => `transformer.encoder.layers.${layer}.`,
  layerSource,
  rootNames: {
    "model.embed_tokens.weight": "transformer.embedding.word_embeddings.weight",
    "model.norm.weight": "transformer.encoder.final_layernorm.weight",
    "lm_head.weight": "transformer.output_layer.weight",
  },
  ignoredTensorReason: (name) =>
    name === "transformer.rotary_pos_emb.inv_freq" ? "rotary frequencies are recomputed from the config" : undefined,
});
