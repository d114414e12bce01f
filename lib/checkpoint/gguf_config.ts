/**
 * The config.json that a GGUF file's metadata are. Keys: gguf-py's constants.py and llama.cpp's `conversion/`, what is not written: its `src/models/`.
 * Weights of queries and keys of architecture llama are stored so that rotary embeddings pair neighbours (`permute`), and norms of Gemma with their
 * 1 added; both are computed with as they are, by `rope_interleaved` and `norm_weights_whole`.
 * @module
 */
import { FormatError, UnsupportedError } from "../errors.ts";
import type { GgufHeader, GgufValue } from "./gguf.ts";

/** Keys of an architecture, each taken once: what is left is not known. */
class ArchitectureKeys {
  readonly #left: Map<string, GgufValue>;

  constructor(metadata: ReadonlyMap<string, GgufValue>, readonly architecture: string, readonly where: string) {
    this.#left = new Map([...metadata].filter(([key]) => key.startsWith(`${architecture}.`)));
  }

  has(name: string): boolean {
    return this.#left.has(`${this.architecture}.${name}`);
  }

  take(name: string): GgufValue | undefined {
    const key = `${this.architecture}.${name}`, value = this.#left.get(key);
    this.#left.delete(key);
    return value;
  }

  /** Takes a number, 0 or more where it may be. @throws {FormatError} */
  number(name: string, missing?: number, least = Number.MIN_VALUE): number {
    const value = this.take(name) ?? missing;
    if (typeof value === "number" && Number.isFinite(value) && value >= least) return value;
    throw new FormatError(
      `Cannot read ${this.where}: ${this.architecture}.${name} is ${JSON.stringify(value)}, required a positive number`,
    );
  }

  /** @throws {UnsupportedError} for the first key that was not taken. */
  refuseOthers(): void {
    for (const [key, value] of this.#left) {
      throw new UnsupportedError(`Cannot use ${this.where}: ${key} is ${JSON.stringify(value)}, which is not supported`);
    }
  }
}

type Config = Record<string, unknown>;

/** Sizes that more than one architecture's settings depend on. */
interface Sizes {
  layers: number;
  heads: number;
  hiddenSize: number;
  headDim: number;
}

const experts = (keys: ArchitectureKeys, name: string): Config => ({
  [name]: keys.number("expert_count"),
  num_experts_per_tok: keys.number("expert_used_count"),
});

/** Gemma's scale of attention where a model of so many layers is the largest (`f_attention_scale`). */
const gemmaScalar = ({ layers, heads, hiddenSize, headDim }: Sizes, largest: number): number =>
  layers === largest ? hiddenSize / heads : headDim;

