import assert from "node:assert/strict";
import { UnsupportedError } from "../../lib/errors.ts";
import { LLAMA } from "../../lib/models/families/llama.ts";
import { architectureFor } from "../../lib/models/registry.ts";

const LLAMA_2_7B = {
  architectures: ["LlamaForCausalLM"],
  model_type: "llama",
  hidden_act: "silu",
  hidden_size: 4096,
  intermediate_size: 11008,
  max_position_embeddings: 4096,
  num_attention_heads: 32,
  num_hidden_layers: 32,
  num_key_value_heads: 32,
  pretraining_tp: 1,
  rms_norm_eps: 1e-5,
  rope_scaling: null,
  tie_word_embeddings: false,
  torch_dtype: "float16",
  transformers_version: "4.31.0.dev0",
  use_cache: true,
  vocab_size: 32000,
};

const LLAMA_3_1_SCALING = {
  factor: 8.0,
  low_freq_factor: 1.0,
  high_freq_factor: 4.0,
  original_max_position_embeddings: 8192,
  rope_type: "llama3",
};

const parse = (changes: Record<string, unknown> = {}) => LLAMA.parseConfig({ ...LLAMA_2_7B, ...changes });
const refusal = (pattern: RegExp) => (error: unknown) => {
  assert.ok(error instanceof UnsupportedError);
  assert.match(error.message, pattern);
  assert.ok(!error.message.includes("\n"));
  return true;
};

Deno.test("architectureFor() finds llama and names an unknown or missing model_type with what is supported", () => {
  assert.equal(architectureFor(LLAMA_2_7B), LLAMA);
  assert.throws(() => architectureFor({ model_type: "xlnet" }), refusal(/architecture "xlnet".*llama/));
  assert.throws(() => architectureFor({}), refusal(/no model_type.*llama/));
  assert.throws(() => architectureFor({ model_type: 7 }), refusal(/architecture 7/));
});

Deno.test("parseConfig() reads Llama 2 with transformers' defaults for what is missing", () => {
  const config = parse();
  assert.equal(config.headDim, 128);
  assert.deepEqual(config.ropes, [{ dim: 128, theta: 10000, scaling: { type: "default" } }]);
  assert.equal(config.layers[31].attention.qkvBias, false);
  const minimal = LLAMA.parseConfig({
    model_type: "llama",
    hidden_size: 64,
    intermediate_size: 96,
    num_hidden_layers: 2,
    num_attention_heads: 4,
    vocab_size: 100,
  });
  assert.equal(minimal.numKvHeads, 4);
  assert.equal(minimal.contextTokens, 2048);
  assert.equal(minimal.finalNorm.eps, 1e-6);
  assert.equal(minimal.tieWordEmbeddings, false);
});

Deno.test("parseConfig() reads an explicit head_dim and grouped heads", () => {
  const config = parse({ head_dim: 64, num_key_value_heads: 8 });
  assert.equal(config.headDim, 64);
  assert.equal(config.numKvHeads, 8);
  const q = LLAMA.tensors(config).layers[0].find(({ name }) => name.endsWith("q_proj.weight"))!;
  assert.deepEqual([q.rows, q.cols], [2048, 4096]);
});

Deno.test("parseConfig() reads every rope type in both spellings alike", () => {
  const types: [v4: Record<string, unknown>, expected: unknown][] = [
    [{ type: "linear", factor: 4 }, { type: "linear", factor: 4 }],
    [{ rope_type: "linear", factor: 4 }, { type: "linear", factor: 4 }],
    [{ type: "dynamic", factor: 2 }, { type: "dynamic", factor: 2, originalContextTokens: 4096 }],
    [LLAMA_3_1_SCALING, {
      type: "llama3",
      factor: 8,
      lowFreqFactor: 1,
      highFreqFactor: 4,
      originalContextTokens: 8192,
    }],
    [{ rope_type: "default" }, { type: "default" }],
  ];
  for (const [scaling, expected] of types) {
    const v4 = parse({ rope_scaling: scaling, rope_theta: 500000 });
    const { rope_scaling: _, ...rest } = LLAMA_2_7B;
    const v5 = LLAMA.parseConfig({ ...rest, rope_parameters: { ...scaling, rope_theta: 500000 } });
    assert.deepEqual(v4.ropes[0].scaling, expected);
    assert.deepEqual(v5, v4);
    assert.equal(v4.ropes[0].theta, 500000);
  }
});

Deno.test("parseConfig() refuses an unknown rope type by name and lists the known", () => {
  const pattern = /rope type "twisted".*default, linear, dynamic, llama3/;
  assert.throws(() => parse({ rope_scaling: { rope_type: "twisted", factor: 2 } }), refusal(pattern));
  assert.throws(() => parse({ rope_parameters: { rope_type: "twisted", factor: 2, rope_theta: 1e4 } }), refusal(pattern));
  // Names that objects have anyway must not count as known.
  assert.throws(() => parse({ rope_scaling: { type: "constructor" } }), refusal(/rope type "constructor"/));
});

