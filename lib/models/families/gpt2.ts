/**
 * GPT-2, GPT-Neo and StarCoder 1: LayerNorm, learned positions, a plain feed-forward layer, biases. GPT-2's matrices are stored turned; GPT-Neo does not scale scores
 * and has a window in every other layer; StarCoder's heads share one key head. Follows transformers' `modeling_gpt2.py`, `modeling_gpt_neo.py` and
 * `modeling_gpt_bigcode.py`.
 * @module
 */
import type { AttentionConfig } from "../../layers/model_config.ts";
import type { ModelConfig } from "../architecture.ts";
import { ConfigReader } from "../config_reader.ts";
import { decoderArchitecture, type DecoderNames } from "../decoder.ts";
import {
  decoderConfig,
  type DecoderShape,
  fusedQkv,
  layerNorm,
  plainAttention,
  plainMlp,
  qkvByHeads,
  readActivation,
  readShape,
  renamedSource,
} from "../decoder_config.ts";
import { refuseUnimplemented } from "../unimplemented_keys.ts";

/** Returns the names that GPT-2 and its kin have with or without a prefix. */
function gptNames(prefix: string): DecoderNames {
  return {
    layerPrefix: (layer) => `${prefix}h.${layer}.`,
    rootNames: {
      "model.embed_tokens.weight": `${prefix}wte.weight`,
      "model.embed_positions.weight": `${prefix}wpe.weight`,
      "model.norm.weight": `${prefix}ln_f.weight`,
      "model.norm.bias": `${prefix}ln_f.bias`,
    },
  };
}

/** Names of models with a head. */
export const GPT_NAMES = gptNames("transformer.");

/** Names of models that were saved without one, as GPT-2's releases were. */
export const GPT_OTHER_NAMES = gptNames("");

/** Returns why masks that are stored in attention are not needed. */
export function gptBufferReason(name: string): string | undefined {
  return /\.attn\.(attention\.)?(bias|masked_bias|causal_mask)$/.test(name) ? "masks are made from positions" : undefined;
}

/** Reads sizes under the names of GPT-2's configuration class. @throws {UnsupportedError} */
export function readGptShape(config: ConfigReader, contextTokens: number): DecoderShape {
  const aliased = config.aliased({
    ...{ hidden_size: "n_embd", num_hidden_layers: "n_layer", num_attention_heads: "n_head" },
    ...{ max_position_embeddings: "n_positions", intermediate_size: "n_inner" },
  });
  return readShape(aliased, { contextTokens, intermediateSize: 4 * aliased.integer("hidden_size") });
}

/** Checkpoint names of tensors within a layer, by the stored ones. */
const LAYER_NAMES: Readonly<Record<string, string>> = {
  "input_layernorm": "ln_1",
  "post_attention_layernorm": "ln_2",
  "self_attn.o_proj": "attn.c_proj",
  "mlp.up_proj": "mlp.c_fc",
  "mlp.down_proj": "mlp.c_proj",
};

/** Reads what all have in common; `attentionOf` makes each layer's attention. */
function parseCommon(
  config: ConfigReader,
  modelType: string,
  shape: DecoderShape,
  activation: string,
  attentionOf: (layer: number) => Partial<AttentionConfig>,
): ModelConfig {
  const eps = config.positive("layer_norm_epsilon", 1e-5);
  const feedForward = plainMlp(shape.intermediateSize, readActivation(config, "activation_function", activation));
  const norms = {
    attentionInput: layerNorm("input_layernorm", eps),
    feedForwardInput: layerNorm("post_attention_layernorm", eps),
  };
  return decoderConfig(modelType, shape, {
    ropes: [],
    learnedPositions: { rows: shape.contextTokens, firstRow: 0 },
    layers: Array.from({ length: shape.numLayers }, (_, layer) => ({
      attention: plainAttention(shape.headDim, { qkvBias: true, outputBias: true, rope: undefined, ...attentionOf(layer) }),
      feedForward,
      norms,
      parallel: false,
      residualMultiplier: 1,
    })),
    finalNorm: layerNorm("model.norm", eps),
    tieWordEmbeddings: config.boolean("tie_word_embeddings", true),
  });
}

/** Reads what scores are multiplied by, before a layer's number may divide it. */
function readScale(config: ConfigReader, headDim: number): number {
  return config.boolean("scale_attn_weights", true) ? 1 / Math.sqrt(headDim) : 1;
}

