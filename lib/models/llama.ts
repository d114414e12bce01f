/**
 * Llama 1, 2, 3, 3.1, 3.2 and 3.3: the tensors, the configuration and the decoder block. Follows transformers' `modeling_llama.py`.
 * @module
 */
import { attention } from "../layers/attention.ts";
import { mlp } from "../layers/mlp.ts";
import type { Pass } from "../layers/pass.ts";
import type { Architecture, ModelConfig, ModelTensors, TensorSpec } from "./architecture.ts";
import { ConfigReader } from "./config_reader.ts";
import { parseRope } from "./rope_config.ts";

const EMBEDDING_NAME = "model.embed_tokens.weight";
const HEAD_NAME = "lm_head.weight";
const FINAL_NORM_NAME = "model.norm.weight";

/**
 * Keys that would change the computation in a way this block does not have, with the values that switch each off (null always does).
 * A key in neither this table nor `parseConfig` is taken as metadata: checkpoints carry any number of those (`torch_dtype`,
 * `transformers_version`, `_name_or_path`, training settings), and refusing unknown keys would refuse most real models. A mechanism
 * that brings weights of its own is caught anyway, by its tensors, since each tensor must be used or named as ignored.
 */
const OFF_VALUES: Record<string, readonly unknown[]> = {
  quantization_config: [],
  sliding_window: [],
  use_sliding_window: [false],
  attention_chunk_size: [],
  layer_types: [],
  no_rope_layers: [],
  num_experts: [0],
  num_local_experts: [0],
  attn_logit_softcapping: [],
  final_logit_softcapping: [],
  query_pre_attn_scalar: [],
  attention_multiplier: [],
  embedding_multiplier: [1],
  residual_multiplier: [1],
  logits_scaling: [1],
  logit_scale: [1],
  clip_qkv: [],
  qk_norm: [false],
  use_qk_norm: [false],
  qkv_bias: [false],
  parallel_residual: [false],
  use_parallel_residual: [false],
  alibi: [false],
  rope_interleaved: [false],
  rope_traditional: [false],
  is_encoder_decoder: [false],
  add_cross_attention: [false],
};

function parseConfig(values: Record<string, unknown>): ModelConfig {
  const config = new ConfigReader(values, "config.json");
  for (const [key, off] of Object.entries(OFF_VALUES)) {
    if (config.has(key) && !off.includes(config.raw(key))) {
      throw config.refuse(key, ["not set", ...off.map((value) => JSON.stringify(value))].join(" or "));
    }
  }
  // transformers has "swish" as another name of the same function.
  if (config.has("hidden_act") && !["silu", "swish"].includes(config.raw("hidden_act") as string)) {
    throw config.refuse("hidden_act", `"silu"`);
  }
  // pretraining_tp splits each product into slices and adds their results, which is the same product up to rounding.
  config.integer("pretraining_tp", 1);

  const hiddenSize = config.integer("hidden_size");
  const numHeads = config.integer("num_attention_heads");
  const numKvHeads = config.integer("num_key_value_heads", numHeads);
  if (numHeads % numKvHeads !== 0) throw config.refuse("num_key_value_heads", `a divisor of num_attention_heads (${numHeads})`);
  if (!config.has("head_dim") && hiddenSize % numHeads !== 0) {
    throw config.refuse("hidden_size", `a multiple of num_attention_heads (${numHeads}) where head_dim is not set`);
  }
  const headDim = config.integer("head_dim", hiddenSize / numHeads);
  if (headDim % 2 !== 0) throw config.refuse("head_dim", "even, since rotary embeddings pair its halves");
  const contextTokens = config.integer("max_position_embeddings", 2048);
  const rope = parseRope(config, contextTokens, 10_000);
  if (rope.scaling.type === "dynamic" && headDim < 4) throw config.refuse("head_dim", "above 2 for dynamic rope");
  return {
    modelType: "llama",
    hiddenSize,
    intermediateSize: config.integer("intermediate_size"),
    numLayers: config.integer("num_hidden_layers"),
    numHeads,
    numKvHeads,
    headDim,
    vocabSize: config.integer("vocab_size"),
    rmsNormEps: config.positive("rms_norm_eps", 1e-6),
    ropeTheta: rope.theta,
    ropeScaling: rope.scaling,
    contextTokens,
    tieWordEmbeddings: config.boolean("tie_word_embeddings", false),
    attentionBias: config.boolean("attention_bias", false),
    mlpBias: config.boolean("mlp_bias", false),
  };
}

