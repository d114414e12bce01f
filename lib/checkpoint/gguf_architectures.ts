/**
 * What each architecture of GGUF files has beyond what all have, by the keys of config.json. Facts: gguf-py's constants.py, llama.cpp's
 * `conversion/` and, for what is not written, its `src/models/`.
 *
 * `rope_interleaved`: weights of queries and keys are stored so that rotary embeddings pair neighbours (`permute`); `norm_weights_whole`: norms with
 * their 1 added. Both are computed with as they are.
 * @module
 */
import { UnsupportedError } from "../errors.ts";
import type { GgufHeader } from "./gguf.ts";
import type { ArchitectureKeys } from "./gguf_keys.ts";

/** Keys of a config.json. */
export type Config = Record<string, unknown>;

/** Sizes that more than one architecture's settings depend on. */
export interface Sizes {
  layers: number;
  heads: number;
  kvHeads: number;
  hiddenSize: number;
  headDim: number;
  intermediateSize: number;
}

/** Ways that routers score (gguf-py, ExpertGatingFuncType). */
const SOFTMAX = 1, SIGMOID = 2;

const experts = (keys: ArchitectureKeys, name: string): Config => ({
  [name]: keys.number("expert_count"),
  num_experts_per_tok: keys.number("expert_used_count"),
});

/** Gemma's scale of attention where a model of so many layers is the largest (`f_attention_scale`). */
const gemmaScalar = ({ layers, heads, hiddenSize, headDim }: Sizes, largest: number): number =>
  layers === largest ? hiddenSize / heads : headDim;

/** The share of a head that is rotated. */
const partialRotary = (keys: ArchitectureKeys, { headDim }: Sizes): Config => ({
  partial_rotary_factor: keys.number("rope.dimension_count", headDim) / headDim,
});

/** Whether queries, keys and values have biases. */
const attentionBias = (keys: ArchitectureKeys): Config => ({ attention_bias: keys.hasTensor("attn_q.bias") });

const graniteScales = (keys: ArchitectureKeys): Config => ({
  rope_interleaved: true,
  attention_multiplier: keys.number("attention.scale"),
  embedding_multiplier: keys.number("embedding_scale", 1),
  residual_multiplier: keys.number("residual_scale", 1),
  logits_scaling: keys.number("logit_scale", 1),
});

/** Settings of experts that DeepSeek's family and GLM's share. */
function sharedExperts(keys: ArchitectureKeys): Config {
  return {
    ...experts(keys, "n_routed_experts"),
    moe_intermediate_size: keys.number("expert_feed_forward_length"),
    n_shared_experts: keys.number("expert_shared_count"),
    first_k_dense_replace: keys.count("leading_dense_block_count"),
    routed_scaling_factor: keys.number("expert_weights_scale", 1),
    norm_topk_prob: keys.boolean("expert_weights_norm", false),
  };
}

/** Groups of experts where a file does not say: those of the releases of so many experts, before their conversion wrote them. */
const GROUPS: Readonly<Record<number, [count: number, kept: number]>> = { 160: [8, 3], 256: [8, 4] };

function deepseek2(keys: ArchitectureKeys): Config {
  const rotary = keys.number("rope.dimension_count"), shared = sharedExperts(keys);
  const keyDim = keys.take("attention.key_length_mla") ?? keys.take("attention.key_length");
  const valueDim = keys.take("attention.value_length_mla") ?? keys.take("attention.value_length");
  keys.take("attention.key_length");
  const gating = keys.take("expert_gating_func") ?? (keys.hasTensor("exp_probs_b.bias") ? SIGMOID : SOFTMAX);
  if (gating !== SOFTMAX && gating !== SIGMOID) {
    throw new UnsupportedError(`Cannot use ${keys.where}: deepseek2.expert_gating_func is ${gating}, supported: 1, 2`);
  }
  const [count, kept] = GROUPS[shared.n_routed_experts as number] ?? [1, 1];
  const groups = keys.number("expert_group_count", count), keptGroups = keys.number("expert_group_used_count", kept);
  return {
    ...shared,
    head_dim: rotary,
    num_key_value_heads: null,
    qk_rope_head_dim: rotary,
    qk_nope_head_dim: Number(keyDim) - rotary,
    v_head_dim: valueDim,
    kv_lora_rank: keys.number("attention.kv_lora_rank"),
    q_lora_rank: keys.has("attention.q_lora_rank") ? keys.number("attention.q_lora_rank") : null,
    n_group: groups,
    topk_group: keptGroups,
    ...(gating === SIGMOID ? { model_type: "deepseek_v3", scoring_func: "sigmoid", topk_method: "noaux_tc" } : {
      model_type: "deepseek_v2",
      scoring_func: "softmax",
      topk_method: groups > 1 ? "group_limited_greedy" : "greedy",
    }),
  };
}

