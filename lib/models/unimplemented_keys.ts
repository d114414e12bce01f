/**
 * Keys of a config.json that would change the computation, and how a family says which of them it implements.
 * @module
 */
import type { ConfigReader } from "./config_reader.ts";

/**
 * Keys that some family's computation depends on, with the values that switch each off (null always does). A key that is neither in this table
 * nor read by a family is taken as metadata: checkpoints carry any number of those (`torch_dtype`, `transformers_version`, `_name_or_path`,
 * training settings), and refusing unknown keys would refuse most real models. A mechanism that brings weights of its own is caught anyway, by
 * its tensors, since each tensor must be used or named as ignored.
 */
const OFF_VALUES: Readonly<Record<string, readonly unknown[]>> = {
  sliding_window: [],
  use_sliding_window: [false],
  sliding_window_pattern: [],
  attention_chunk_size: [],
  layer_types: [],
  no_rope_layers: [],
  num_experts: [0],
  num_local_experts: [0],
  n_routed_experts: [0],
  attention_bias: [false],
  mlp_bias: [false],
  bias: [false],
  lm_head_bias: [false],
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
  qk_layernorm: [false],
  qkv_bias: [false],
  use_qkv_bias: [false],
  parallel_residual: [false],
  use_parallel_residual: [false],
  alibi: [false],
  use_parallel_block: [false],
  use_gated_activation: [true],
  use_parallel_embedding: [false],
  position_embedding_type: ["rope"],
  full_attn_mod: [1],
  rotary_pct: [1],
  pre_seq_len: [],
  quantization_bit: [0],
  rope_traditional: [false],
  rope_local_base_freq: [],
  original_max_position_embeddings: [],
  use_bidirectional_attention: [false],
  is_encoder_decoder: [false],
  add_cross_attention: [false],
};

/**
 * Refuses a config that switches on what neither the common block nor the family has.
 * @param implemented Keys of the table that the family reads itself.
 * @throws {UnsupportedError} that names the key.
 */
export function refuseUnimplemented(config: ConfigReader, implemented: readonly string[] = []): void {
  for (const [key, off] of Object.entries(OFF_VALUES)) {
    if (implemented.includes(key) || !config.has(key) || off.includes(config.raw(key))) continue;
    throw config.refuse(key, ["not set", ...off.map((value) => JSON.stringify(value))].join(" or "));
  }
}
