/**
 * What the configurations of most decoder families have in common, read with transformers' names.
 * @module
 */
import type {
  Activation,
  AttentionConfig,
  LayerConfig,
  MlpActivation,
  MlpConfig,
  ModelConfig,
  MoeConfig,
  NormConfig,
} from "../layers/model_config.ts";
import type { TensorSource } from "./architecture.ts";
import type { ConfigReader } from "./config_reader.ts";

/** transformers' names of activation functions. */
const ACTIVATIONS: Readonly<Record<string, Exclude<Activation, "swiglu_oai">>> = {
  silu: "silu",
  swish: "silu",
  gelu: "gelu",
  gelu_new: "gelu_tanh",
  gelu_fast: "gelu_tanh",
  gelu_pytorch_tanh: "gelu_tanh",
  relu: "relu",
  relu2: "relu2",
};

/** Sizes of a decoder. */
export type DecoderShape = Pick<
  ModelConfig,
  "hiddenSize" | "intermediateSize" | "numLayers" | "numHeads" | "numKvHeads" | "headDim" | "vocabSize" | "contextTokens"
>;

/** Returns `head_dim`, or what it is where it is not set. @throws {UnsupportedError} */
export function readHeadDim(config: ConfigReader, hiddenSize: number, numHeads: number): number {
  if (!config.has("head_dim") && hiddenSize % numHeads !== 0) {
    throw config.refuse("hidden_size", `a multiple of num_attention_heads (${numHeads}) where head_dim is not set`);
  }
  return config.integer("head_dim", hiddenSize / numHeads);
}

/**
 * Reads the sizes of a decoder.
 * @param missing Defaults of the family's configuration class, for keys that a config.json may lack.
 * @throws {UnsupportedError}
 */
export function readShape(config: ConfigReader, missing: Partial<DecoderShape> & { contextTokens: number }): DecoderShape {
  const hiddenSize = config.integer("hidden_size", missing.hiddenSize);
  const numHeads = config.integer("num_attention_heads", missing.numHeads);
  // null, unlike a key that is not there, stands for as many as query heads.
  const kvMissing = config.raw("num_key_value_heads") === null ? numHeads : missing.numKvHeads ?? numHeads;
  const numKvHeads = config.integer("num_key_value_heads", kvMissing);
  if (numHeads % numKvHeads !== 0) throw config.refuse("num_key_value_heads", `a divisor of num_attention_heads (${numHeads})`);
  const headDim = missing.headDim === undefined
    ? readHeadDim(config, hiddenSize, numHeads)
    : config.integer("head_dim", missing.headDim);
  return {
    hiddenSize,
    intermediateSize: config.integer("intermediate_size", missing.intermediateSize),
    numLayers: config.integer("num_hidden_layers", missing.numLayers),
    numHeads,
    numKvHeads,
    headDim,
    vocabSize: config.integer("vocab_size", missing.vocabSize),
    contextTokens: config.integer("max_position_embeddings", missing.contextTokens),
  };
}

/** Reads an activation function by transformers' name for it. @throws {UnsupportedError} */
export function readActivation(config: ConfigReader, key: string, missing: string): Exclude<Activation, "swiglu_oai"> {
  const name = config.has(key) ? config.raw(key) : missing;
  if (typeof name !== "string" || !Object.hasOwn(ACTIVATIONS, name)) {
    throw config.refuse(key, Object.keys(ACTIVATIONS).map((known) => JSON.stringify(known)).join(" or "));
  }
  return ACTIVATIONS[name];
}

/** The kinds of attention that `layer_types` tells apart. */
const LAYER_TYPES = ["full_attention", "sliding_attention"];

/**
 * Returns which layers see a window alone, as `layer_types` says.
 * @param missing What it is where the key is not set.
 * @throws {UnsupportedError}
 */
export function readSlidingLayers(config: ConfigReader, numLayers: number, missing: (layer: number) => boolean): boolean[] {
  if (!config.has("layer_types")) return Array.from({ length: numLayers }, (_, layer) => missing(layer));
  const types = config.raw("layer_types");
  if (!Array.isArray(types) || types.length !== numLayers || types.some((type) => !LAYER_TYPES.includes(type))) {
    throw config.refuse("layer_types", `a list of ${numLayers} of ${LAYER_TYPES.join(", ")}`);
  }
  return types.map((type) => type === "sliding_attention");
}

/**
 * Returns `sliding_window`, or undefined where it is null.
 * @param missing What it is where the key is not there.
 * @throws {UnsupportedError}
 */
export function readWindow(config: ConfigReader, missing?: number): number | undefined {
  return config.raw("sliding_window") === null
    ? undefined
    : config.raw("sliding_window") === undefined
    ? missing
    : config.integer("sliding_window");
}

