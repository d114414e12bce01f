/**
 * The first ChatGLM: a GLM (arXiv:2103.10360) that reads the prompt in both directions and writes into a blank of it. Follows what its published
 * `modeling_chatglm.py` computes (THUDM/chatglm-6b, 8b7d335): LayerNorms whose output takes the residual stream's place, heads rotated by two
 * positions, queries, keys and values of a head next to each other.
 * @module
 */
import type { NormConfig } from "../../layers/model_config.ts";
import type { ModelConfig, TensorSource } from "../architecture.ts";
import { ConfigReader } from "../config_reader.ts";
import { decoderArchitecture, REMOTE_CODE } from "../decoder.ts";
import { decoderConfig, type DecoderShape, plainAttention } from "../decoder_config.ts";
import { refuseUnimplemented } from "../unimplemented_keys.ts";

/** The published code scales residuals by the depth of the released model, whatever the config's. */
const NORMED_RESIDUAL = Math.sqrt(2 * 28);

/** Stored names, and the checkpoint's. */
const LAYER_NAMES: Readonly<Record<string, string>> = {
  "self_attn.o_proj": "attention.dense",
  "mlp.up_proj": "mlp.dense_h_to_4h",
  "mlp.down_proj": "mlp.dense_4h_to_h",
};

function readChatglm1Shape(config: ConfigReader): DecoderShape {
  const hiddenSize = config.integer("hidden_size", 4096), numHeads = config.integer("num_attention_heads", 32);
  // Each half of a head is rotated by halves.
  if (hiddenSize % (4 * numHeads) !== 0) {
    throw config.refuse("hidden_size", `a multiple of 4 times num_attention_heads (${numHeads})`);
  }
  return {
    hiddenSize,
    intermediateSize: config.integer("inner_hidden_size", 16_384),
    numLayers: config.integer("num_layers", 28),
    numHeads,
    numKvHeads: numHeads,
    headDim: hiddenSize / numHeads,
    vocabSize: config.integer("vocab_size", 150_528),
    contextTokens: config.integer("max_sequence_length", 2048),
  };
}

function parseConfig(values: Record<string, unknown>): ModelConfig {
  const config = new ConfigReader(values, "config.json");
  refuseUnimplemented(config);
  if (!config.boolean("position_encoding_2d", true)) throw config.refuse("position_encoding_2d", "true");
  const shape = readChatglm1Shape(config);
  const eps = config.positive("layernorm_epsilon", 1e-5), dim = shape.headDim / 2;
  const norm = (name: string): NormConfig => ({ kind: "layer", name, eps, bias: true, offset: 0 });
  const rope = { dim, theta: 10_000, scaling: { type: "default" as const }, halfFrequencies: true };
  const layer = {
    attention: plainAttention(shape.headDim, {
      qkvBias: true,
      outputBias: true,
      secondRope: { index: 1, interleaved: false, first: dim },
    }),
    feedForward: {
      kind: "plain" as const,
      activation: "gelu_tanh" as const,
      intermediateSize: shape.intermediateSize,
      bias: true,
    },
    norms: { attentionInput: norm("input_layernorm"), feedForwardInput: norm("post_attention_layernorm") },
    parallel: false,
    residualMultiplier: 1,
    normedResidual: NORMED_RESIDUAL,
  };
  return decoderConfig("chatglm", shape, {
    ropes: [{ ...rope, positions: "text" }, { ...rope, positions: "span" }],
    blankFilling: {
      startTokenId: config.count("bos_token_id", 150_004),
      blankTokenIds: [config.count("gmask_token_id", 150_001), config.count("mask_token_id", 150_000)],
    },
    layers: Array(shape.numLayers).fill(layer),
    finalNorm: norm("model.norm"),
    // Checkpoints hold a head, which transformers ties to the embedding all the same unless it is told not to.
    tieWordEmbeddings: config.boolean("tie_word_embeddings", true),
  });
}

function layerSource(name: string, { headDim }: ModelConfig): TensorSource | undefined {
  const match = /^(.*)(\.weight|\.bias)$/.exec(name)!;
  const renamed = LAYER_NAMES[match[1]];
  if (renamed) return { name: renamed + match[2] };
  const projection = /^self_attn\.([qkv])_proj$/.exec(match[1])?.[1];
  if (!projection) return undefined;
  return {
    name: `attention.query_key_value${match[2]}`,
    firstRow: { q: 0, k: 1, v: 2 }[projection]! * headDim,
    runRows: headDim,
    rowStep: 3 * headDim,
  };
}

/** The first ChatGLM, which has the others' name. */
export const CHATGLM_1 = decoderArchitecture({
  modelTypes: ["chatglm"],
  refusesExport: REMOTE_CODE,
  serves: (config) => config.inner_hidden_size !== undefined,
  parseConfig,
  layerPrefix: (layer) => `transformer.layers.${layer}.`,
  layerSource,
  rootNames: {
    "model.embed_tokens.weight": "transformer.word_embeddings.weight",
    "model.norm.weight": "transformer.final_layernorm.weight",
    "model.norm.bias": "transformer.final_layernorm.bias",
    "lm_head.weight": "lm_head.weight",
  },
});
