/**
 * What a GGUF file's metadata and tensor names are in the terms of a Hugging Face checkpoint. Key and tensor names: gguf-py's constants.py. Weights of
 * queries and keys of architecture llama are stored so that rotary embeddings pair neighbours (convert_hf_to_gguf.py, `permute`); they are
 * computed with as they are, by `rope_interleaved`.
 * @module
 */
import { FormatError, UnsupportedError } from "../errors.ts";
import type { GgufHeader, GgufValue } from "./gguf.ts";

/** Names of tensors outside of layers, and of those within `blk.N.`. */
const ROOT: Readonly<Record<string, string>> = {
  "token_embd": "model.embed_tokens",
  "output_norm": "model.norm",
  "output": "lm_head",
};
const LAYER: Readonly<Record<string, string>> = {
  attn_norm: "input_layernorm",
  attn_q: "self_attn.q_proj",
  attn_k: "self_attn.k_proj",
  attn_v: "self_attn.v_proj",
  attn_output: "self_attn.o_proj",
  attn_q_norm: "self_attn.q_norm",
  attn_k_norm: "self_attn.k_norm",
  ffn_norm: "post_attention_layernorm",
  ffn_gate: "mlp.gate_proj",
  ffn_up: "mlp.up_proj",
  ffn_down: "mlp.down_proj",
};
/** Stretching of rotary frequencies, one factor a pair, as Llama 3.1 has it. */
export const ROPE_FACTORS = "rope_freqs.weight";

/** Architectures, and keys of theirs that say nothing new. */
const ARCHITECTURES = ["llama", "qwen2", "qwen3"];
const NEEDLESS = ["vocab_size", "rope.dimension_count", "attention.value_length"];

/** Returns the checkpoint's name of a tensor, or undefined where there is none. */
export function checkpointName(name: string): string | undefined {
  const [, layer, part, kind] = /^(?:blk\.(\d+)\.)?([a-z_]+)\.(weight|bias)$/.exec(name) ?? [];
  if (part === undefined) return undefined;
  const table = layer === undefined ? ROOT : LAYER;
  if (!Object.hasOwn(table, part)) return undefined;
  return `${layer === undefined ? "" : `model.layers.${layer}.`}${table[part]}.${kind}`;
}

/** Returns Llama 3.1's factors of head dimension `2 * pairs` (transformers, modeling_rope_utils.py). */
function llama3Factors(pairs: number, theta: number, factor: number): number[] {
  return Array.from({ length: pairs }, (_, i) => {
    const wavelength = 2 * Math.PI * theta ** (i / pairs);
    if (wavelength < 8192 / 4) return 1;
    if (wavelength > 8192) return factor;
    const smooth = (8192 / wavelength - 1) / (4 - 1);
    return 1 / ((1 - smooth) / factor + smooth);
  });
}

/** Returns the rope_scaling that factors stand for. */
function scalingOf(factors: Float32Array, theta: number, where: string): Record<string, unknown> {
  for (const factor of [8, 32]) {
    const known = llama3Factors(factors.length, theta, factor);
    if (known.every((value, i) => Math.abs(value - factors[i]) <= 1e-4 * value)) {
      return { rope_type: "llama3", factor, low_freq_factor: 1, high_freq_factor: 4, original_max_position_embeddings: 8192 };
    }
  }
  throw new UnsupportedError(`Cannot use ${where}: ${ROPE_FACTORS} holds factors that are not those of Llama 3.1 or 3.2`);
}

/**
 * Returns the config.json that a GGUF file's metadata are.
 * @param factors Values of {@linkcode ROPE_FACTORS} where the file has it.
 * @throws {UnsupportedError} for an architecture or a setting that is not known.
 * @throws {FormatError} for a setting that is missing or of another type.
 */
export function ggufConfig(
  { metadata, tensors }: GgufHeader,
  factors: Float32Array | undefined,
  where: string,
): Record<string, unknown> {
  const architecture = metadata.get("general.architecture");
  if (typeof architecture !== "string" || !ARCHITECTURES.includes(architecture)) {
    throw new UnsupportedError(
      `Cannot use ${where}: its architecture is ${JSON.stringify(architecture)}, supported: ${ARCHITECTURES.join(", ")}`,
    );
  }
  const unknown = new Map([...metadata].filter(([key]) => key.startsWith(`${architecture}.`)));
  const take = (name: string): GgufValue | undefined => {
    const value = unknown.get(`${architecture}.${name}`);
    unknown.delete(`${architecture}.${name}`);
    return value;
  };
  const number = (name: string, missing?: number): number => {
    const value = take(name) ?? missing;
    if (typeof value === "number" && Number.isFinite(value) && value > 0) return value;
    throw new FormatError(
      `Cannot read ${where}: ${architecture}.${name} is ${JSON.stringify(value)}, required a positive number`,
    );
  };
  for (const name of NEEDLESS) take(name);
  const hiddenSize = number("embedding_length"), heads = number("attention.head_count"), theta = number("rope.freq_base", 10_000);
  const config: Record<string, unknown> = {
    model_type: architecture,
    hidden_size: hiddenSize,
    intermediate_size: number("feed_forward_length"),
    num_hidden_layers: number("block_count"),
    num_attention_heads: heads,
    num_key_value_heads: number("attention.head_count_kv", heads),
    head_dim: number("attention.key_length", hiddenSize / heads),
    max_position_embeddings: number("context_length"),
    rms_norm_eps: number("attention.layer_norm_rms_epsilon"),
    rope_theta: theta,
    hidden_act: "silu",
    vocab_size: tensors.find(({ name }) => name === "token_embd.weight")?.shape[0],
    tie_word_embeddings: !tensors.some(({ name }) => name === "output.weight"),
    quantization_config: { quant_method: "gguf" },
  };
  if (architecture === "llama") {
    config.rope_interleaved = true;
    config.attention_bias = tensors.some(({ name }) => name.endsWith(".attn_q.bias"));
  }
  const scaling = take("rope.scaling.type"), factor = take("rope.scaling.factor");
  take("rope.scaling.original_context_length");
  if (scaling === "linear" && typeof factor === "number") config.rope_scaling = { rope_type: "linear", factor };
  else if (scaling !== undefined && scaling !== "none") {
    throw new UnsupportedError(
      `Cannot use ${where}: ${architecture}.rope.scaling.type is ${JSON.stringify(scaling)}, supported: none, linear`,
    );
  }
  if (factors !== undefined) config.rope_scaling = scalingOf(factors, theta, where);
  for (const [key, name] of [["bos_token_id", "bos_token_id"], ["eos_token_id", "eos_token_id"]]) {
    const value = metadata.get(`tokenizer.ggml.${name}`);
    if (value !== undefined) config[key] = value;
  }
  const [other] = unknown.keys();
  if (other !== undefined) {
    throw new UnsupportedError(`Cannot use ${where}: ${other} is ${JSON.stringify(unknown.get(other))}, which is not supported`);
  }
  return config;
}
