/**
 * Phi 3.5 MoE: layer norms, biases of attention and head, two experts a token by a sparsemixer. Follows transformers' `modeling_phimoe.py`, but for
 * sequences longer than the original context the code that Microsoft published, whose long factors transformers leaves out.
 * @module
 */
import type { NormConfig, RopeConfig } from "../../layers/model_config.ts";
import type { ModelConfig } from "../architecture.ts";
import { ConfigReader } from "../config_reader.ts";
import { decoderArchitecture } from "../decoder.ts";
import { decoderConfig, type DecoderShape, plainAttention, preNormLayer, readActivation, readShape } from "../decoder_config.ts";
import { mixtralExpertSource } from "./mixtral.ts";
import { plainMoe, plainRouter, readExperts } from "../moe_config.ts";
import { parseRope } from "../rope_config.ts";
import { refuseUnimplemented } from "../unimplemented_keys.ts";

/** What cos and sin are multiplied by, in short sequences and in long ones. */
const MSCALES = ["short_mscale", "long_mscale"];

function readRope(config: ConfigReader, shape: DecoderShape): RopeConfig {
  const rope = parseRope(config, { ...shape, theta: 1e6, needlessKeys: MSCALES });
  if (rope.scaling.type === "default") return rope;
  const written = config.object("rope_parameters") ?? config.object("rope_scaling")!;
  if (rope.scaling.type !== "longrope") throw written.refuse("type", `"longrope"`);
  const [attentionFactor, long] = MSCALES.map((key) => written.positive(key));
  if (long !== attentionFactor) throw written.refuse("long_mscale", `short_mscale (${attentionFactor})`);
  return { ...rope, scaling: { ...rope.scaling, attentionFactor } };
}

function parseConfig(values: Record<string, unknown>): ModelConfig {
  const config = new ConfigReader(values, "config.json");
  refuseUnimplemented(config, [
    ...["num_local_experts", "attention_bias", "lm_head_bias", "sliding_window", "original_max_position_embeddings"],
  ]);
  const shape = readShape(config, { contextTokens: 131_072, numKvHeads: 8 });
  const eps = config.positive("rms_norm_eps", 1e-5), bias = config.boolean("attention_bias", false);
  const attention = plainAttention(shape.headDim, { qkvBias: bias, outputBias: bias });
  if (config.has("sliding_window")) attention.windowTokens = config.integer("sliding_window");
  const experts = readExperts(config, "num_local_experts", { numExperts: 16, topK: 2 });
  if (experts.topK !== 2) throw config.refuse("num_experts_per_tok", "2");
  // The noise is of training; how far it reaches counts anyway.
  const router = plainRouter(experts, { score: "sparsemixer", jitter: config.positive("router_jitter_noise", 0.01) });
  const moe = plainMoe(router, readActivation(config, "hidden_act", "silu"), shape.intermediateSize);
  const norm = (name: string): NormConfig => ({ kind: "layer", name, eps, bias: true, offset: 0 });
  const norms = { attentionInput: norm("input_layernorm"), feedForwardInput: norm("post_attention_layernorm") };
  return decoderConfig("phimoe", shape, {
    ropes: [readRope(config, shape)],
    layers: Array(shape.numLayers).fill(preNormLayer(attention, moe, eps, { norms })),
    finalNorm: norm("model.norm"),
    tieWordEmbeddings: config.boolean("tie_word_embeddings", false),
    headBias: config.boolean("lm_head_bias", false),
  });
}

/** Phi 3.5 MoE. */
export const PHIMOE = decoderArchitecture({ modelTypes: ["phimoe"], parseConfig, layerSource: mixtralExpertSource });
