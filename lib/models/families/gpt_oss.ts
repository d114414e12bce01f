/**
 * gpt-oss 20B and 120B: sinks in the attention's softmax, every other layer through a window, a clamped SwiGLU with biases. Follows transformers'
 * `modeling_gpt_oss.py`.
 * @module
 */
import type { ModelConfig, TensorSource } from "../architecture.ts";
import { ConfigReader } from "../config_reader.ts";
import { decoderArchitecture } from "../decoder.ts";
import {
  decoderConfig,
  plainAttention,
  preNormLayer,
  readShape,
  readSlidingLayers,
  readWindow,
  rmsNorm,
} from "../decoder_config.ts";
import { plainMoe, plainRouter, readExperts } from "../moe_config.ts";
import { parseRope } from "../rope_config.ts";
import { refuseUnimplemented } from "../unimplemented_keys.ts";

/** What the activation has built in. */
const SWIGLU = { swiglu_limit: 7, swiglu_alpha: 1.702 };

function parseConfig(values: Record<string, unknown>): ModelConfig {
  const config = new ConfigReader(values, "config.json");
  refuseUnimplemented(config, ["num_local_experts", "attention_bias", "sliding_window", "layer_types"]);
  for (const [key, value] of Object.entries(SWIGLU)) {
    if (config.has(key) && config.raw(key) !== value) throw config.refuse(key, `${value}`);
  }
  const shape = readShape(config, { contextTokens: 131_072, numKvHeads: 8, headDim: 64 });
  const eps = config.positive("rms_norm_eps", 1e-5);
  const bias = config.boolean("attention_bias", true), windowTokens = readWindow(config, 128);
  const sliding = readSlidingLayers(config, shape.numLayers, (layer) => layer % 2 === 0);
  const router = plainRouter(readExperts(config, "num_local_experts", { numExperts: 128, topK: 4 }), { score: "topk_softmax" });
  const moe = plainMoe(router, "swiglu_oai", shape.intermediateSize, { bias: true, routerBias: true });
  return decoderConfig("gpt_oss", shape, {
    ropes: [parseRope(config, { ...shape, theta: 150_000 })],
    layers: sliding.map((slides) => {
      const attention = plainAttention(shape.headDim, { qkvBias: bias, outputBias: bias, sinks: true });
      if (slides && windowTokens !== undefined) attention.windowTokens = windowTokens;
      return preNormLayer(attention, moe, eps);
    }),
    finalNorm: rmsNorm("model.norm", eps),
    tieWordEmbeddings: config.boolean("tie_word_embeddings", false),
  });
}

function layerSource(name: string): TensorSource | undefined {
  if (name.startsWith("mlp.gate.")) return { name: name.replace("mlp.gate.", "mlp.router.") };
  const expert = /^mlp\.experts\.(\d+)\.(\w+)_proj\.(weight|bias)$/.exec(name);
  if (!expert) return undefined;
  const [, number, projection, part] = expert;
  const isWeight = part === "weight";
  const source: TensorSource = { name: "", index: Number(number), ...isWeight && { transposed: true } };
  const stored = `mlp.experts.${projection === "down" ? "down" : "gate_up"}_proj${isWeight ? "" : "_bias"}`;
  // Rows of gate and up take turns.
  return projection === "down"
    ? { ...source, name: stored }
    : { ...source, name: stored, firstRow: projection === "gate" ? 0 : 1, rowStep: 2 };
}

/** The gpt-oss family. */
export const GPT_OSS = decoderArchitecture({ modelTypes: ["gpt_oss"], parseConfig, layerSource });