/** Settings of gated delta nets. */
function deltaNet(keys: ArchitectureKeys, sizes: Sizes): Config {
  const valueHeads = keys.number("ssm.time_step_rank");
  return {
    norm_weights_whole: true,
    full_attention_interval: keys.number("full_attention_interval", 4),
    linear_conv_kernel_dim: keys.number("ssm.conv_kernel"),
    linear_key_head_dim: keys.number("ssm.state_size"),
    linear_num_key_heads: keys.number("ssm.group_count"),
    linear_num_value_heads: valueHeads,
    linear_value_head_dim: keys.number("ssm.inner_size") / valueHeads,
    ...partialRotary(keys, sizes),
  };
}

/** By `general.architecture`; `model_type` too, where that is another name. */
export const GGUF_ARCHITECTURES: Readonly<
  Record<string, (keys: ArchitectureKeys, sizes: Sizes, header: GgufHeader) => Config>
> = {
  llama(keys) {
    // Some files have it with 0.
    const routed = keys.count("expert_count"),
      used = routed > 0 ? keys.number("expert_used_count") : keys.count("expert_used_count");
    return routed > 0
      ? { rope_interleaved: true, model_type: "mixtral", num_local_experts: routed, num_experts_per_tok: used }
      : { rope_interleaved: true, ...attentionBias(keys) };
  },
  qwen2: () => ({}),
  qwen2moe: (keys) => ({
    model_type: "qwen2_moe",
    ...experts(keys, "num_experts"),
    moe_intermediate_size: keys.number("expert_feed_forward_length"),
    shared_expert_intermediate_size: keys.number("expert_shared_feed_forward_length"),
  }),
  qwen3: () => ({}),
  qwen3moe: (keys) => ({
    model_type: "qwen3_moe",
    ...experts(keys, "num_experts"),
    moe_intermediate_size: keys.number("expert_feed_forward_length"),
    norm_topk_prob: true,
  }),
  gemma: () => ({ norm_weights_whole: true, hidden_act: "gelu_pytorch_tanh" }),
  gemma2: (keys, sizes) => ({
    norm_weights_whole: true,
    hidden_activation: "gelu_pytorch_tanh",
    query_pre_attn_scalar: gemmaScalar(sizes, 46),
    attn_logit_softcapping: keys.number("attn_logit_softcapping", 50),
    final_logit_softcapping: keys.number("final_logit_softcapping", 30),
    sliding_window: keys.number("attention.sliding_window", 4096),
  }),
  gemma3: (keys, sizes) => ({
    model_type: "gemma3_text",
    norm_weights_whole: true,
    hidden_activation: "gelu_pytorch_tanh",
    query_pre_attn_scalar: gemmaScalar(sizes, 62),
    sliding_window: keys.number("attention.sliding_window"),
    sliding_window_pattern: keys.number("attention.sliding_window_pattern", 6),
    rope_local_base_freq: keys.number("rope.freq_base_swa", 10_000),
    ...(keys.has("final_logit_softcapping") && { final_logit_softcapping: keys.number("final_logit_softcapping") }),
  }),
  phi3(keys, sizes) {
    const window = keys.count("attention.sliding_window");
    return { sliding_window: window === 0 ? null : window, ...partialRotary(keys, sizes) };
  },
  glm4: (keys, sizes) => ({ ...attentionBias(keys), ...partialRotary(keys, sizes) }),
  glm4moe(keys, sizes) {
    keys.only("expert_gating_func", SIGMOID);
    return {
      model_type: "glm4_moe",
      ...sharedExperts(keys),
      ...attentionBias(keys),
      ...partialRotary(keys, sizes),
      use_qk_norm: keys.hasTensor("attn_q_norm.weight"),
      n_group: keys.number("expert_group_count", 1),
      topk_group: keys.number("expert_group_used_count", 1),
    };
  },
  deepseek2,
  "gpt-oss": (keys) => ({
    model_type: "gpt_oss",
    ...experts(keys, "num_local_experts"),
    ...attentionBias(keys),
    intermediate_size: keys.number("expert_feed_forward_length"),
    sliding_window: keys.number("attention.sliding_window"),
  }),
  olmo2: () => ({}),
  granite: (keys) => graniteScales(keys),
  granitemoe: (keys) => ({ ...graniteScales(keys), ...experts(keys, "num_local_experts") }),
  "command-r": (keys) => ({
    model_type: "cohere",
    logit_scale: keys.number("logit_scale"),
    use_qk_norm: keys.hasTensor("attn_q_norm.weight"),
  }),
  cohere2: (keys) => ({
    logit_scale: keys.number("logit_scale"),
    sliding_window: keys.number("attention.sliding_window"),
    // As llama.cpp has it, which reads no pattern.
    sliding_window_pattern: 4,
  }),
  stablelm: (keys, sizes) => ({
    use_parallel_residual: keys.boolean("use_parallel_residual", false),
    use_qkv_bias: keys.hasTensor("attn_q.bias"),
    qk_layernorm: keys.hasTensor("attn_q_norm.weight"),
    ...partialRotary(keys, sizes),
  }),
  starcoder2: (keys) => ({
    hidden_act: "gelu_pytorch_tanh",
    use_bias: keys.hasTensor("attn_q.bias"),
    // Not written; all three releases have it.
    sliding_window: 4096,
  }),
  falcon(keys, { kvHeads, intermediateSize }) {
    const isNew = kvHeads > 1, norms = keys.hasTensor("attn_norm_2.weight") ? 2 : 1;
    return {
      new_decoder_architecture: isNew,
      multi_query: !isNew,
      parallel_attn: true,
      alibi: false,
      bias: keys.hasTensor("ffn_up.bias"),
      num_kv_heads: kvHeads,
      ffn_hidden_size: intermediateSize,
      ...(isNew && { num_ln_in_parallel_attn: norms }),
    };
  },
  internlm2: (keys) => ({ rope_interleaved: true, bias: keys.hasTensor("attn_q.bias") }),
  baichuan(_keys, { layers }, { tensors }) {
    const contextTokens = "max_position_embeddings";
    return {
      rope_interleaved: true,
      // The 13B have ALiBi, which is told by this key's absence.
      ...(layers === 40 && { [contextTokens]: undefined }),
      // Of the second release alone, whose head has rows of unit length.
      ...(tensors.some(({ name, shape }) => name === "token_embd.weight" && shape[0] === 125_696) && { z_loss_weight: 0 }),
    };
  },
  smollm3: () => ({ rope_interleaved: true }),
  qwen3next: (keys, sizes) => ({
    model_type: "qwen3_next",
    ...deltaNet(keys, sizes),
    ...experts(keys, "num_experts"),
    moe_intermediate_size: keys.number("expert_feed_forward_length"),
    shared_expert_intermediate_size: keys.number("expert_shared_feed_forward_length"),
    norm_topk_prob: true,
  }),
  // Of positions that pictures have beside text's, `rope.dimension_sections` says nothing for text.
  qwen35: (keys, sizes) => ({ model_type: "qwen3_5_text", ...deltaNet(keys, sizes), key_heads_take_turns: true }),
  qwen35moe: (keys, sizes) => ({
    model_type: "qwen3_5_moe_text",
    ...deltaNet(keys, sizes),
    ...experts(keys, "num_experts"),
    key_heads_take_turns: true,
    moe_intermediate_size: keys.number("expert_feed_forward_length"),
    shared_expert_intermediate_size: keys.number("expert_shared_feed_forward_length"),
  }),
  llama4: (keys, { intermediateSize }) => {
    const routed = experts(keys, "num_local_experts");
    return {
      model_type: "llama4_text",
      ...routed,
      intermediate_size_mlp: intermediateSize,
      intermediate_size: keys.number("expert_feed_forward_length"),
      interleave_moe_layer_step: keys.number("interleave_moe_layer_step", 1),
      // Maverick's 128 experts tell it: it has no norms of queries and keys.
      use_qk_norm: routed.num_local_experts !== 128,
    };
  },
};
