/**
 * Gemma: Llama with GELU, norms whose weights are stored as the distance from 1, and scaled embeddings. Follows transformers'
 * `modeling_gemma.py`.
 * @module
 */
import type { ModelConfig } from "./architecture.ts";
import { ConfigReader } from "./config_reader.ts";
import { decoderArchitecture } from "./decoder.ts";
import { decoderConfig, gatedMlp, plainAttention, readActivation, readShape, rmsNorm } from "./decoder_config.ts";
import { parseRope } from "./rope_config.ts";
import { refuseUnimplemented } from "./unimplemented_keys.ts";

/** Returns what is added to the weights of norms: 1, unless they have it already, as in GGUF files. */
export function readNormOffset(config: ConfigReader): 0 | 1 {
  return config.boolean("norm_weights_whole", false) ? 0 : 1;
}

function parseConfig(values: Record<string, unknown>): ModelConfig {
  const config = new ConfigReader(values, "config.json");
  refuseUnimplemented(config, ["attention_bias", "norm_weights_whole"]);
  const shape = readShape(config, { contextTokens: 8192, numKvHeads: 16, headDim: 256 });
  const eps = config.positive("rms_norm_eps", 1e-6), offset = readNormOffset(config);
  const bias = config.boolean("attention_bias", false);
  // The first releases say "gelu" and mean its approximation; `hidden_activation` was added to say so.
  const key = config.has("hidden_activation") ? "hidden_activation" : "hidden_act";
  const activation = readActivation(config, key, "gelu_pytorch_tanh");
  const layer = {
    attention: plainAttention(shape.headDim, { qkvBias: bias, outputBias: bias }),
    feedForward: gatedMlp(shape.intermediateSize, { activation: activation === "gelu" ? "gelu_tanh" : activation }),
    norms: {
      attentionInput: rmsNorm("input_layernorm", eps, offset),
      feedForwardInput: rmsNorm("post_attention_layernorm", eps, offset),
    },
    parallel: false,
    residualMultiplier: 1,
  };
  return decoderConfig("gemma", shape, {
    ropes: [parseRope(config, { ...shape, theta: 10_000 })],
    layers: Array(shape.numLayers).fill(layer),
    finalNorm: rmsNorm("model.norm", eps, offset),
    tieWordEmbeddings: config.boolean("tie_word_embeddings", true),
    embeddingMultiplier: Math.sqrt(shape.hiddenSize),
  });
}

/** Gemma. */
export const GEMMA = decoderArchitecture({ modelTypes: ["gemma"], parseConfig });
