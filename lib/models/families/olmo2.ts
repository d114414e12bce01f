/**
 * OLMo 2: norms of what sublayers add instead of what they read, and of all queries and all keys together. OLMo 3 has windows in three of four layers, and
 * stretches the rotation of the others. Follows transformers' `modeling_olmo2.py` and `modeling_olmo3.py`.
 * @module
 */
import type { AttentionConfig, RopeConfig } from "../../layers/model_config.ts";
import type { ModelConfig } from "../architecture.ts";
import { ConfigReader } from "../config_reader.ts";
import { decoderArchitecture } from "../decoder.ts";
import {
  decoderConfig,
  type DecoderShape,
  gatedMlp,
  plainAttention,
  readActivation,
  readShape,
  readSlidingLayers,
  readWindow,
  rmsNorm,
} from "../decoder_config.ts";
import { parseLayerRopes, parseRope } from "../rope_config.ts";
import { refuseUnimplemented } from "../unimplemented_keys.ts";

/** `attentionsOf` makes each layer's attention from the common one; `ropesOf` the rotations that they name. */
function parseOlmo(
  config: ConfigReader,
  modelType: string,
  ropesOf: (shape: DecoderShape) => RopeConfig[],
  attentionsOf: (attention: AttentionConfig, shape: DecoderShape) => AttentionConfig[],
): ModelConfig {
  const shape = readShape(config, { contextTokens: 2048 });
  const eps = config.positive("rms_norm_eps", 1e-5);
  const bias = config.boolean("attention_bias", false);
  const attention = plainAttention(shape.headDim, {
    qkvBias: bias,
    outputBias: bias,
    queryNorm: { ...rmsNorm("self_attn.q_norm", eps), scope: "whole" },
    keyNorm: { ...rmsNorm("self_attn.k_norm", eps), scope: "whole" },
  });
  const layer = {
    feedForward: gatedMlp(shape.intermediateSize, { activation: readActivation(config, "hidden_act", "silu") }),
    norms: {
      attentionOutput: rmsNorm("post_attention_layernorm", eps),
      feedForwardOutput: rmsNorm("post_feedforward_layernorm", eps),
    },
    parallel: false,
    residualMultiplier: 1,
  };
  return decoderConfig(modelType, shape, {
    ropes: ropesOf(shape),
    layers: attentionsOf(attention, shape).map((attention) => ({ ...layer, attention })),
    finalNorm: rmsNorm("model.norm", eps),
    tieWordEmbeddings: config.boolean("tie_word_embeddings", false),
  });
}

/** OLMo 2. */
export const OLMO2 = decoderArchitecture({
  modelTypes: ["olmo2"],
  parseConfig: (values) => {
    const config = new ConfigReader(values, "config.json");
    refuseUnimplemented(config, ["attention_bias"]);
    return parseOlmo(
      config,
      "olmo2",
      (shape) => [parseRope(config, { ...shape, theta: 10_000 })],
      (attention, { numLayers }) => Array(numLayers).fill(attention),
    );
  },
});

/** OLMo 3. */
export const OLMO3 = decoderArchitecture({
  modelTypes: ["olmo3"],
  parseConfig: (values) => {
    const config = new ConfigReader(values, "config.json");
    refuseUnimplemented(config, ["attention_bias", "sliding_window", "layer_types"]);
    const windowTokens = readWindow(config, 4096), theta = 500_000;
    return parseOlmo(
      config,
      "olmo3",
      (shape) => parseLayerRopes(config, shape, { all: theta, windowed: theta }, config.positive("rope_theta", theta)),
      (attention, { numLayers }) =>
        readSlidingLayers(config, numLayers, (layer) => (layer + 1) % 4 !== 0).map((slides) =>
          slides ? { ...attention, rope: { index: 1, interleaved: false }, windowTokens } : attention
        ),
    );
  },
});
