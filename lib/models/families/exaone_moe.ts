/**
 * K-EXAONE 236B-A23B: windows with positions in three of four layers, the others see all and have no positions; DeepSeek-V3's experts. Follows
 * transformers' `modeling_exaone_moe.py`.
 * @module
 */
import type { ModelConfig, TensorSource } from "../architecture.ts";
import { ConfigReader } from "../config_reader.ts";
import { decoderArchitecture } from "../decoder.ts";
import {
  decoderConfig,
  gatedMlp,
  plainAttention,
  preNormLayer,
  readActivation,
  readShape,
  readSlidingLayers,
  readWindow,
  rmsNorm,
} from "../decoder_config.ts";
import { correctedMoe, readMlpLayers, sharedExpertsSource, widestIntermediate } from "../moe_config.ts";
import { parseRope } from "../rope_config.ts";
import { refuseUnimplemented } from "../unimplemented_keys.ts";

/** Returns which layers see a window alone. */
function readWindowedLayers(config: ConfigReader, numLayers: number): boolean[] {
  // A pattern in letters says nothing to transformers, which then needs the list.
  const listed = config.has("layer_types"), written = config.raw("sliding_window_pattern");
  const pattern = listed && typeof written === "string" ? 1 : config.integer("sliding_window_pattern", 4);
  return readSlidingLayers(config, numLayers, (layer) => (layer + 1) % pattern !== 0);
}

function parseConfig(values: Record<string, unknown>): ModelConfig {
  const config = new ConfigReader(values, "config.json");
  refuseUnimplemented(config, ["num_experts", "sliding_window", "sliding_window_pattern", "layer_types"]);
  const shape = readShape(config, { contextTokens: 2048, numKvHeads: 32 });
  const eps = config.positive("rms_norm_eps", 1e-5);
  const activation = readActivation(config, "hidden_act", "silu");
  const windowTokens = readWindow(config, 4096);
  if (windowTokens === undefined) throw config.refuse("sliding_window", "a positive integer");
  const attention = plainAttention(shape.headDim, {
    queryNorm: { ...rmsNorm("self_attn.q_norm", eps), scope: "head" },
    keyNorm: { ...rmsNorm("self_attn.k_norm", eps), scope: "head" },
  });
  const windowed = { ...attention, windowTokens }, whole = { ...attention, rope: undefined };
  const keys = { experts: "num_experts", shared: "num_shared_experts" };
  const moe = correctedMoe(config, activation, keys, {
    ...{ numExperts: 64, topK: 8, expertSize: 1024, sharedExperts: 1, scale: 2.5 },
  });
  const dense = gatedMlp(shape.intermediateSize, { activation });
  const feedForwards = readMlpLayers(config, shape.numLayers, 1).map((sparse) => sparse ? moe : dense);
  return decoderConfig("exaone_moe", { ...shape, intermediateSize: widestIntermediate(feedForwards) }, {
    ropes: [parseRope(config, { ...shape, theta: 10_000 })],
    layers: readWindowedLayers(config, shape.numLayers).map((slides, layer) =>
      preNormLayer(slides ? windowed : whole, feedForwards[layer], eps)
    ),
    finalNorm: rmsNorm("model.norm", eps),
    tieWordEmbeddings: config.boolean("tie_word_embeddings", false),
  });
}

function layerSource(name: string): TensorSource | undefined {
  return name === "mlp.gate.e_score_correction_bias" ? { name: "mlp.e_score_correction_bias" } : sharedExpertsSource(name);
}

/** K-EXAONE. */
export const EXAONE_MOE = decoderArchitecture({
  modelTypes: ["exaone_moe"],
  parseConfig,
  layerSource,
  ignoredTensorReason: (name) => name.startsWith("mtp.") ? "predicts tokens further ahead, which is not used" : undefined,
});
