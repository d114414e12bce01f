/**
 * Falcon 7B, 40B, 180B, RW and 2 11B: LayerNorm, a plain feed-forward layer, mostly beside the attention; ALiBi in RW. Follows transformers'
 * `modeling_falcon.py`. Falcon 3 is of the Llama family.
 * @module
 */
import type { LayerConfig, NormConfig } from "../../layers/model_config.ts";
import { alibiSlopes } from "../alibi.ts";
import type { ModelConfig, TensorSource } from "../architecture.ts";
import { ConfigReader } from "../config_reader.ts";
import { decoderArchitecture } from "../decoder.ts";
import { decoderConfig, type DecoderShape, plainAttention, readActivation } from "../decoder_config.ts";
import { parseRope } from "../rope_config.ts";
import { refuseUnimplemented } from "../unimplemented_keys.ts";

/** Checkpoint names of tensors within a layer, by the stored ones; what is not here has one name. */
const LAYER_NAMES: Readonly<Record<string, string>> = {
  "self_attn.o_proj": "self_attention.dense",
  "mlp.up_proj": "mlp.dense_h_to_4h",
  "mlp.down_proj": "mlp.dense_4h_to_h",
};

/** Returns key heads: of the new architecture as the config says, else one or as many as query heads. */
function readKvHeads(config: ConfigReader, numHeads: number): number {
  if (!config.boolean("new_decoder_architecture", false)) return config.boolean("multi_query", true) ? 1 : numHeads;
  const numKvHeads = config.integer("num_kv_heads", numHeads);
  if (numHeads % numKvHeads !== 0) throw config.refuse("num_kv_heads", `a divisor of num_attention_heads (${numHeads})`);
  return numKvHeads;
}

function readFalconShape(config: ConfigReader): DecoderShape {
  const hiddenSize = config.integer("hidden_size"), numHeads = config.integer("num_attention_heads");
  if (hiddenSize % numHeads !== 0) throw config.refuse("hidden_size", `a multiple of num_attention_heads (${numHeads})`);
  return {
    hiddenSize,
    intermediateSize: config.integer("ffn_hidden_size", 4 * hiddenSize),
    numLayers: config.integer("num_hidden_layers"),
    numHeads,
    numKvHeads: readKvHeads(config, numHeads),
    headDim: hiddenSize / numHeads,
    vocabSize: config.integer("vocab_size"),
    contextTokens: config.integer("max_position_embeddings", 2048),
  };
}

/** Returns which norms a layer has, and whether its sublayers are parallel. */
function arrangement(config: ConfigReader, eps: number): Pick<LayerConfig, "norms" | "parallel"> {
  const norm = (name: string): NormConfig => ({ kind: "layer", name, eps, bias: true, offset: 0 });
  const isNew = config.boolean("new_decoder_architecture", false);
  if (!isNew && !config.boolean("parallel_attn", true)) {
    return {
      norms: { attentionInput: norm("input_layernorm"), feedForwardInput: norm("post_attention_layernorm") },
      parallel: false,
    };
  }
  const count = config.integer("num_ln_in_parallel_attn", isNew ? 2 : 1);
  if (count > (isNew ? 2 : 1)) throw config.refuse("num_ln_in_parallel_attn", isNew ? "1 or 2" : "1");
  return {
    norms: count === 2
      ? { attentionInput: norm("ln_attn"), feedForwardInput: norm("ln_mlp") }
      : { attentionInput: norm("input_layernorm") },
    parallel: true,
  };
}

function parseConfig(values: Record<string, unknown>): ModelConfig {
  const config = new ConfigReader(values, "config.json");
  refuseUnimplemented(config, ["alibi", "bias"]);
  const shape = readFalconShape(config);
  const eps = config.positive("layer_norm_epsilon", 1e-5);
  const bias = config.boolean("bias", false), alibi = config.boolean("alibi", false);
  const layer: LayerConfig = {
    attention: plainAttention(shape.headDim, {
      qkvBias: bias,
      outputBias: bias,
      rope: alibi ? undefined : { index: 0, interleaved: false },
    }),
    feedForward: {
      kind: "plain",
      activation: readActivation(config, "activation", "gelu"),
      intermediateSize: shape.intermediateSize,
      bias,
    },
    ...arrangement(config, eps),
    residualMultiplier: 1,
  };
  return decoderConfig("falcon", shape, {
    ropes: alibi ? [] : [parseRope(config, { ...shape, theta: 10_000 })],
    // Falcon rounds its slopes to bfloat16, and scales them with the scores.
    alibiSlopes: alibi
      ? alibiSlopes(shape.numHeads).map((slope) => roundToBfloat16(slope) / Math.sqrt(shape.headDim))
      : undefined,
    layers: Array(shape.numLayers).fill(layer),
    finalNorm: { kind: "layer", name: "model.norm", eps, bias: true, offset: 0 },
    tieWordEmbeddings: config.boolean("tie_word_embeddings", true),
  });
}

/** Rounds a positive number to 8 significant bits. */
function roundToBfloat16(value: number): number {
  const step = 2 ** (Math.floor(Math.log2(value)) - 7);
  return Math.round(value / step) * step;
}

/** Queries, keys and values are one matrix: by key head, its query heads, the key and the value. */
function layerSource(name: string, { numHeads, numKvHeads, headDim }: ModelConfig): TensorSource | undefined {
  const match = /^(.*)(\.weight|\.bias)$/.exec(name)!;
  const renamed = LAYER_NAMES[match[1]];
  if (renamed) return { name: renamed + match[2] };
  const projection = /^self_attn\.([qkv])_proj$/.exec(match[1])?.[1];
  if (!projection) return undefined;
  const queries = numHeads / numKvHeads;
  return {
    name: `self_attention.query_key_value${match[2]}`,
    firstRow: { q: 0, k: queries, v: queries + 1 }[projection]! * headDim,
    runRows: projection === "q" ? queries * headDim : headDim,
    rowStep: (queries + 2) * headDim,
  };
}

/** Falcon. */
export const FALCON = decoderArchitecture({
  modelTypes: ["falcon"],
  refusesExport: "transformers quantizes none of Falcon's linear layers, which are of a class of its own",
  parseConfig,
  layerPrefix: (layer) => `transformer.h.${layer}.`,
  layerSource,
  rootNames: {
    "model.embed_tokens.weight": "transformer.word_embeddings.weight",
    "model.norm.weight": "transformer.ln_f.weight",
    "model.norm.bias": "transformer.ln_f.bias",
  },
});
