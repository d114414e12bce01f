/**
 * StarCoder 2: LayerNorm, a plain feed-forward layer, biases everywhere, a window. Follows transformers' `modeling_starcoder2.py`.
 * @module
 */
import type { NormConfig } from "../../layers/model_config.ts";
import type { ModelConfig } from "../architecture.ts";
import { ConfigReader } from "../config_reader.ts";
import { decoderArchitecture } from "../decoder.ts";
import { decoderConfig, plainAttention, readActivation, readShape, readWindow } from "../decoder_config.ts";
import { parseRope } from "../rope_config.ts";
import { refuseUnimplemented } from "../unimplemented_keys.ts";

/** Stored names of the feed-forward layer, and the checkpoint's. */
const MLP_NAMES: Readonly<Record<string, string>> = { up_proj: "c_fc", down_proj: "c_proj" };

function parseConfig(values: Record<string, unknown>): ModelConfig {
  const config = new ConfigReader(values, "config.json");
  refuseUnimplemented(config, ["sliding_window"]);
  for (const [key, only] of [["mlp_type", "default"], ["norm_type", "layer_norm"]] as const) {
    if (config.has(key) && config.raw(key) !== only) throw config.refuse(key, JSON.stringify(only));
  }
  const shape = readShape(config, { contextTokens: 4096, numKvHeads: 2 });
  const eps = config.positive("norm_epsilon", 1e-5);
  const bias = config.boolean("use_bias", true);
  const norm = (name: string): NormConfig => ({ kind: "layer", name, eps, bias: true, offset: 0 });
  const layer = {
    attention: plainAttention(shape.headDim, { qkvBias: bias, outputBias: bias, windowTokens: readWindow(config) }),
    feedForward: {
      kind: "plain" as const,
      activation: readActivation(config, "hidden_act", "gelu_pytorch_tanh"),
      intermediateSize: shape.intermediateSize,
      bias,
    },
    norms: { attentionInput: norm("input_layernorm"), feedForwardInput: norm("post_attention_layernorm") },
    parallel: false,
    residualMultiplier: 1,
  };
  return decoderConfig("starcoder2", shape, {
    ropes: [parseRope(config, { ...shape, theta: 10_000 })],
    layers: Array(shape.numLayers).fill(layer),
    finalNorm: norm("model.norm"),
    tieWordEmbeddings: config.boolean("tie_word_embeddings", true),
  });
}

/** StarCoder 2. */
export const STARCODER2 = decoderArchitecture({
  modelTypes: ["starcoder2"],
  parseConfig,
  layerSource: (name) => {
    const match = /^mlp\.(up_proj|down_proj)(\.weight|\.bias)$/.exec(name);
    return match ? { name: `mlp.${MLP_NAMES[match[1]]}${match[2]}` } : undefined;
  },
});
