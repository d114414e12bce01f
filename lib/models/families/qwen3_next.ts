/**
 * Qwen3-Next 80B-A3B: gated delta nets and every fourth layer gated attention, with experts and a gated shared one. Follows transformers'
 * `modeling_qwen3_next.py`.
 * @module
 */
import type { DeltaNetConfig } from "../../layers/model_config.ts";
import type { ModelConfig, TensorSource } from "../architecture.ts";
import { ConfigReader } from "../config_reader.ts";
import { decoderArchitecture } from "../decoder.ts";
import { decoderConfig, gatedMlp, preNormLayer, readActivation, readShape, rmsNorm } from "../decoder_config.ts";
import { aheadReason, HYBRID_KEYS, hybridNorms, hybridSource, readHybridLayers } from "../hybrid_config.ts";
import { plainMoe, plainRouter, readExperts, readSparseLayers, widestIntermediate } from "../moe_config.ts";
import { parseRope } from "../rope_config.ts";
import { refuseUnimplemented } from "../unimplemented_keys.ts";

function parseConfig(values: Record<string, unknown>): ModelConfig {
  const config = new ConfigReader(values, "config.json");
  refuseUnimplemented(config, [...HYBRID_KEYS, "num_experts"]);
  const shape = readShape(config, { contextTokens: 32_768, numKvHeads: 2, headDim: 256, intermediateSize: 5632 });
  const eps = config.positive("rms_norm_eps", 1e-6);
  const activation = readActivation(config, "hidden_act", "silu");
  const dense = gatedMlp(shape.intermediateSize, { activation });
  const router = plainRouter(readExperts(config, "num_experts", { numExperts: 512, topK: 10 }), {
    normalize: config.boolean("norm_topk_prob", true),
  });
  const moe = plainMoe(router, activation, config.integer("moe_intermediate_size", 512), {
    shared: { mlp: gatedMlp(config.integer("shared_expert_intermediate_size", 512), { activation }), gated: true },
  });
  const feedForwards = readSparseLayers(config, shape.numLayers).map((sparse) => sparse ? moe : dense);
  const norms = hybridNorms(eps);
  return decoderConfig("qwen3_next", { ...shape, intermediateSize: widestIntermediate(feedForwards) }, {
    ropes: [parseRope(config, { ...shape, theta: 10_000, partialRotaryFactor: 0.25 })],
    layers: readHybridLayers(config, shape, eps).map((attention, layer) =>
      preNormLayer(attention, feedForwards[layer], eps, { norms })
    ),
    finalNorm: rmsNorm("model.norm", eps, 1),
    tieWordEmbeddings: config.boolean("tie_word_embeddings", false),
  });
}

/** By key head: its query, its key, the values that share them, and their gates; in another tensor, how much those correct and how much decays. */
function projectionSource(part: string, { keyHeads, valueHeads, keyDim, valueDim }: DeltaNetConfig): TensorSource | undefined {
  const shared = valueHeads / keyHeads, values = shared * valueDim;
  if (part === "b" || part === "a") {
    return { name: "linear_attn.in_proj_ba.weight", firstRow: part === "b" ? 0 : shared, runRows: shared, rowStep: 2 * shared };
  }
  return {
    name: "linear_attn.in_proj_qkvz.weight",
    firstRow: { q: 0, k: keyDim, v: 2 * keyDim, z: 2 * keyDim + values }[part],
    runRows: part === "q" || part === "k" ? keyDim : values,
    rowStep: 2 * keyDim + 2 * values,
  };
}

/** Qwen3-Next. */
export const QWEN3_NEXT = decoderArchitecture({
  modelTypes: ["qwen3_next"],
  parseConfig,
  layerSource: (name, config, layer) => hybridSource(name, config, layer, projectionSource),
  ignoredTensorReason: aheadReason,
});
