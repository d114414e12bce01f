/**
 * Granite 3 MoE: Granite's multipliers, experts stacked in one tensor, in some releases beside a shared one. Follows transformers'
 * `modeling_granitemoe.py` and `modeling_granitemoeshared.py`.
 * @module
 */
import type { ModelConfig, TensorSource } from "../architecture.ts";
import { ConfigReader } from "../config_reader.ts";
import { decoderArchitecture } from "../decoder.ts";
import { decoderConfig, gatedMlp, plainAttention, preNormLayer, readActivation, readShape, rmsNorm } from "../decoder_config.ts";
import { plainMoe, plainRouter, readExperts, widestIntermediate } from "../moe_config.ts";
import { parseRope } from "../rope_config.ts";
import { refuseUnimplemented } from "../unimplemented_keys.ts";

function parseConfig(values: Record<string, unknown>, modelType: string): ModelConfig {
  const config = new ConfigReader(values, "config.json");
  const multipliers = ["embedding_multiplier", "attention_multiplier", "residual_multiplier", "logits_scaling"];
  refuseUnimplemented(config, [...multipliers, "attention_bias", "num_local_experts"]);
  const shape = readShape(config, { contextTokens: 2048 });
  const eps = config.positive("rms_norm_eps", 1e-6);
  const bias = config.boolean("attention_bias", false);
  const scale = config.positive("attention_multiplier", 1);
  const attention = plainAttention(shape.headDim, { qkvBias: bias, outputBias: bias, scale });
  const router = plainRouter(readExperts(config, "num_local_experts", { numExperts: 8, topK: 2 }), { score: "topk_softmax" });
  const activation = readActivation(config, "hidden_act", "silu");
  const sharedSize = modelType === "granitemoeshared" ? config.count("shared_intermediate_size", 0) : 0;
  const shared = sharedSize === 0 ? undefined : { mlp: gatedMlp(sharedSize, { activation }), gated: false };
  const moe = plainMoe(router, activation, shape.intermediateSize, { shared });
  const residualMultiplier = config.positive("residual_multiplier", 1);
  return decoderConfig(modelType, { ...shape, intermediateSize: widestIntermediate([moe]) }, {
    ropes: [parseRope(config, { ...shape, theta: 10_000 })],
    layers: Array(shape.numLayers).fill(preNormLayer(attention, moe, eps, { residualMultiplier })),
    finalNorm: rmsNorm("model.norm", eps),
    tieWordEmbeddings: config.boolean("tie_word_embeddings", false),
    embeddingMultiplier: config.positive("embedding_multiplier", 1),
    logitsMultiplier: 1 / config.positive("logits_scaling", 1),
  });
}

/** Returns where a projection of a gated layer lies: `gate_proj` and `up_proj` in one tensor, `down_proj` in another. */
function fusedSource(projection: string, prefix: string, intermediateSize: number): TensorSource {
  if (projection === "down_proj") return { name: `${prefix}output_linear.weight` };
  // The gate's rows, then those of `up`.
  return { name: `${prefix}input_linear.weight`, firstRow: projection === "gate_proj" ? 0 : intermediateSize };
}

/** Returns where Granite keeps a tensor of its feed-forward layers, which without experts are what a shared one is beside them. */
export function graniteMlpSource(name: string, { layers }: ModelConfig, layer: number): TensorSource | undefined {
  const { feedForward } = layers[layer];
  const dense = /^mlp\.(\w+)\.weight$/.exec(name);
  if (dense && feedForward.kind !== "moe") return fusedSource(dense[1], "shared_mlp.", feedForward.intermediateSize);
  if (name === "mlp.gate.weight") return { name: "block_sparse_moe.router.layer.weight" };
  const shared = /^mlp\.shared_expert\.(\w+)\.weight$/.exec(name);
  if (shared && feedForward.kind === "moe") {
    return fusedSource(shared[1], "shared_mlp.", feedForward.shared!.mlp.intermediateSize);
  }
  const expert = /^mlp\.experts\.(\d+)\.(\w+)\.weight$/.exec(name);
  if (!expert) return undefined;
  return { ...fusedSource(expert[2], "block_sparse_moe.", feedForward.intermediateSize), index: Number(expert[1]) };
}

function granitemoe(modelType: string) {
  return decoderArchitecture({
    modelTypes: [modelType],
    parseConfig: (values) => parseConfig(values, modelType),
    layerSource: graniteMlpSource,
  });
}

/** Granite MoE. */
export const GRANITEMOE = granitemoe("granitemoe");

/** Granite MoE with a shared expert. */
export const GRANITEMOESHARED = granitemoe("granitemoeshared");
