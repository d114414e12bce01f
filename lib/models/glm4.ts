/**
 * GLM 4: heads rotated by half in interleaved pairs, biases of queries, keys and values, a fused gate; GLM-4-0414 (`glm4`) has norms of what
 * sublayers add too. Follows transformers' `modeling_glm.py` and `modeling_glm4.py`.
 * @module
 */
import type { LayerConfig } from "../layers/model_config.ts";
import type { ModelConfig } from "./architecture.ts";
import { ConfigReader } from "./config_reader.ts";
import { decoderArchitecture } from "./decoder.ts";
import {
  decoderConfig,
  fusedGateUp,
  gatedMlp,
  plainAttention,
  preNormLayer,
  readActivation,
  readShape,
  rmsNorm,
} from "./decoder_config.ts";
import { parseRope } from "./rope_config.ts";
import { refuseUnimplemented } from "./unimplemented_keys.ts";

function parseConfig(values: Record<string, unknown>, hasOutputNorms: boolean): ModelConfig {
  const config = new ConfigReader(values, "config.json");
  refuseUnimplemented(config, ["attention_bias"]);
  const shape = readShape(config, { contextTokens: 131_072, numKvHeads: 2, headDim: 128 });
  const eps = config.positive("rms_norm_eps", 1.5625e-7);
  const attention = plainAttention(shape.headDim, {
    qkvBias: config.boolean("attention_bias", true),
    rope: { index: 0, interleaved: true },
  });
  const feedForward = gatedMlp(shape.intermediateSize, { activation: readActivation(config, "hidden_act", "silu") });
  const layer: LayerConfig = preNormLayer(attention, feedForward, eps);
  if (hasOutputNorms) {
    layer.norms.attentionOutput = rmsNorm("post_self_attn_layernorm", eps);
    layer.norms.feedForwardOutput = rmsNorm("post_mlp_layernorm", eps);
  }
  return decoderConfig(hasOutputNorms ? "glm4" : "glm", shape, {
    ropes: [parseRope(config, { ...shape, theta: 10_000, partialRotaryFactor: 0.5 })],
    layers: Array(shape.numLayers).fill(layer),
    finalNorm: rmsNorm("model.norm", eps),
    tieWordEmbeddings: config.boolean("tie_word_embeddings", false),
  });
}

const layerSource = (name: string, config: ModelConfig) => fusedGateUp(name, "mlp.gate_up_proj", config);

/** GLM-4-9B as transformers has it. */
export const GLM = decoderArchitecture({
  modelTypes: ["glm"],
  parseConfig: (values) => parseConfig(values, false),
  layerSource,
});

/** GLM-4-0414. */
export const GLM4 = decoderArchitecture({
  modelTypes: ["glm4"],
  parseConfig: (values) => parseConfig(values, true),
  layerSource,
});