/** GPT-2. */
export const GPT2 = decoderArchitecture({
  ...GPT_NAMES,
  otherNames: [GPT_OTHER_NAMES],
  modelTypes: ["gpt2"],
  parseConfig: (values) => {
    const config = new ConfigReader(values, "config.json");
    refuseUnimplemented(config);
    const shape = readGptShape(config, 1024), scale = readScale(config, shape.headDim);
    const byLayer = config.boolean("scale_attn_by_inverse_layer_idx", false);
    return parseCommon(config, "gpt2", shape, "gelu_new", (layer) => ({ scale: byLayer ? scale / (layer + 1) : scale }));
  },
  layerSource: (name, config) => {
    const source = renamedSource(name, LAYER_NAMES) ?? fusedQkv(name, "attn.c_attn", config);
    // Its Conv1D has matrices as [cols, rows].
    return source && { ...source, transposed: /^(self_attn|mlp)\..*\.weight$/.test(name) };
  },
  ignoredTensorReason: gptBufferReason,
});

/** StarCoder 1, SantaCoder, Granite Code 20B and 34B. */
export const GPT_BIGCODE = decoderArchitecture({
  ...GPT_NAMES,
  otherNames: [GPT_OTHER_NAMES],
  modelTypes: ["gpt_bigcode"],
  parseConfig: (values) => {
    const config = new ConfigReader(values, "config.json");
    refuseUnimplemented(config);
    const shape = readGptShape(config, 1024), scale = readScale(config, shape.headDim);
    const numKvHeads = config.boolean("multi_query", true) ? 1 : shape.numHeads;
    if (config.has("num_key_value_heads") && config.raw("num_key_value_heads") !== numKvHeads) {
      throw config.refuse("num_key_value_heads", `${numKvHeads}, as multi_query says`);
    }
    return parseCommon(config, "gpt_bigcode", { ...shape, numKvHeads }, "gelu_pytorch_tanh", () => ({ scale }));
  },
  layerSource: (name, config) =>
    renamedSource(name, LAYER_NAMES) ?? (config.numKvHeads === 1 ? fusedQkv : qkvByHeads)(name, "attn.c_attn", config),
  ignoredTensorReason: gptBufferReason,
});

/** Returns which layers of GPT-Neo see a window alone: kinds that repeat, and how often. @throws {UnsupportedError} */
function readLocalLayers(config: ConfigReader, numLayers: number): boolean[] {
  const types = config.has("attention_types") ? config.raw("attention_types") : [[["global", "local"], 12]];
  const groups = Array.isArray(types) ? types : [];
  const isGroup = (group: unknown): group is [string[], number] =>
    Array.isArray(group) && group.length === 2 && Array.isArray(group[0]) && Number.isSafeInteger(group[1]) && group[1] >= 0 &&
    group[1] <= numLayers && group[0].every((kind) => kind === "global" || kind === "local");
  const kinds = groups.every(isGroup) ? groups.flatMap(([kinds, times]) => Array<string[]>(times).fill(kinds).flat()) : [];
  if (kinds.length !== numLayers) {
    throw config.refuse("attention_types", `lists of global and local, and how often each list repeats, for ${numLayers} layers`);
  }
  return kinds.map((kind) => kind === "local");
}

/** Checkpoint names of tensors within a layer of GPT-Neo where they are not GPT-2's. */
const GPT_NEO_NAMES: Readonly<Record<string, string>> = {
  ...LAYER_NAMES,
  "self_attn.q_proj": "attn.attention.q_proj",
  "self_attn.k_proj": "attn.attention.k_proj",
  "self_attn.v_proj": "attn.attention.v_proj",
  "self_attn.o_proj": "attn.attention.out_proj",
};

/** GPT-Neo. */
export const GPT_NEO = decoderArchitecture({
  ...GPT_NAMES,
  otherNames: [GPT_OTHER_NAMES],
  modelTypes: ["gpt_neo"],
  parseConfig: (values) => {
    const written = new ConfigReader(values, "config.json");
    refuseUnimplemented(written);
    const config = written.aliased({ num_hidden_layers: "num_layers", num_attention_heads: "num_heads" });
    const shape = readShape(config, { contextTokens: 2048, intermediateSize: 4 * config.integer("hidden_size") });
    if (shape.numKvHeads !== shape.numHeads) throw config.refuse("num_key_value_heads", `num_heads (${shape.numHeads})`);
    const local = readLocalLayers(config, shape.numLayers), windowTokens = config.integer("window_size", 256);
    return parseCommon(config, "gpt_neo", shape, "gelu_new", (layer) => ({
      ...{ qkvBias: false, scale: 1 },
      ...(local[layer] && { windowTokens }),
    }));
  },
  layerSource: (name) => renamedSource(name, GPT_NEO_NAMES),
  ignoredTensorReason: gptBufferReason,
});
