/**
 * OLMoE 1B-7B: norms over all query and key heads together, experts in every layer. Follows transformers' `modeling_olmoe.py`.
 * @module
 */
import type { ModelConfig } from "../architecture.ts";
import { ConfigReader } from "../config_reader.ts";
import { decoderArchitecture } from "../decoder.ts";
import { decoderConfig, plainAttention, preNormLayer, readActivation, readShape, rmsNorm } from "../decoder_config.ts";
import { plainMoe, plainRouter, readExperts } from "../moe_config.ts";
import { parseRope } from "../rope_config.ts";
import { refuseUnimplemented } from "../unimplemented_keys.ts";

function parseConfig(values: Record<string, unknown>): ModelConfig {
  const config = new ConfigReader(values, "config.json");
  refuseUnimplemented(config, ["num_experts", "attention_bias"]);
  const shape = readShape(config, { contextTokens: 4096 });
  const eps = config.positive("rms_norm_eps", 1e-5);
  const bias = config.boolean("attention_bias", false);
  const attention = plainAttention(shape.headDim, {
    qkvBias: bias,
    outputBias: bias,
    queryNorm: { ...rmsNorm("self_attn.q_norm", eps), scope: "whole" },
    keyNorm: { ...rmsNorm("self_attn.k_norm", eps), scope: "whole" },
  });
  const router = plainRouter(readExperts(config, "num_experts", { numExperts: 64, topK: 8 }), {
    normalize: config.boolean("norm_topk_prob", false),
  });
  const moe = plainMoe(router, readActivation(config, "hidden_act", "silu"), shape.intermediateSize);
  return decoderConfig("olmoe", shape, {
    ropes: [parseRope(config, { ...shape, theta: 10_000 })],
    layers: Array(shape.numLayers).fill(preNormLayer(attention, moe, eps)),
    finalNorm: rmsNorm("model.norm", eps),
    tieWordEmbeddings: config.boolean("tie_word_embeddings", false),
  });
}

/** OLMoE. */
export const OLMOE = decoderArchitecture({ modelTypes: ["olmoe"], parseConfig });
