/**
 * Gemma: Llama with GELU, norms whose weights are stored as the distance from 1, and scaled embeddings. Follows transformers'
 * `modeling_gemma.py`.
 * @module
 */
import type { ModelConfig } from "../architecture.ts";
import { ConfigReader } from "../config_reader.ts";
import { decoderArchitecture } from "../decoder.ts";
import { decoderConfig, gatedMlp, plainAttention, readActivation, readShape, rmsNorm } from "../decoder_config.ts";
import { parseRope } from "../rope_config.ts";
import { refuseUnimplemented } from "../unimplemented_keys.ts";

function parseConfig(values: Record<string, unknown>): ModelConfig {
  const config = new ConfigReader(values, "config.json");
  refuseUnimplemented(config, ["attention_bias"]);
  const shape = readShape(config, { contextTokens: 8192, numKvHeads: 16, headDim: 256 });
  const eps = config.positive("rms_norm_eps", 1e-6);
  const bias = config.boolean("attention_bias", false);
  // The first releases say "gelu" and mean its approximation; `hidden_activation` was added to say so.
  const key = config.has("hidden_activation") ? "hidden_activation" : "hidden_act";
  const activation = readActivation(config, key, "gelu_pytorch_tanh");
  const layer = {
    attention: plainAttention(shape.headDim, { qkvBias: bias, outputBias: bias }),
    feedForward: gatedMlp(shape.intermediateSize, { activation: activation === "gelu" ? "gelu_tanh" : activation }),
    norms: {
      attentionInput: rmsNorm("input_layernorm", eps, 1),
      feedForwardInput: rmsNorm("post_attention_layernorm", eps, 1),
    },
    parallel: false,
    residualMultiplier: 1,
  };
  return decoderConfig("gemma", shape, {
    ropes: [parseRope(config, { ...shape, theta: 10_000 })],
    layers: Array(shape.numLayers).fill(layer),
    finalNorm: rmsNorm("model.norm", eps, 1),
    tieWordEmbeddings: config.boolean("tie_word_embeddings", true),
    embeddingMultiplier: Math.sqrt(shape.hiddenSize),
  });
}

/** Gemma. */
export const GEMMA = decoderArchitecture({ modelTypes: ["gemma"], parseConfig });
