/**
 * ERNIE 4.5 21B-A3B and 300B-A47B: a softmax over experts that are chosen with a correction, a shared expert, neighbours rotated in pairs. Follows
 * transformers' `modeling_ernie4_5_moe.py`.
 * @module
 */
import type { ModelConfig, TensorSource } from "../architecture.ts";
import { ConfigReader } from "../config_reader.ts";
import { decoderArchitecture } from "../decoder.ts";
import { decoderConfig, gatedMlp, plainAttention, preNormLayer, readActivation, readShape, rmsNorm } from "../decoder_config.ts";
import { plainMoe, plainRouter, readExperts, sharedExperts, sharedExpertsSource, widestIntermediate } from "../moe_config.ts";
import { parseRope } from "../rope_config.ts";
import { refuseUnimplemented } from "../unimplemented_keys.ts";

/** Returns which layers have experts. @throws {UnsupportedError} */
function readMoeLayers(config: ConfigReader, numLayers: number): boolean[] {
  const first = config.count("moe_layer_start_index", 1), interval = config.integer("moe_layer_interval", 1);
  const last = config.raw("moe_layer_end_index") === -1 ? numLayers - 1 : config.count("moe_layer_end_index", numLayers - 1);
  return Array.from({ length: numLayers }, (_, layer) => (layer + 1) % interval === 0 && layer >= first && layer <= last);
}

function parseConfig(values: Record<string, unknown>): ModelConfig {
  const config = new ConfigReader(values, "config.json");
  refuseUnimplemented(config);
  if (config.boolean("use_bias", false)) throw config.refuse("use_bias", "false");
  const shape = readShape(config, { contextTokens: 131_072, numKvHeads: 4 });
  const eps = config.positive("rms_norm_eps", 1e-5);
  const activation = readActivation(config, "hidden_act", "silu");
  const experts = readExperts(config, "moe_num_experts", { numExperts: 64, topK: 6 }, "moe_k");
  const router = plainRouter(experts, { normalize: true, normalizeLeast: config.positive("moe_norm_min", 1e-12) });
  const expertSize = config.integer("moe_intermediate_size", 1536);
  const moe = plainMoe(router, activation, expertSize, {
    correctionBias: true,
    ...sharedExperts(expertSize, config.count("moe_num_shared_experts", 2), activation),
  });
  const dense = gatedMlp(shape.intermediateSize, { activation });
  const attention = plainAttention(shape.headDim, { rope: { index: 0, interleaved: true } });
  const feedForwards = readMoeLayers(config, shape.numLayers).map((routed) => routed ? moe : dense);
  return decoderConfig("ernie4_5_moe", { ...shape, intermediateSize: widestIntermediate(feedForwards) }, {
    ropes: [parseRope(config, { ...shape, theta: 500_000 })],
    layers: feedForwards.map((feedForward) => preNormLayer(attention, feedForward, eps)),
    finalNorm: rmsNorm("model.norm", eps),
    tieWordEmbeddings: config.boolean("tie_word_embeddings", true),
  });
}

/** ERNIE 4.5 with experts. */
export const ERNIE4_5_MOE = decoderArchitecture({
  modelTypes: ["ernie4_5_moe"],
  parseConfig,
  layerSource(name, { layers }, layer): TensorSource | undefined {
    const { feedForward } = layers[layer];
    if (name === "mlp.gate.e_score_correction_bias" && feedForward.kind === "moe") {
      // A matrix of one row.
      return { name: "mlp.moe_statics.e_score_correction_bias", vectorCols: feedForward.router.numExperts };
    }
    return sharedExpertsSource(name);
  },
  ignoredTensorReason: (name) => /^model\.mtp_/.test(name) ? "predicts tokens further ahead, which is not used" : undefined,
});
