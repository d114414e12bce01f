/**
 * The config.json that a GGUF file's metadata are. Keys: gguf-py's constants.py and llama.cpp's `conversion/base.py`.
 * @module
 */
import { UnsupportedError } from "../errors.ts";
import type { GgufHeader } from "./gguf.ts";
import { type Config, GGUF_ARCHITECTURES } from "./gguf_architectures.ts";
import { ArchitectureKeys } from "./gguf_keys.ts";
import { ggufRopeScaling } from "./gguf_rope.ts";
import { ggufEndTokens } from "./gguf_tokenizer.ts";

/** Bases of rotary embeddings where a file does not say. */
const THETA: Readonly<Record<string, number>> = { gemma3: 1_000_000 };

/** Keys that say nothing new. */
const NEEDLESS = [
  ...["vocab_size", "rope.dimension_count", "attention.value_length", "tensor_data_layout", "rope.dimension_sections"],
];

/** The keys of config.json for the epsilon of a norm, by that of a GGUF file; each family reads its own. */
const EPSILONS: Readonly<Record<string, readonly string[]>> = {
  "attention.layer_norm_rms_epsilon": ["rms_norm_eps"],
  "attention.layer_norm_epsilon": ["layer_norm_eps", "layer_norm_epsilon", "norm_epsilon"],
};

/** Returns the epsilons that a file gives. */
function epsilons(keys: ArchitectureKeys): Config {
  const config: Config = {};
  for (const [name, targets] of Object.entries(EPSILONS)) {
    if (!keys.has(name)) continue;
    const value = keys.number(name);
    for (const target of targets) config[target] = value;
  }
  return config;
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
  if (typeof architecture !== "string" || !Object.hasOwn(GGUF_ARCHITECTURES, architecture)) {
    throw new UnsupportedError(
      `Cannot use ${where}: its architecture is ${JSON.stringify(architecture)}, supported: ${
        Object.keys(GGUF_ARCHITECTURES).join(", ")
      }`,
    );
  }
  const keys = new ArchitectureKeys(header, architecture, where);
  const hiddenSize = keys.number("embedding_length"), heads = keys.number("attention.head_count");
  // Layers that predict further ahead come last.
  const layers = keys.number("block_count") - keys.count("nextn_predict_layers");
  const headDim = architecture === "deepseek2" ? 0 : keys.number("attention.key_length", hiddenSize / heads);
  const kvHeads = keys.number("attention.head_count_kv", heads), intermediateSize = keys.count("feed_forward_length");
  const theta = keys.number("rope.freq_base", THETA[architecture] ?? 10_000), contextTokens = keys.number("context_length");
  const config: Config = {
    model_type: architecture,
    hidden_size: hiddenSize,
    // Files of models that have experts alone may lack it.
    ...(intermediateSize > 0 && { intermediate_size: intermediateSize }),
    num_hidden_layers: layers,
    num_attention_heads: heads,
    num_key_value_heads: kvHeads,
    head_dim: headDim,
    max_position_embeddings: contextTokens,
    ...epsilons(keys),
    rope_theta: theta,
    hidden_act: "silu",
    vocab_size: tensors.find(({ name }) => name === "token_embd.weight")?.shape[0],
    tie_word_embeddings: !tensors.some(({ name }) => name === "output.weight"),
    quantization_config: { quant_method: "gguf" },
    ...ggufRopeScaling(keys, theta, contextTokens, factors),
    ...GGUF_ARCHITECTURES[architecture](keys, { layers, heads, kvHeads, hiddenSize, headDim, intermediateSize }, header),
  };
  // gpt-oss does not round the bounds of YaRN's ramp, which the file does not say.
  if (architecture === "gpt-oss" && config.rope_scaling) Object.assign(config.rope_scaling, { truncate: false });
  const begin = metadata.get("tokenizer.ggml.bos_token_id"), ends = ggufEndTokens(metadata);
  if (begin !== undefined) config.bos_token_id = begin;
  if (ends.length > 0) config.eos_token_id = ends.length === 1 ? ends[0] : ends;
  for (const name of NEEDLESS) keys.take(name);
  keys.refuseOthers();
  return config;
}
