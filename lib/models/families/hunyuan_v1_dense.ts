/**
 * Hunyuan 0.5B to 7B: Llama with norms of query and key heads behind their rotation. Follows transformers' `modeling_hunyuan_v1_dense.py`.
 * @module
 */
import type { ModelConfig } from "../architecture.ts";
import { ConfigReader } from "../config_reader.ts";
import { decoderArchitecture } from "../decoder.ts";
import { decoderConfig, gatedMlp, plainAttention, preNormLayer, readActivation, readShape, rmsNorm } from "../decoder_config.ts";
import { readHunyuanRope } from "./hunyuan_v1_moe.ts";
import { refuseUnimplemented } from "../unimplemented_keys.ts";

/** Keys of releases with the values that transformers computes. */
const FIXED: Readonly<Record<string, readonly unknown[]>> = {
  norm_type: ["rms"],
  use_cla: [false],
  use_qk_norm: [true],
  use_rotary_pos_emb: [true],
};

function parseConfig(values: Record<string, unknown>): ModelConfig {
  const config = new ConfigReader(values, "config.json");
  refuseUnimplemented(config, ["attention_bias", "use_qk_norm"]);
  for (const [key, known] of Object.entries(FIXED)) {
    if (config.has(key) && !known.includes(config.raw(key))) throw config.refuse(key, known.map(String).join(" or "));
  }
  const shape = readShape(config, { contextTokens: 2048 });
  const eps = config.positive("rms_norm_eps", 1e-5);
  const bias = config.boolean("attention_bias", false);
  const attention = plainAttention(shape.headDim, {
    qkvBias: bias,
    outputBias: bias,
    queryNorm: { ...rmsNorm("self_attn.query_layernorm", eps), scope: "head" },
    keyNorm: { ...rmsNorm("self_attn.key_layernorm", eps), scope: "head" },
    normsRotated: true,
  });
  const feedForward = gatedMlp(shape.intermediateSize, { activation: readActivation(config, "hidden_act", "silu") });
  return decoderConfig("hunyuan_v1_dense", shape, {
    ropes: [readHunyuanRope(config, { ...shape, theta: 10_000 })],
    layers: Array(shape.numLayers).fill(preNormLayer(attention, feedForward, eps)),
    finalNorm: rmsNorm("model.norm", eps),
    tieWordEmbeddings: config.boolean("tie_word_embeddings", false),
  });
}

/** Hunyuan, dense. */
export const HUNYUAN_V1_DENSE = decoderArchitecture({ modelTypes: ["hunyuan_v1_dense"], parseConfig });
