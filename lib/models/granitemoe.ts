/**
 * Granite 3 MoE: Granite's multipliers, experts stacked in one tensor. Follows transformers' `modeling_granitemoe.py`.
 * @module
 */
import type { ModelConfig, TensorSource } from "./architecture.ts";
import { ConfigReader } from "./config_reader.ts";
import { decoderArchitecture } from "./decoder.ts";
import { decoderConfig, plainAttention, preNormLayer, readActivation, readShape, rmsNorm } from "./decoder_config.ts";
import { plainMoe, plainRouter, readExperts } from "./moe_config.ts";
import { parseRope } from "./rope_config.ts";
import { refuseUnimplemented } from "./unimplemented_keys.ts";

function parseConfig(values: Record<string, unknown>): ModelConfig {
  const config = new ConfigReader(values, "config.json");
  const multipliers = ["embedding_multiplier", "attention_multiplier", "residual_multiplier", "logits_scaling"];
  refuseUnimplemented(config, [...multipliers, "attention_bias", "num_local_experts"]);
  const shape = readShape(config, { contextTokens: 2048 });
  const eps = config.positive("rms_norm_eps", 1e-6);
  const bias = config.boolean("attention_bias", false);
  const scale = config.positive("attention_multiplier", 1);
  const attention = plainAttention(shape.headDim, { qkvBias: bias, outputBias: bias, scale });
  const router = plainRouter(readExperts(config, "num_local_experts", { numExperts: 8, topK: 2 }), { score: "topk_softmax" });
  const moe = plainMoe(router, readActivation(config, "hidden_act", "silu"), shape.intermediateSize);
  const residualMultiplier = config.positive("residual_multiplier", 1);
  return decoderConfig("granitemoe", shape, {
    ropes: [parseRope(config, { ...shape, theta: 10_000 })],
    layers: Array(shape.numLayers).fill(preNormLayer(attention, moe, eps, { residualMultiplier })),
    finalNorm: rmsNorm("model.norm", eps),
    tieWordEmbeddings: config.boolean("tie_word_embeddings", false),
    embeddingMultiplier: config.positive("embedding_multiplier", 1),
    logitsMultiplier: 1 / config.positive("logits_scaling", 1),
  });
}

function layerSource(name: string, { intermediateSize }: ModelConfig): TensorSource | undefined {
  if (name === "mlp.gate.weight") return { name: "block_sparse_moe.router.layer.weight" };
  const expert = /^mlp\.experts\.(\d+)\.(\w+)\.weight$/.exec(name);
  if (!expert) return undefined;
  const index = Number(expert[1]);
  if (expert[2] === "down_proj") return { name: "block_sparse_moe.output_linear.weight", index };
  // The gate's rows, then those of `up`.
  return {
    name: "block_sparse_moe.input_linear.weight",
    index,
    firstRow: expert[2] === "gate_proj" ? 0 : intermediateSize,
  };
}

/** Granite MoE. */
export const GRANITEMOE = decoderArchitecture({ modelTypes: ["granitemoe"], parseConfig, layerSource });