Deno.test("parseConfig() refuses rope parameters that contradict each other or would be ignored", () => {
  const refused: [Record<string, unknown>, RegExp][] = [
    [{ rope_scaling: { type: "linear" } }, /factor is missing/],
    [{ rope_scaling: { type: "linear", factor: 0.5 } }, /factor is 0.5, required at least 1/],
    [{ rope_scaling: { type: "linear", factor: "4" } }, /factor is "4"/],
    [{ rope_scaling: { type: "linear", factor: 4, beta_fast: 32 } }, /beta_fast is 32/],
    [{ rope_scaling: { type: "linear", rope_type: "dynamic", factor: 4 } }, /type is "linear"/],
    [{ rope_scaling: { ...LLAMA_3_1_SCALING, high_freq_factor: 0.5 } }, /high_freq_factor is 0.5, required at least/],
    [{ rope_scaling: { type: "dynamic", factor: 2, original_max_position_embeddings: 2048 } }, /original_max.*2048.*4096/],
    [{ rope_scaling: "linear" }, /rope_scaling is "linear", required an object/],
    [{ rope_theta: 1e4, rope_parameters: { rope_theta: 5e5 } }, /rope_theta is 10000, required the same.*500000/],
    [{ rope_theta: 0 }, /rope_theta is 0/],
    [{ partial_rotary_factor: 0.5 }, /partial_rotary_factor is 0.5, required 1/],
    [{ rope_parameters: { rope_type: "default", partial_rotary_factor: 0.5 } }, /partial_rotary_factor is 0.5/],
    [{ rope_scaling: { type: "linear", factor: 4 }, rope_parameters: { rope_type: "default" } }, /same scaling/],
  ];
  for (const [changes, pattern] of refused) assert.throws(() => parse(changes), refusal(pattern), JSON.stringify(changes));
});

Deno.test("parseConfig() refuses values it cannot compute with and names key, value and what is required", () => {
  const refused: [Record<string, unknown>, RegExp][] = [
    [{ hidden_act: "mish" }, /hidden_act is "mish", required "silu"/],
    [{ hidden_size: undefined }, /hidden_size is missing, required a positive integer/],
    [{ hidden_size: 4096.5 }, /hidden_size is 4096.5/],
    [{ vocab_size: -1 }, /vocab_size is -1/],
    [{ num_hidden_layers: "32" }, /num_hidden_layers is "32"/],
    [{ num_key_value_heads: 5 }, /num_key_value_heads is 5, required a divisor of num_attention_heads \(32\)/],
    [{ num_attention_heads: 30, num_key_value_heads: 30 }, /hidden_size is 4096, required a multiple/],
    [{ head_dim: 127 }, /head_dim is 127, required even/],
    [{ rms_norm_eps: 0 }, /rms_norm_eps is 0/],
    [{ tie_word_embeddings: "yes" }, /tie_word_embeddings is "yes"/],
    [{ pretraining_tp: 0 }, /pretraining_tp is 0/],
    [{ sliding_window: 4096 }, /sliding_window is 4096, required not set/],
    [{ num_local_experts: 8 }, /num_local_experts is 8, required not set or 0/],
    [{ qkv_bias: true }, /qkv_bias is true/],
  ];
  for (const [changes, pattern] of refused) assert.throws(() => parse(changes), refusal(pattern), JSON.stringify(changes));
});

Deno.test("parseConfig() takes unknown keys as metadata and switched-off mechanisms as absent", () => {
  const config = parse({
    _name_or_path: "x",
    training_note: { a: 1 },
    sliding_window: null,
    num_local_experts: 0,
    pretraining_tp: 2,
  });
  assert.deepEqual(config, parse());
});

Deno.test("tensors() declares every tensor once, biases where configured, no head where tied", () => {
  const plain = LLAMA.tensors(parse());
  const names = [plain.embedding, ...plain.layers, plain.head].flat().map(({ name }) => name);
  assert.equal(names.length, 1 + 32 * 9 + 2);
  assert.equal(new Set(names).size, names.length);
  assert.equal(plain.headName, "lm_head.weight");
  assert.ok(names.includes("model.layers.31.mlp.down_proj.weight"));

  const biased = LLAMA.tensors(parse({ attention_bias: true, mlp_bias: true }));
  assert.equal(biased.layers[0].filter(({ name, kind }) => name.endsWith(".bias") && kind === "vector").length, 7);

  const tied = LLAMA.tensors(parse({ tie_word_embeddings: true }));
  assert.equal(tied.headName, tied.embeddingName);
  assert.deepEqual(tied.head.map(({ name }) => name), ["model.norm.weight"]);
});

Deno.test("ignoredTensorReason() knows recomputed frequencies and a tied head, nothing else", () => {
  const plain = parse(), tied = parse({ tie_word_embeddings: true });
  assert.match(LLAMA.ignoredTensorReason("model.layers.3.self_attn.rotary_emb.inv_freq", plain)!, /recomputed/);
  assert.equal(LLAMA.ignoredTensorReason("lm_head.weight", plain), undefined);
  assert.match(LLAMA.ignoredTensorReason("lm_head.weight", tied)!, /tied/);
  assert.equal(LLAMA.ignoredTensorReason("model.layers.0.self_attn.q_norm.weight", plain), undefined);
});
