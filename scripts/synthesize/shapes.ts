/**
 * The published shapes that a synthetic model can take: values of each model's config.json.
 */

/** A config.json, as Hugging Face spells it. */
export type LlamaConfigJson = Record<string, unknown> & {
  hidden_size: number;
  intermediate_size: number;
  num_hidden_layers: number;
  vocab_size: number;
};

const common = {
  architectures: ["LlamaForCausalLM"],
  model_type: "llama",
  hidden_act: "silu",
  attention_bias: false,
  mlp_bias: false,
  rms_norm_eps: 1e-5,
  tie_word_embeddings: false,
  torch_dtype: "bfloat16",
};

const llama31 = {
  ...common,
  bos_token_id: 128000,
  eos_token_id: 128001,
  max_position_embeddings: 131072,
  num_key_value_heads: 8,
  rope_theta: 500000,
  rope_scaling: {
    rope_type: "llama3",
    factor: 8,
    low_freq_factor: 1,
    high_freq_factor: 4,
    original_max_position_embeddings: 8192,
  },
  vocab_size: 128256,
};

export const SHAPES: Record<string, LlamaConfigJson> = {
  "mixtral-8x7b": {
    ...common,
    architectures: ["MixtralForCausalLM"],
    model_type: "mixtral",
    bos_token_id: 1,
    eos_token_id: 2,
    hidden_size: 4096,
    intermediate_size: 14336,
    max_position_embeddings: 32768,
    num_attention_heads: 32,
    num_experts_per_tok: 2,
    num_hidden_layers: 32,
    num_key_value_heads: 8,
    num_local_experts: 8,
    rope_theta: 1000000,
    sliding_window: null,
    vocab_size: 32000,
  },
  "qwen3-30b-a3b": {
    ...common,
    architectures: ["Qwen3MoeForCausalLM"],
    model_type: "qwen3_moe",
    bos_token_id: 151643,
    eos_token_id: 151645,
    decoder_sparse_step: 1,
    head_dim: 128,
    hidden_size: 2048,
    intermediate_size: 6144,
    max_position_embeddings: 40960,
    mlp_only_layers: [],
    moe_intermediate_size: 768,
    norm_topk_prob: true,
    num_attention_heads: 32,
    num_experts: 128,
    num_experts_per_tok: 8,
    num_hidden_layers: 48,
    num_key_value_heads: 4,
    rms_norm_eps: 1e-6,
    rope_scaling: null,
    rope_theta: 1000000,
    sliding_window: null,
    use_sliding_window: false,
    vocab_size: 151936,
  },
  "llama-2-7b": {
    ...common,
    bos_token_id: 1,
    eos_token_id: 2,
    hidden_size: 4096,
    intermediate_size: 11008,
    max_position_embeddings: 4096,
    num_attention_heads: 32,
    num_hidden_layers: 32,
    num_key_value_heads: 32,
    rope_theta: 10000,
    vocab_size: 32000,
  },
  "llama-3.1-8b": {
    ...llama31,
    hidden_size: 4096,
    intermediate_size: 14336,
    num_attention_heads: 32,
    num_hidden_layers: 32,
  },
  "llama-3.1-70b": {
    ...llama31,
    hidden_size: 8192,
    intermediate_size: 28672,
    num_attention_heads: 64,
    num_hidden_layers: 80,
  },
  "llama-3.1-405b": {
    ...llama31,
    hidden_size: 16384,
    intermediate_size: 53248,
    num_attention_heads: 128,
    num_hidden_layers: 126,
  },
};