function layerPrefix(layer: number): string {
  return `model.layers.${layer}.`;
}

function layerTensors(config: ModelConfig, layer: number): TensorSpec[] {
  const { hiddenSize, intermediateSize, headDim } = config;
  const queryRows = config.numHeads * headDim, kvRows = config.numKvHeads * headDim;
  const prefix = layerPrefix(layer);
  const vector = (name: string, cols: number): TensorSpec => ({ name: prefix + name, rows: 1, cols, kind: "vector" });
  const linear = (name: string, rows: number, cols: number, bias: boolean): TensorSpec[] => [
    ...(bias ? [vector(`${name}.bias`, rows)] : []),
    { name: `${prefix}${name}.weight`, rows, cols, kind: "linear" },
  ];
  return [
    vector("input_layernorm.weight", hiddenSize),
    ...linear("self_attn.q_proj", queryRows, hiddenSize, config.attentionBias),
    ...linear("self_attn.k_proj", kvRows, hiddenSize, config.attentionBias),
    ...linear("self_attn.v_proj", kvRows, hiddenSize, config.attentionBias),
    ...linear("self_attn.o_proj", hiddenSize, queryRows, config.attentionBias),
    vector("post_attention_layernorm.weight", hiddenSize),
    ...linear("mlp.gate_proj", intermediateSize, hiddenSize, config.mlpBias),
    ...linear("mlp.up_proj", intermediateSize, hiddenSize, config.mlpBias),
    ...linear("mlp.down_proj", hiddenSize, intermediateSize, config.mlpBias),
  ];
}

function tensors(config: ModelConfig): ModelTensors {
  const { vocabSize: rows, hiddenSize: cols } = config;
  const head: TensorSpec[] = [{ name: FINAL_NORM_NAME, rows: 1, cols, kind: "vector" }];
  if (!config.tieWordEmbeddings) head.push({ name: HEAD_NAME, rows, cols, kind: "head" });
  return {
    embedding: [{ name: EMBEDDING_NAME, rows, cols, kind: "embedding" }],
    layers: Array.from({ length: config.numLayers }, (_, layer) => layerTensors(config, layer)),
    head,
    embeddingName: EMBEDDING_NAME,
    headName: config.tieWordEmbeddings ? EMBEDDING_NAME : HEAD_NAME,
    finalNormName: FINAL_NORM_NAME,
    layerPrefix,
  };
}

function ignoredTensorReason(name: string, config: ModelConfig): string | undefined {
  if (name.endsWith(".rotary_emb.inv_freq")) return "rotary frequencies are recomputed from the config";
  if (name === HEAD_NAME && config.tieWordEmbeddings) return "tied to the embedding (tie_word_embeddings)";
  return undefined;
}

/** Enqueues one decoder block: attention, then the gated MLP, each on the normalised residual stream. */
async function block(pass: Pass, layer: number): Promise<void> {
  const prefix = layerPrefix(layer);
  const { attentionBias, mlpBias } = pass.config;
  await attention(pass, layer, `${prefix}self_attn.`, `${prefix}input_layernorm.weight`, attentionBias);
  await mlp(pass, `${prefix}mlp.`, `${prefix}post_attention_layernorm.weight`, mlpBias);
}

/** The Llama family. */
export const LLAMA: Architecture = { modelTypes: ["llama"], parseConfig, tensors, ignoredTensorReason, block };
