/**
 * Qwen 3: Llama with norms of each query and key head. Follows transformers' `modeling_qwen3.py`.
 * @module
 */
import type { ModelConfig } from "./architecture.ts";
import { ConfigReader } from "./config_reader.ts";
import { decoderArchitecture } from "./decoder.ts";
import { decoderConfig, gatedMlp, plainAttention, preNormLayer, readActivation, readShape, rmsNorm } from "./decoder_config.ts";
import { QWEN_WINDOW_KEYS, readQwenWindows } from "./qwen2.ts";
import { parseRope } from "./rope_config.ts";
import { refuseUnimplemented } from "./unimplemented_keys.ts";

function parseConfig(values: Record<string, unknown>): ModelConfig {
  const config = new ConfigReader(values, "config.json");
  refuseUnimplemented(config, [...QWEN_WINDOW_KEYS, "attention_bias"]);
  const shape = readShape(config, { contextTokens: 32_768, numKvHeads: 32, headDim: 128 });
  const eps = config.positive("rms_norm_eps", 1e-6);
  const bias = config.boolean("attention_bias", false);
  const feedForward = gatedMlp(shape.intermediateSize, { activation: readActivation(config, "hidden_act", "silu") });
  const layer = (windowTokens: number | undefined) =>
    preNormLayer(
      plainAttention(shape.headDim, {
        qkvBias: bias,
        outputBias: bias,
        queryNorm: { ...rmsNorm("self_attn.q_norm", eps), scope: "head" },
        keyNorm: { ...rmsNorm("self_attn.k_norm", eps), scope: "head" },
        windowTokens,
      }),
      feedForward,
      eps,
    );
  return decoderConfig("qwen3", shape, {
    ropes: [parseRope(config, { ...shape, theta: 10_000 })],
    layers: readQwenWindows(config, shape.numLayers).map(layer),
    finalNorm: rmsNorm("model.norm", eps),
    tieWordEmbeddings: config.boolean("tie_word_embeddings", false),
  });
}

/** Qwen 3. */
export const QWEN3 = decoderArchitecture({ modelTypes: ["qwen3"], parseConfig });
