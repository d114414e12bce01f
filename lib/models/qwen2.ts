/**
 * Qwen 1.5, 2 and 2.5: Llama with biases of queries, keys and values, and windows in upper layers where they are switched on. Follows
 * transformers' `modeling_qwen2.py`.
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
  readSlidingLayers,
  rmsNorm,
} from "./decoder_config.ts";
import { parseRope } from "./rope_config.ts";
import { refuseUnimplemented } from "./unimplemented_keys.ts";

/** Keys of the windows. */
export const QWEN_WINDOW_KEYS = ["sliding_window", "use_sliding_window", "layer_types"];

/** Returns each layer's window, or undefined where it sees all. */
export function readQwenWindows(config: ConfigReader, numLayers: number): (number | undefined)[] {
  const used = config.boolean("use_sliding_window", false);
  const windowTokens = used ? config.integer("sliding_window", 4096) : undefined;
  const firstLayer = config.count("max_window_layers", 28);
  const sliding = readSlidingLayers(config, numLayers, (layer) => used && layer >= firstLayer);
  if (sliding.includes(true) && !used) {
    throw config.refuse("layer_types", "full_attention alone where use_sliding_window is false");
  }
  return sliding.map((slides) => slides ? windowTokens : undefined);
}

function parseConfig(values: Record<string, unknown>): ModelConfig {
  const config = new ConfigReader(values, "config.json");
  refuseUnimplemented(config, QWEN_WINDOW_KEYS);
  const shape = readShape(config, { contextTokens: 32_768, numKvHeads: 32 });
  const eps = config.positive("rms_norm_eps", 1e-6);
  const feedForward = gatedMlp(shape.intermediateSize, { activation: readActivation(config, "hidden_act", "silu") });
  const layer = (windowTokens: number | undefined) =>
    preNormLayer(plainAttention(shape.headDim, { qkvBias: true, windowTokens }), feedForward, eps);
  return decoderConfig("qwen2", shape, {
    ropes: [parseRope(config, { ...shape, theta: 10_000 })],
    layers: readQwenWindows(config, shape.numLayers).map(layer),
    finalNorm: rmsNorm("model.norm", eps),
    tieWordEmbeddings: config.boolean("tie_word_embeddings", false),
  });
}

/** Qwen 2. */
export const QWEN2 = decoderArchitecture({ modelTypes: ["qwen2"], parseConfig });
