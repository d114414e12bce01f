/**
 * What families refuse in a config.json, from the configurations of their fixtures; and keys whose absence stands for something.
 */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { UnsupportedError } from "../../lib/errors.ts";
import type { ModelConfig } from "../../lib/models/architecture.ts";
import { architectureFor, architectures } from "../../lib/models/registry.ts";

const FIXTURES = fileURLToPath(new URL("../fixtures/architectures/", import.meta.url));

type Json = Record<string, unknown>;

function configOf(fixture: string): Json {
  return JSON.parse(readFileSync(`${FIXTURES}${fixture}/config.json`, "utf8"));
}

function parse(fixture: string, changes: Json = {}): ModelConfig {
  const config = { ...configOf(fixture), ...changes };
  return architectureFor(config).parseConfig(config);
}

/** Parses the configuration without some of its keys. */
function parseWithout(fixture: string, ...keys: string[]): ModelConfig {
  return parse(fixture, Object.fromEntries(keys.map((key) => [key, undefined])));
}

const windows = ({ layers }: ModelConfig) => layers.map(({ attention }) => attention.windowTokens);

Deno.test("families refuse keys that would change what they compute, naming key, value and what is required", () => {
  const refused: [fixture: string, changes: Json, pattern: RegExp][] = [
    ["mistral/sliding", { attention_bias: true }, /attention_bias is true, required not set or false/],
    ["mistral/sliding", { sliding_window: 0 }, /sliding_window is 0, required a positive integer/],
    ["mistral/sliding", { layer_types: ["full_attention"] }, /layer_types is \["full_attention"\]/],
    ["qwen2/base", { num_experts: 60 }, /num_experts is 60/],
    [
      "qwen2/window",
      { layer_types: ["full_attention", "chunked_attention", "full_attention"] },
      /layer_types is .*a list of 3 of/,
    ],
    ["qwen2/window", { layer_types: ["full_attention"] }, /layer_types is .*a list of 3/],
    ["qwen2/window", { use_sliding_window: false }, /full_attention alone where use_sliding_window is false/],
    ["qwen3/base", { hidden_act: "mish" }, /hidden_act is "mish"/],
    ["phi3/longrope", { rope_scaling: { type: "longrope", short_factor: [1, 2, 3] } }, /long_factor is missing, required a list/],
    [
      "phi3/longrope",
      { rope_scaling: { type: "longrope", short_factor: [1], long_factor: [1, 2, 3] } },
      /short_factor is \[1\], required 3/,
    ],
    ["phi3/longrope", { partial_rotary_factor: 1.5 }, /partial_rotary_factor is 1.5, required 1 at most/],
    ["phi3/longrope", { partial_rotary_factor: 0.4 }, /Cannot rotate 3 of 8 elements/],
    ["phi3/mini", { lm_head_bias: true }, /lm_head_bias is true/],
    ["phi3/mini", { full_attn_mod: 2 }, /full_attn_mod is 2/],
    ["olmo2/base", { clip_qkv: 8 }, /clip_qkv is 8/],
    ["granite/base", { residual_multiplier: 0 }, /residual_multiplier is 0/],
    ["smollm3/base", { no_rope_layers: [1, 0] }, /no_rope_layers is \[1,0\], required a list of 0 and 1 for 3 layers/],
    [
      "smollm3/base",
      { use_sliding_window: true, layer_types: Array(3).fill("sliding_attention") },
      /sliding_window .*required set/,
    ],
    ["gemma2/base", { use_bidirectional_attention: true }, /use_bidirectional_attention is true/],
    ["gemma2/base", { attn_logit_softcapping: -1 }, /attn_logit_softcapping is -1/],
    ["gemma3_text/v5", { attn_logit_softcapping: 50 }, /attn_logit_softcapping is 50, required not set/],
    [
      "gemma3_text/v5",
      { rope_parameters: { full_attention: {}, other: {} } },
      /other .*required full_attention or sliding_attention/,
    ],
    ["gemma3/images", { text_config: null }, /text_config is null, required an object/],
    ["glm4/base", { head_dim: 6 }, /Cannot rotate 3 of 6/],
    ["chatglm/base", { position_encoding_2d: true }, /position_encoding_2d is true, required false/],
    ["chatglm/first", { position_encoding_2d: false }, /position_encoding_2d is false, required true/],
    ["chatglm/first", { hidden_size: 40 }, /hidden_size is 40, required a multiple of 4 times num_attention_heads \(4\)/],
    ["chatglm/first", { pre_seq_len: 128 }, /pre_seq_len is 128/],
    ["chatglm/first", { quantization_bit: 4 }, /quantization_bit is 4/],
    ["chatglm/base", { rmsnorm: false }, /rmsnorm is false, required true/],
    ["chatglm/base", { multi_query_group_num: 3 }, /multi_query_group_num is 3, required a divisor/],
    ["cohere/base", { use_parallel_block: false }, /use_parallel_block is false, required true/],
    ["cohere2/base", { use_gated_activation: false }, /use_gated_activation is false/],
    ["cohere2/base", { position_embedding_type: "alibi" }, /position_embedding_type is "alibi", required "rope_gptj"/],
    ["cohere2/base", { order_of_interleaved_layers: "global_attn_first" }, /order_of_interleaved_layers/],
    ["stablelm/base", { qk_layernorm: "yes" }, /qk_layernorm is "yes"/],
    ["starcoder2/base", { norm_type: "rms_norm" }, /norm_type is "rms_norm", required "layer_norm"/],
    ["starcoder2/base", { mlp_type: "gated" }, /mlp_type is "gated"/],
    ["falcon/new", { num_kv_heads: 3 }, /num_kv_heads is 3, required a divisor/],
    ["falcon/new", { num_ln_in_parallel_attn: 3 }, /num_ln_in_parallel_attn is 3, required 1 or 2/],
    ["falcon/multi_query", { num_ln_in_parallel_attn: 2 }, /num_ln_in_parallel_attn is 2, required 1/],
    ["falcon/new", { activation: "mish" }, /activation is "mish"/],
    ["internlm2/base", { qkv_bias: true }, /qkv_bias is true/],
    ["baichuan/unit_rows", { tie_word_embeddings: true }, /tie_word_embeddings is true, required false/],
    ["chatglm/base", { pre_seq_len: 128 }, /pre_seq_len is 128/],
    [
      "qwen3_next/base",
      { linear_num_value_heads: 3 },
      /linear_num_value_heads is 3, required a multiple of linear_num_key_heads \(2\)/,
    ],
    ["qwen3_next/base", { linear_conv_kernel_dim: 1 }, /linear_conv_kernel_dim is 1, required 2 to 16/],
    ["qwen3_next/base", { linear_key_head_dim: 512 }, /linear_key_head_dim is 512, required at most 256/],
    ["qwen3_next/base", { full_attention_interval: 5 }, /full_attention_interval is 5, required full_attention in some layer/],
    ["qwen3_next/yarn", { layer_types: Array(4).fill("linear_attention") }, /layer_types is .* full_attention in some layer/],
    ["qwen3_next/yarn", { layer_types: Array(4).fill("sliding_attention") }, /layer_types is .*a list of 4 of/],
    ["qwen3_next/base", { rope_scaling: { type: "default", mrope_section: [1, 1, 0] } }, /mrope_section is \[1,1,0\]/],
    ["qwen3_5_text/base", { attn_output_gate: false }, /attn_output_gate is false, required true/],
    ["qwen3_5_text/base", { num_experts: 8 }, /num_experts is 8/],
    ["qwen3_5_moe_text/base", { norm_topk_prob: false }, /norm_topk_prob is false/],
    ["qwen3_5_moe_text/base", { mlp_only_layers: [1] }, /mlp_only_layers is \[1\], required an empty list/],
    ["qwen3_5/base", { text_config: null }, /text_config is null, required an object/],
    [
      "qwen3_5/base",
      { tie_word_embeddings: false },
      /tie_word_embeddings is true, required the same as beside text_config \(false\)/,
    ],
    ["olmo/base", { clip_qkv: -1 }, /clip_qkv is -1, required a number above 0/],
    ["mpt/base", { attn_config: { alibi: false } }, /attn_config of config.json: alibi is false, required true/],
    ["mpt/base", { logit_scale: "inv_sqrt_d_model" }, /logit_scale is "inv_sqrt_d_model", required not set/],
    ["apertus/base", { hidden_act: "silu" }, /hidden_act is "silu", required "xielu"/],
    ["apertus/base", { post_norm: true }, /post_norm is true, required false/],
    ["qwen/base", { no_bias: false }, /no_bias is false, required true/],
    ["internlm/base", { rotary: { type: "linear" } }, /type is "linear", required "dynamic" or "origin"/],
    ["ministral/base", { layer_types: ["full_attention"] }, /layer_types is .*a list of 3/],
    ["mllama/base", { text_config: { num_hidden_layers: 4, cross_attention_layers: [4] } }, /cross_attention_layers is \[4\]/],
    ["olmo3/base", { layer_types: ["full_attention"] }, /layer_types is .*a list of 4/],
    ["olmo3/base", { rope_scaling: { rope_type: "yarn", beta: 1 } }, /beta is 1, required only/],
    ["exaone4/base", { sliding_window: null }, /sliding_window is null, required set where layer_types has windows/],
    ["exaone4/base", { layer_types: undefined }, /sliding_window_pattern is "LLLG", required a positive integer/],
    ["hunyuan_v1_dense/base", { use_cla: true }, /use_cla is true, required false/],
    ["nemotron/base", { hidden_act: "mish" }, /hidden_act is "mish"/],
    ["phi/base", { qk_layernorm: true }, /qk_layernorm is true/],
    ["gpt_neox/base", { partial_rotary_factor: 0.5 }, /rotary_pct is 0.25, required the same as partial_rotary_factor \(0.5\)/],
    ["gpt2/base", { add_cross_attention: true }, /add_cross_attention is true/],
    ["gpt2/base", { hidden_size: 64 }, /n_embd is 32, required the same as hidden_size \(64\)/],
    ["gpt_neo/base", { attention_types: [[["global"], 3]] }, /attention_types is .*for 4 layers/],
    ["gpt_neo/base", { attention_types: [[["global"], 1e9]] }, /attention_types is .*for 4 layers/],
    ["gpt_bigcode/base", { num_key_value_heads: 4 }, /num_key_value_heads is 4, required 1, as multi_query says/],
    ["gptj/base", { rotary_dim: 12 }, /rotary_dim is 12, required even and at most 8/],
    ["codegen/base", { n_head: 2 }, /n_head is 2, required a multiple of 4/],
    ["opt/base", { do_layer_norm_before: false }, /do_layer_norm_before is false, required true/],
    ["opt/base", { word_embed_proj_dim: 16 }, /word_embed_proj_dim is 16, required hidden_size \(32\)/],
    ["bloom/base", { apply_residual_connection_post_layernorm: true }, /apply_residual.* is true, required false/],
    ["nanochat/base", { final_logit_softcapping: 0 }, /final_logit_softcapping is 0/],
    ["internvl_chat/base", { llm_config: { model_type: "internlm2" } }, /llm_config of config.json: model_type is "internlm2"/],
    ["mistral3/base", { text_config: null }, /text_config is null, required an object/],
    ["mistral3/base", { text_config: { model_type: "gemma" } }, /model_type is "gemma", required "mistral" or "ministral3"/],
    ["mistral3/base", { sliding_window: 8 }, /Cannot use config.json: sliding_window is 8/],
    [
      "llava/base",
      { text_config: { model_type: "llama", attention_bias: "yes" } },
      /text_config of config.json: attention_bias is "yes"/,
    ],
    ["ministral3/base", { rope_parameters: { rope_type: "yarn", factor: 4 } }, /llama_4_scaling_beta is missing/],
    ["qwen2_vl/base", { use_sliding_window: "no" }, /use_sliding_window is "no"/],
    ["qwen2/base", { rope_scaling: { type: "mrope", mrope_section: [2, 1, 1] } }, /mrope_section is \[2,1,1\], required only/],
    ["qwen3_vl_moe/base", { text_config: { norm_topk_prob: false } }, /norm_topk_prob is false, required true/],
    ["glm4v/base", { text_config: { attention_bias: false } }, /attention_bias is false, required true/],
    [
      "qwen3_vl/base",
      { tie_word_embeddings: false },
      /tie_word_embeddings is true, required the same as beside text_config \(false\)/,
    ],
    ["minimax_m2/fp8", { attn_type_list: [1, 0, 1] }, /attn_type_list is \[1,0,1\], required a list of 1/],
    ["minimax_m2/fp8", { qk_norm_type: "per_head" }, /qk_norm_type is "per_head", required "per_layer"/],
    ["minimax_m2/fp8", { shared_intermediate_size: 64 }, /shared_intermediate_size is 64, required 0/],
    ["ernie4_5_moe/base", { use_bias: true }, /use_bias is true, required false/],
    ["ernie4_5_moe/base", { moe_k: 9 }, /moe_k is 9, required at most moe_num_experts \(8\)/],
    ["hunyuan_v1_moe/base", { moe_topk: [3, 2, 3] }, /moe_topk is \[3,2,3\], required the same number for every layer/],
    ["hunyuan_v1_moe/base", { use_cla: true }, /use_cla is true, required false/],
    ["hunyuan_v1_moe/base", { num_shared_expert: [2, 2, 2] }, /num_shared_expert is 2, required 1/],
    ["hunyuan_v1_moe/base", { rope_scaling: { type: "linear", alpha: 2 } }, /type is "linear", required "dynamic" with alpha/],
    ["hy_v3/base", { qk_norm: false }, /qk_norm is false, required true/],
    ["hy_v3/base", { mlp_bias: true }, /mlp_bias is true/],
    ["hy_v3/base", { mlp_layer_types: ["sparse"] }, /mlp_layer_types is \["sparse"\], required a list of 3 of dense, sparse/],
    ["phimoe/base", { num_experts_per_tok: 3 }, /num_experts_per_tok is 3, required 2/],
    ["phimoe/base", { rope_scaling: { type: "linear", factor: 2 } }, /type is "linear", required "longrope"/],
    ["lfm2/base", { conv_bias: true }, /conv_bias is true, required false/],
    ["lfm2/base", { conv_L_cache: 1 }, /conv_L_cache is 1, required 2 to 16/],
    ["lfm2/base", { layer_types: Array(4).fill("conv") }, /layer_types is .* full_attention in some layer/],
    ["lfm2_moe/base", { layer_types: ["conv"] }, /layer_types is \["conv"\], required a list of 4/],
    ["granitemoehybrid/h_dense", { layer_types: undefined }, /layer_types is missing, required a list of 4/],
    ["granitemoehybrid/h_dense", { mamba_d_state: 512 }, /mamba_d_state is 512, required at most 256/],
    ["granitemoehybrid/h_dense", { mamba_d_head: 7 }, /mamba_d_head is 7, required "auto" or 8/],
    ["granitemoehybrid/h_dense", { mamba_proj_bias: true }, /mamba_proj_bias is true, required false/],
    ["granitemoehybrid/h_dense", { time_step_limit: [0, 0.5] }, /time_step_limit is \[0,0.5\], required from 0 to infinity/],
    ["granitemoehybrid/attention", { position_embedding_type: "alibi" }, /position_embedding_type is "alibi"/],
    ["deepseek_v32/base", { layer_types: Array(3).fill("full_attention") }, /layer_types is .*a list of indexed_attention/],
    [
      "gemma4_text/dense",
      { hidden_size_per_layer_input: 256 },
      /hidden_size_per_layer_input is 256, required 0: embeddings for each layer .* are not implemented/,
    ],
    ["gemma4_text/dense", { num_kv_shared_layers: 1 }, /num_kv_shared_layers is 1, required 0: .* are not implemented/],
    [
      "gemma4_text/dense",
      { use_bidirectional_attention: "all" },
      /use_bidirectional_attention is "all", required "vision" or null/,
    ],
    ["gemma4_text/dense", { layer_types: Array(3).fill("sliding_attention") }, /layer_types is .*a last layer of full_attention/],
    [
      "gemma4_text/dense",
      { num_global_key_value_heads: 3 },
      /num_global_key_value_heads is 3, required divisors of num_attention_heads/,
    ],
    [
      "gemma4_text/dense",
      { rope_parameters: { sliding_attention: {}, full_attention: { rope_type: "proportional", beta_fast: 1 } } },
      /beta_fast is 1, required only rope_type, rope_theta, partial_rotary_factor, factor/,
    ],
    ["mimo_v2_flash/base", { add_full_attention_sink_bias: true }, /add_full_attention_sink_bias is true, required false/],
    [
      "mimo_v2_flash/base",
      { hybrid_layer_pattern: [0, 2, 1, 0] },
      /hybrid_layer_pattern is \[0,2,1,0\], required a list of 4 of 0, 1/,
    ],
    ["mimo_v2_flash/base", { attention_chunk_size: 4 }, /attention_chunk_size is 4, required 8/],
    [
      "nemotron_h/moe",
      { hybrid_override_pattern: "EM*" },
      /hybrid_override_pattern is "EM\*", required .* before each mlp and moe/,
    ],
    ["nemotron_h/moe", { hybrid_override_pattern: "MX*" }, /hybrid_override_pattern is "MX\*", required a list of/],
    ["nemotron_h/moe", { moe_latent_size: 8 }, /moe_latent_size is 8, required not set/],
    ["nemotron_h/moe", { use_bias: true }, /use_bias is true, required false/],
    ["dots1/base", { scoring_func: "softmax" }, /scoring_func is "softmax", required "sigmoid"/],
    ["olmoe/base", { clip_qkv: 8 }, /clip_qkv is 8/],
    ["exaone_moe/base", { layer_types: undefined }, /sliding_window_pattern is "LLLG", required a positive integer/],
    ["exaone_moe/base", { sliding_window: null }, /sliding_window is null/],
    ["solar_open/base", { use_qk_norm: true }, /use_qk_norm is true/],
    ["solar_open/base", { first_k_dense_replace: 1 }, /first_k_dense_replace is 1, required 0/],
    ["afmoe/base", { route_norm: false }, /route_norm is false, required true/],
    ["afmoe/base", { n_group: 2 }, /n_group is 2, required 1/],
    ["baichuan/rope", { num_key_value_heads: 2 }, /num_key_value_heads is 2, required num_attention_heads \(4\)/],
  ];
  for (const [fixture, changes, pattern] of refused) {
    assert.throws(() => parse(fixture, changes), (error: unknown) => {
      assert.ok(error instanceof UnsupportedError, `${fixture} ${JSON.stringify(changes)}: ${error}`);
      assert.match(error.message, pattern);
      return !error.message.includes("\n");
    }, `${fixture} ${JSON.stringify(changes)}`);
  }
});

