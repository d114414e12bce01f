/**
 * OPT and Galactica: LayerNorm, learned positions, a plain feed-forward layer. Follows transformers' `modeling_opt.py`. OPT-350m, whose norms come behind what
 * sublayers add and whose embedding is narrower than its layers, is refused.
 * @module
 */
import type { ModelConfig } from "../architecture.ts";
import { ConfigReader } from "../config_reader.ts";
import { decoderArchitecture, type DecoderNames } from "../decoder.ts";
import {
  decoderConfig,
  layerNorm,
  plainAttention,
  plainMlp,
  readActivation,
  readShape,
  renamedSource,
} from "../decoder_config.ts";
import { refuseUnimplemented } from "../unimplemented_keys.ts";

/** Row of the table of positions that a sequence's first token has. */
const FIRST_POSITION = 2;

/** Norms have PyTorch's default. */
const EPS = 1e-5;

/** Checkpoint names of tensors within a layer, by the stored ones. */
const LAYER_NAMES: Readonly<Record<string, string>> = {
  "input_layernorm": "self_attn_layer_norm",
  "post_attention_layernorm": "final_layer_norm",
  "self_attn.o_proj": "self_attn.out_proj",
  "mlp.up_proj": "fc1",
  "mlp.down_proj": "fc2",
};

function names(prefix: string): DecoderNames {
  return {
    layerPrefix: (layer) => `${prefix}layers.${layer}.`,
    rootNames: {
      "model.embed_tokens.weight": `${prefix}embed_tokens.weight`,
      "model.embed_positions.weight": `${prefix}embed_positions.weight`,
      "model.norm.weight": `${prefix}final_layer_norm.weight`,
      "model.norm.bias": `${prefix}final_layer_norm.bias`,
    },
  };
}

function parseConfig(values: Record<string, unknown>): ModelConfig {
  const written = new ConfigReader(values, "config.json");
  refuseUnimplemented(written);
  const config = written.aliased({ intermediate_size: "ffn_dim" });
  for (const [key, only] of [["do_layer_norm_before", true], ["_remove_final_layer_norm", false]] as const) {
    if (config.boolean(key, only) !== only) throw config.refuse(key, `${only}`);
  }
  const shape = readShape(config, { contextTokens: 2048 });
  if (shape.numKvHeads !== shape.numHeads) throw config.refuse("num_key_value_heads", `num_attention_heads (${shape.numHeads})`);
  if (config.has("word_embed_proj_dim") && config.raw("word_embed_proj_dim") !== shape.hiddenSize) {
    throw config.refuse("word_embed_proj_dim", `hidden_size (${shape.hiddenSize})`);
  }
  const bias = config.boolean("enable_bias", true), affine = config.boolean("layer_norm_elementwise_affine", true);
  const norm = (name: string) => layerNorm(name, EPS, { weightless: !affine, bias: affine });
  const layer = {
    attention: plainAttention(shape.headDim, { qkvBias: bias, outputBias: bias, rope: undefined }),
    feedForward: plainMlp(shape.intermediateSize, readActivation(config, "activation_function", "relu"), { bias }),
    norms: { attentionInput: norm("input_layernorm"), feedForwardInput: norm("post_attention_layernorm") },
    parallel: false,
    residualMultiplier: 1,
  };
  return decoderConfig("opt", shape, {
    ropes: [],
    learnedPositions: { rows: shape.contextTokens + FIRST_POSITION, firstRow: FIRST_POSITION },
    layers: Array(shape.numLayers).fill(layer),
    finalNorm: norm("model.norm"),
    tieWordEmbeddings: config.boolean("tie_word_embeddings", true),
  });
}

/** OPT. */
export const OPT = decoderArchitecture({
  ...names("model.decoder."),
  otherNames: [names("decoder.")],
  modelTypes: ["opt"],
  parseConfig,
  layerSource: (name) => renamedSource(name, LAYER_NAMES),
});
