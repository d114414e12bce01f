/**
 * Hunyuan A13B: norms of query and key heads behind their rotation, experts in every layer beside a shared one. Follows transformers'
 * `modeling_hunyuan_v1_moe.py`.
 * @module
 */
import type { RopeConfig } from "../../layers/model_config.ts";
import type { ModelConfig, TensorSource } from "../architecture.ts";
import { ConfigReader } from "../config_reader.ts";
import { decoderArchitecture } from "../decoder.ts";
import { decoderConfig, plainAttention, preNormLayer, readActivation, readShape, rmsNorm } from "../decoder_config.ts";
import { plainMoe, plainRouter, readExperts, sharedExperts } from "../moe_config.ts";
import { parseRope, type RopeDefaults } from "../rope_config.ts";
import { refuseUnimplemented } from "../unimplemented_keys.ts";

/** Keys of releases with the values that transformers computes. */
const FIXED: Readonly<Record<string, readonly unknown[]>> = {
  norm_type: ["rms"],
  use_cla: [false],
  use_qk_norm: [true],
  use_rotary_pos_emb: [true],
  use_mixed_mlp_moe: [true],
  moe_layer_num_skipped: [0],
  norm_topk_prob: [true],
  routed_scaling_factor: [false, 1],
};

/** Returns the config with lists of one number a layer, all the same, as that number. @throws {UnsupportedError} */
function withNumbers(values: Record<string, unknown>): Record<string, unknown> {
  const config = new ConfigReader(values, "config.json");
  const numbers = ["moe_topk", "num_experts", "moe_intermediate_size", "num_shared_expert"].flatMap((key) => {
    const list = config.raw(key);
    if (!Array.isArray(list)) return [];
    if (list.length === 0 || list.some((value) => value !== list[0])) throw config.refuse(key, "the same number for every layer");
    return [[key, list[0]]];
  });
  return { ...values, ...Object.fromEntries(numbers) };
}

/** Reads the rotation, whose base is stretched once and for all where a dynamic scaling has `alpha`. */
export function readHunyuanRope(config: ConfigReader, defaults: RopeDefaults): RopeConfig {
  const [key, written] = ["rope_parameters", "rope_scaling"].map((key) => [key, config.object(key)] as const)
    .find(([, written]) => written?.has("alpha")) ?? [];
  if (!key || !written) return parseRope(config, defaults);
  for (const type of ["type", "rope_type"]) {
    if (written.has(type) && written.raw(type) !== "dynamic") throw written.refuse(type, `"dynamic" with alpha`);
  }
  const theta = written.positive("rope_theta", config.positive("rope_theta", defaults.theta)), dim = defaults.headDim;
  if (dim < 4) throw config.refuse("head_dim", "above 2 for a rotation with alpha");
  return { dim, theta: theta * written.positive("alpha") ** (dim / (dim - 2)), scaling: { type: "default" } };
}

function parseConfig(values: Record<string, unknown>): ModelConfig {
  const config = new ConfigReader(withNumbers(values), "config.json");
  refuseUnimplemented(config, ["num_experts", "attention_bias", "use_qk_norm"]);
  for (const [key, known] of Object.entries(FIXED)) {
    if (config.has(key) && !known.includes(config.raw(key))) throw config.refuse(key, known.map(String).join(" or "));
  }
  const shape = readShape(config, { contextTokens: 2048 });
  const eps = config.positive("rms_norm_eps", 1e-5);
  const activation = readActivation(config, "hidden_act", "silu");
  for (const [key, value] of [["moe_intermediate_size", shape.intermediateSize], ["num_shared_expert", 1]] as const) {
    if (config.has(key) && config.raw(key) !== value) throw config.refuse(key, `${value}`);
  }
  const bias = config.boolean("attention_bias", false);
  const attention = plainAttention(shape.headDim, {
    qkvBias: bias,
    outputBias: bias,
    queryNorm: { ...rmsNorm("self_attn.query_layernorm", eps), scope: "head" },
    keyNorm: { ...rmsNorm("self_attn.key_layernorm", eps), scope: "head" },
    normsRotated: true,
  });
  const router = plainRouter(readExperts(config, "num_experts", { numExperts: 1, topK: 1 }, "moe_topk"), { normalize: true });
  const moe = plainMoe(router, activation, shape.intermediateSize, sharedExperts(shape.intermediateSize, 1, activation));
  return decoderConfig("hunyuan_v1_moe", shape, {
    ropes: [readHunyuanRope(config, { ...shape, theta: 10_000 })],
    layers: Array(shape.numLayers).fill(preNormLayer(attention, moe, eps)),
    finalNorm: rmsNorm("model.norm", eps),
    tieWordEmbeddings: config.boolean("tie_word_embeddings", false),
  });
}

function layerSource(name: string): TensorSource | undefined {
  if (name === "mlp.gate.weight") return { name: "mlp.gate.wg.weight" };
  return name.startsWith("mlp.shared_expert.") ? { name: name.replace("shared_expert.", "shared_mlp.") } : undefined;
}

/** Hunyuan A13B. */
export const HUNYUAN_V1_MOE = decoderArchitecture({ modelTypes: ["hunyuan_v1_moe"], parseConfig, layerSource });