/** Returns an RMSNorm by its tensor's name. */
export function rmsNorm(name: string, eps: number, offset = 0): NormConfig {
  return { kind: "rms", name, eps, bias: false, offset };
}

/** Returns a LayerNorm with weight and bias by its tensors' name; a family changes what differs. */
export function layerNorm(name: string, eps: number, changes: Partial<NormConfig> = {}): NormConfig {
  return { kind: "layer", name, eps, bias: true, offset: 0, ...changes };
}

/** Returns attention with rotary embedding `ropes[0]` by halves and nothing else; a family changes what differs. */
export function plainAttention(headDim: number, changes: Partial<AttentionConfig> = {}): AttentionConfig {
  return {
    qkvBias: false,
    outputBias: false,
    rope: { index: 0, interleaved: false },
    scale: 1 / Math.sqrt(headDim),
    softcap: 0,
    ...changes,
  };
}

/** Returns a SwiGLU layer; a family changes what differs. */
export function gatedMlp(intermediateSize: number, changes: Partial<MlpConfig> = {}): MlpConfig {
  return { kind: "gated", activation: "silu", intermediateSize, bias: false, ...changes };
}

/** Returns a layer without a gate, with biases; a family changes what differs. */
export function plainMlp(intermediateSize: number, activation: MlpActivation, changes: Partial<MlpConfig> = {}): MlpConfig {
  return { kind: "plain", activation, intermediateSize, bias: true, ...changes };
}

/** Returns Llama's arrangement: each sublayer reads its RMSNorm of the residual stream; a family changes what differs. */
export function preNormLayer(
  attention: AttentionConfig,
  feedForward: MlpConfig | MoeConfig,
  eps: number,
  changes: Partial<LayerConfig> = {},
): LayerConfig {
  return {
    attention,
    feedForward,
    norms: {
      attentionInput: rmsNorm("input_layernorm", eps),
      feedForwardInput: rmsNorm("post_attention_layernorm", eps),
    },
    parallel: false,
    residualMultiplier: 1,
    ...changes,
  };
}

/** Returns a model's configuration with nothing but layers between embedding and head; a family changes what differs. */
export function decoderConfig(
  modelType: string,
  shape: DecoderShape,
  parts: Pick<ModelConfig, "ropes" | "layers" | "finalNorm" | "tieWordEmbeddings"> & Partial<ModelConfig>,
): ModelConfig {
  return { modelType, ...shape, embeddingMultiplier: 1, logitsMultiplier: 1, logitsSoftcap: 0, ...parts };
}

/**
 * Returns where `q_proj`, `k_proj` or `v_proj` (weight or bias) lies in one tensor that holds the three below each other; undefined for others.
 * @param fused The tensor's name without `.weight` and `.bias`.
 */
export function fusedQkv(name: string, fused: string, config: ModelConfig): TensorSource | undefined {
  const match = /^self_attn\.([qkv])_proj(\.weight|\.bias)$/.exec(name);
  if (!match) return undefined;
  const queryRows = config.numHeads * config.headDim, kvRows = config.numKvHeads * config.headDim;
  return { name: fused + match[2], firstRow: { q: 0, k: queryRows, v: queryRows + kvRows }[match[1]] };
}

/** Returns where `gate_proj` or `up_proj` lies in one tensor that holds both below each other; undefined for others. */
export function fusedGateUp(name: string, fused: string, config: ModelConfig): TensorSource | undefined {
  const match = /^mlp\.(gate|up)_proj(\.weight|\.bias)$/.exec(name);
  return match ? { name: fused + match[2], firstRow: match[1] === "gate" ? 0 : config.intermediateSize } : undefined;
}

/**
 * Returns where `q_proj`, `k_proj` or `v_proj` (weight or bias) lies in one tensor that holds, head after head, its query, key and value; undefined for others.
 * @param fused The tensor's name without `.weight` and `.bias`.
 */
export function qkvByHeads(name: string, fused: string, { headDim }: ModelConfig): TensorSource | undefined {
  const match = /^self_attn\.([qkv])_proj(\.weight|\.bias)$/.exec(name);
  if (!match) return undefined;
  return { name: fused + match[2], firstRow: "qkv".indexOf(match[1]) * headDim, runRows: headDim, rowStep: 3 * headDim };
}

/** Returns where a tensor lies whose name without `.weight` and `.bias` is in a table; undefined for others. */
export function renamedSource(name: string, names: Readonly<Record<string, string>>): TensorSource | undefined {
  const match = /^(.*)(\.weight|\.bias)$/.exec(name);
  return match && Object.hasOwn(names, match[1]) ? { name: names[match[1]] + match[2] } : undefined;
}
