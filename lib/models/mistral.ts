/**
 * Mistral 7B and its kin: Llama with a sliding window. Follows transformers' `modeling_mistral.py`.
 * @module
 */
import type { ModelConfig } from "./architecture.ts";
import { ConfigReader } from "./config_reader.ts";
import { decoderArchitecture } from "./decoder.ts";
import {
  decoderConfig,
  gatedMlp,
  plainAttention,
  preNormLayer,
  readActivation,
  readShape,
  readWindow,
  rmsNorm,
} from "./decoder_config.ts";
import { parseRope } from "./rope_config.ts";
import { refuseUnimplemented } from "./unimplemented_keys.ts";

function parseConfig(values: Record<string, unknown>): ModelConfig {
  const config = new ConfigReader(values, "config.json");
  refuseUnimplemented(config, ["sliding_window"]);
  const shape = readShape(config, { contextTokens: 131_072, numKvHeads: 8 });
  const eps = config.positive("rms_norm_eps", 1e-6);
  const attention = plainAttention(shape.headDim, { windowTokens: readWindow(config, 4096) });
  const feedForward = gatedMlp(shape.intermediateSize, { activation: readActivation(config, "hidden_act", "silu") });
  return decoderConfig("mistral", shape, {
    ropes: [parseRope(config, { ...shape, theta: 10_000 })],
    layers: Array(shape.numLayers).fill(preNormLayer(attention, feedForward, eps)),
    finalNorm: rmsNorm("model.norm", eps),
    tieWordEmbeddings: config.boolean("tie_word_embeddings", false),
  });
}

/** Mistral. */
export const MISTRAL = decoderArchitecture({ modelTypes: ["mistral"], parseConfig });