Deno.test("every family refuses a quantization it does not read and an encoder, by name", () => {
  for (const { modelTypes, parseConfig } of architectures()) {
    if (modelTypes.includes("llama") || modelTypes.includes("gemma3")) continue;
    const variants: Record<string, string> = {
      mistral: "sliding",
      phi3: "mini",
      gemma3_text: "v5",
      llama4_text: "scout",
      minimax_m2: "fp8",
      nemotron_h: "dense",
      gemma4_text: "dense",
      gemma4: "moe",
      granitemoehybrid: "attention",
      falcon: "new",
      baichuan: "rope",
    };
    const config = configOf(`${modelTypes[0]}/${variants[modelTypes[0]] ?? "base"}`);
    assert.throws(() => parseConfig({ ...config, is_encoder_decoder: true }), /is_encoder_decoder is true/, modelTypes[0]);
  }
});

Deno.test("a family that is not supported is named, with those that are", () => {
  assert.throws(() => architectureFor({ model_type: "xlnet" }), (error: unknown) => {
    assert.ok(error instanceof UnsupportedError);
    for (const { modelTypes } of architectures()) for (const name of modelTypes) assert.ok(error.message.includes(name), name);
    return /"xlnet"/.test(error.message);
  });
});

Deno.test("keys that are missing stand for what transformers' configuration classes have, null for what it means there", () => {
  assert.deepEqual(windows(parse("mistral/sliding")), [8, 8]);
  assert.deepEqual(windows(parse("mistral/sliding", { sliding_window: null })), [undefined, undefined]);
  assert.deepEqual(windows(parse("mistral/sliding", { sliding_window: undefined })), [4096, 4096]);
  assert.equal(parse("mistral/sliding", { num_attention_heads: 8, num_key_value_heads: null }).numKvHeads, 8);
  assert.equal(parse("mistral/sliding", { num_attention_heads: 16, num_key_value_heads: undefined }).numKvHeads, 8);
  assert.deepEqual(windows(parseWithout("qwen2/window", "layer_types")), [undefined, 8, 8]);
  assert.deepEqual(windows(parse("gemma2/base")), [8, undefined, 8]);
  assert.equal(parse("gemma2/base", { attn_logit_softcapping: null }).layers[0].attention.softcap, 0);
  assert.equal(parse("gemma2/base", { attn_logit_softcapping: undefined }).layers[0].attention.softcap, 50);
  assert.equal(parseWithout("gemma2/base", "final_logit_softcapping").logitsSoftcap, 30);
  assert.equal(parse("gemma3_text/v4", { rope_local_base_freq: undefined }).ropes[1].theta, 10_000);
  assert.equal(parse("gemma3/images", { text_config: { hidden_size: 2560, num_hidden_layers: 34 } }).vocabSize, 262_208);
  assert.deepEqual(
    parseWithout("smollm3/base", "no_rope_layers", "no_rope_layer_interval").layers.map(({ attention }) =>
      attention.rope !== undefined
    ),
    [true, true, true],
  );
  assert.equal(parse("phi3/mini", { sliding_window: undefined }).layers[0].attention.windowTokens, undefined);
  assert.equal(parseWithout("stablelm/base", "partial_rotary_factor").ropes[0].dim, 2);
  assert.equal(parseWithout("falcon/new", "ffn_hidden_size").intermediateSize, 4 * 32);
  const recurrent = ({ layers }: ModelConfig) => layers.map(({ attention }) => attention.deltaNet !== undefined);
  assert.deepEqual(recurrent(parseWithout("qwen3_5_text/base", "layer_types")), [true, true, true, false]);
  assert.deepEqual(recurrent(parse("qwen3_5_text/base", { layer_types: null, full_attention_interval: 2 })), [
    true,
    false,
    true,
    false,
  ]);
  assert.equal(parseWithout("qwen3_5/base", "tie_word_embeddings").tieWordEmbeddings, true);
  assert.deepEqual(parseWithout("chatglm/first", "bos_token_id", "gmask_token_id", "mask_token_id").blankFilling, {
    startTokenId: 150_004,
    blankTokenIds: [150_001, 150_000],
  });
  assert.equal(parse("baichuan/rope").alibiSlopes, undefined);
  assert.equal(parse("baichuan/alibi").ropes.length, 0);
});

Deno.test("a text_config leaves out what transformers' configuration classes have, a type of its own too", () => {
  // LLaVA 1.5 7B.
  const written = { model_type: "llama", max_position_embeddings: 4096, rms_norm_eps: 1e-5, vocab_size: 32_064 };
  const llava = parse("llava/base", { text_config: written });
  const { modelType, languageModelType, hiddenSize, intermediateSize, numLayers, numHeads, vocabSize } = llava;
  assert.deepEqual([modelType, languageModelType], ["llava", "llama"]);
  assert.deepEqual([hiddenSize, intermediateSize, numLayers, numHeads, vocabSize], [4096, 11_008, 32, 32, 32_064]);
  assert.deepEqual(windows(parse("mistral3/base", { text_config: { num_hidden_layers: 2, vocab_size: 96 } })), [4096, 4096]);
  assert.equal(parse("mistral3/base").languageModelType, "mistral");
  assert.ok(!parse("mistral3/base").tieWordEmbeddings);
});
