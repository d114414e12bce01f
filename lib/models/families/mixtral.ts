/**
 * Mixtral 8x7B and 8x22B. Follows transformers' `modeling_mixtral.py`.
 * @module
 */
import type { ModelConfig, TensorSource } from "../architecture.ts";
import { ConfigReader } from "../config_reader.ts";
import { decoderArchitecture } from "../decoder.ts";
import { decoderConfig, plainAttention, preNormLayer, readActivation, readShape, rmsNorm } from "../decoder_config.ts";
import { plainMoe, plainRouter, readExperts } from "../moe_config.ts";
import { parseRope } from "../rope_config.ts";
import { refuseUnimplemented } from "../unimplemented_keys.ts";

function parseConfig(values: Record<string, unknown>): ModelConfig {
  const config = new ConfigReader(values, "config.json");
  refuseUnimplemented(config, ["num_local_experts", "sliding_window"]);
  const shape = readShape(config, { contextTokens: 4096 * 32 });
  const eps = config.positive("rms_norm_eps", 1e-5);
  const attention = plainAttention(shape.headDim);
  if (config.has("sliding_window")) attention.windowTokens = config.integer("sliding_window");
  // router_jitter_noise is noise of training.
  const router = plainRouter(readExperts(config, "num_local_experts", { numExperts: 8, topK: 2 }), { normalize: true });
  const moe = plainMoe(router, readActivation(config, "hidden_act", "silu"), shape.intermediateSize);
  return decoderConfig("mixtral", shape, {
    ropes: [parseRope(config, { ...shape, theta: 1e6 })],
    layers: Array(shape.numLayers).fill(preNormLayer(attention, moe, eps)),
    finalNorm: rmsNorm("model.norm", eps),
    tieWordEmbeddings: config.boolean("tie_word_embeddings", false),
  });
}

const PROJECTIONS: Readonly<Record<string, string>> = { gate_proj: "w1", down_proj: "w2", up_proj: "w3" };

/** Returns where Mixtral keeps a tensor of its experts or its router; undefined for others. */
export function mixtralExpertSource(name: string): TensorSource | undefined {
  const expert = /^mlp\.experts\.(\d+)\.(\w+)\.weight$/.exec(name);
  if (expert) return { name: `block_sparse_moe.experts.${expert[1]}.${PROJECTIONS[expert[2]]}.weight` };
  return name === "mlp.gate.weight" ? { name: "block_sparse_moe.gate.weight" } : undefined;
}

/** The Mixtral family. */
export const MIXTRAL = decoderArchitecture({ modelTypes: ["mixtral"], parseConfig, layerSource: mixtralExpertSource });
