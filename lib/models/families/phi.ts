/**
 * Phi 1, 1.5 and 2: LayerNorm, sublayers in parallel that share it, a plain feed-forward layer, heads rotated by half, biases everywhere, of the head too. Follows
 * transformers' `modeling_phi.py`.
 * @module
 */
import type { ModelConfig } from "../architecture.ts";
import { ConfigReader } from "../config_reader.ts";
import { decoderArchitecture } from "../decoder.ts";
import {
  decoderConfig,
  layerNorm,
  plainAttention,
  plainMlp,
  readActivation,
  readShape,
  renamedSource,
} from "../decoder_config.ts";
import { parseRope } from "../rope_config.ts";
import { refuseUnimplemented } from "../unimplemented_keys.ts";

/** Checkpoint names of tensors within a layer, by the stored ones. */
const LAYER_NAMES: Readonly<Record<string, string>> = {
  "self_attn.o_proj": "self_attn.dense",
  "mlp.up_proj": "mlp.fc1",
  "mlp.down_proj": "mlp.fc2",
};

function parseConfig(values: Record<string, unknown>): ModelConfig {
  const config = new ConfigReader(values, "config.json");
  refuseUnimplemented(config);
  const shape = readShape(config, { contextTokens: 2048 });
  const eps = config.positive("layer_norm_eps", 1e-5);
  const layer = {
    attention: plainAttention(shape.headDim, { qkvBias: true, outputBias: true }),
    feedForward: plainMlp(shape.intermediateSize, readActivation(config, "hidden_act", "gelu_new")),
    norms: { attentionInput: layerNorm("input_layernorm", eps) },
    parallel: true,
    residualMultiplier: 1,
  };
  return decoderConfig("phi", shape, {
    ropes: [parseRope(config, { ...shape, theta: 10_000, partialRotaryFactor: 0.5 })],
    layers: Array(shape.numLayers).fill(layer),
    finalNorm: layerNorm("model.norm", eps),
    tieWordEmbeddings: config.boolean("tie_word_embeddings", false),
    headBias: true,
  });
}

/** Phi. */
export const PHI = decoderArchitecture({
  modelTypes: ["phi"],
  parseConfig,
  layerSource: (name) => renamedSource(name, LAYER_NAMES),
  rootNames: { "model.norm.weight": "model.final_layernorm.weight", "model.norm.bias": "model.final_layernorm.bias" },
});