/** What each architecture has beyond what all have; its `model_type` too, where that is another name. */
const ARCHITECTURES: Readonly<Record<string, (keys: ArchitectureKeys, sizes: Sizes, header: GgufHeader) => Config>> = {
  llama(keys, _sizes, { tensors }) {
    const config: Config = { rope_interleaved: true };
    if (keys.has("expert_count")) return { ...config, model_type: "mixtral", ...experts(keys, "num_local_experts") };
    return { ...config, attention_bias: tensors.some(({ name }) => name.endsWith(".attn_q.bias")) };
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
  phi3(keys, { headDim }) {
    const window = keys.number("attention.sliding_window", 0, 0);
    return {
      sliding_window: window === 0 ? null : window,
      partial_rotary_factor: keys.number("rope.dimension_count", headDim) / headDim,
    };
  },
};

/** Bases of rotary embeddings where a file does not say. */
const THETA: Readonly<Record<string, number>> = { gemma3: 1_000_000 };

/** Keys that say nothing new. */
const NEEDLESS = ["vocab_size", "rope.dimension_count", "attention.value_length"];

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
function scalingOf(factors: Float32Array, theta: number, where: string): Config {
  for (const factor of [8, 32]) {
    const known = llama3Factors(factors.length, theta, factor);
    if (known.every((value, i) => Math.abs(value - factors[i]) <= 1e-4 * value)) {
      return { rope_type: "llama3", factor, low_freq_factor: 1, high_freq_factor: 4, original_max_position_embeddings: 8192 };
    }
  }
  throw new UnsupportedError(`Cannot use ${where}: rope_freqs.weight holds factors that are not those of Llama 3.1 or 3.2`);
}

/** Returns how rotary embeddings stretch, as config.json has it. @throws {UnsupportedError} */
function ropeScaling(keys: ArchitectureKeys, theta: number, factors: ReadonlyMap<string, Float32Array>): Config {
  const { where, architecture } = keys;
  const type = keys.take("rope.scaling.type"), factor = keys.take("rope.scaling.factor");
  const original = keys.take("rope.scaling.original_context_length");
  const all = factors.get("rope_freqs.weight"), long = factors.get("rope_factors_long.weight");
  if (long !== undefined) {
    const short = factors.get("rope_factors_short.weight");
    if (short === undefined || typeof original !== "number") {
      throw new FormatError(
        `Cannot read ${where}: rope_factors_long.weight is there without rope_factors_short.weight or its length`,
      );
    }
    const attention = keys.has("rope.scaling.attn_factor") && { attention_factor: keys.number("rope.scaling.attn_factor") };
    const scaling = { rope_type: "longrope", long_factor: [...long], short_factor: [...short], ...attention };
    return { original_max_position_embeddings: original, rope_scaling: scaling };
  }
  if (all !== undefined) return { rope_scaling: scalingOf(all, theta, where) };
  if (type === "linear" && typeof factor === "number") return { rope_scaling: { rope_type: "linear", factor } };
  if (type === undefined || type === "none") return {};
  throw new UnsupportedError(
    `Cannot use ${where}: ${architecture}.rope.scaling.type is ${JSON.stringify(type)}, supported: none, linear`,
  );
}

/**
 * Returns the config.json that a GGUF file's metadata are.
 * @param factors Values of the file's tensors that are factors of rotary frequencies, by name.
 * @throws {UnsupportedError} for an architecture or a setting that is not known.
 * @throws {FormatError} for a setting that is missing or of another type.
 */
export function ggufConfig(header: GgufHeader, factors: ReadonlyMap<string, Float32Array>, where: string): Config {
  const { metadata, tensors } = header;
  const architecture = metadata.get("general.architecture");
  if (typeof architecture !== "string" || !Object.hasOwn(ARCHITECTURES, architecture)) {
    throw new UnsupportedError(
      `Cannot use ${where}: its architecture is ${JSON.stringify(architecture)}, supported: ${
        Object.keys(ARCHITECTURES).join(", ")
      }`,
    );
  }
  const keys = new ArchitectureKeys(metadata, architecture, where);
  const hiddenSize = keys.number("embedding_length"), heads = keys.number("attention.head_count");
  const layers = keys.number("block_count"), headDim = keys.number("attention.key_length", hiddenSize / heads);
  const theta = keys.number("rope.freq_base", THETA[architecture] ?? 10_000);
  const config: Config = {
    model_type: architecture,
    hidden_size: hiddenSize,
    intermediate_size: keys.number("feed_forward_length"),
    num_hidden_layers: layers,
    num_attention_heads: heads,
    num_key_value_heads: keys.number("attention.head_count_kv", heads),
    head_dim: headDim,
    max_position_embeddings: keys.number("context_length"),
    rms_norm_eps: keys.number("attention.layer_norm_rms_epsilon"),
    rope_theta: theta,
    hidden_act: "silu",
    vocab_size: tensors.find(({ name }) => name === "token_embd.weight")?.shape[0],
    tie_word_embeddings: !tensors.some(({ name }) => name === "output.weight"),
    quantization_config: { quant_method: "gguf" },
    ...ropeScaling(keys, theta, factors),
    ...ARCHITECTURES[architecture](keys, { layers, heads, hiddenSize, headDim }, header),
  };
  for (const key of ["bos_token_id", "eos_token_id"]) {
    const value = metadata.get(`tokenizer.ggml.${key}`);
    if (value !== undefined) config[key] = value;
  }
  for (const name of NEEDLESS) keys.take(name);
  keys.refuseOthers();
  return config;
}
