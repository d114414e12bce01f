/**
 * MiMo-V2-Flash: five of six layers see a short window, with sinks, twice the key heads and a rotation of their own; narrow values that are scaled, experts
 * chosen by corrected sigmoids. Follows transformers' `modeling_mimo_v2_flash.py`.
 * @module
 */
import type { AttentionConfig, RopeConfig } from "../../layers/model_config.ts";
import type { ModelConfig, TensorSource } from "../architecture.ts";
import { ConfigReader } from "../config_reader.ts";
import { decoderArchitecture } from "../decoder.ts";
import {
  decoderConfig,
  type DecoderShape,
  gatedMlp,
  plainAttention,
  preNormLayer,
  readActivation,
  readShape,
  readSlidingLayers,
  rmsNorm,
} from "../decoder_config.ts";
import { correctedMoe, readMlpLayers, widestIntermediate } from "../moe_config.ts";
import { parseRope, ropeOf } from "../rope_config.ts";
import { refuseUnimplemented } from "../unimplemented_keys.ts";

/** Reads a list with 0 or 1 for each layer, where releases have one. @throws {UnsupportedError} */
function readPattern(config: ConfigReader, key: string, numLayers: number): boolean[] | undefined {
  if (!config.has(key)) return undefined;
  const list = config.raw(key);
  if (!Array.isArray(list) || list.length !== numLayers || list.some((value) => value !== 0 && value !== 1)) {
    throw config.refuse(key, `a list of ${numLayers} of 0, 1`);
  }
  return list.map((value) => value === 1);
}

/** Refuses what releases have with one value alone. @throws {UnsupportedError} */
function checkFixed(config: ConfigReader, { headDim, numHeads }: DecoderShape, valueDim: number): void {
  const fixed: [key: string, value: unknown][] = [
    ["add_swa_attention_sink_bias", true],
    ["add_full_attention_sink_bias", false],
    ["swa_head_dim", headDim],
    ["swa_v_head_dim", valueDim],
    ["swa_num_attention_heads", numHeads],
    ["attention_chunk_size", config.raw("sliding_window_size")],
    ["n_shared_experts", 0],
  ];
  for (const [key, value] of fixed) {
    if (config.has(key) && config.raw(key) !== value) throw config.refuse(key, `${value}`);
  }
}

/** Returns the rotations of layers that see all and of those with a window. */
function readRopes(config: ConfigReader, { contextTokens, headDim }: DecoderShape): RopeConfig[] {
  const defaults = { contextTokens, headDim, partialRotaryFactor: 0.334 }, nested = config.object("rope_parameters");
  if (nested?.has("full_attention") || nested?.has("sliding_attention")) {
    return [["full_attention", 5e6] as const, ["sliding_attention", 10_000] as const].map(([key, theta]) => {
      const parameters = nested.object(key);
      if (!parameters) throw nested.refuse(key, "an object");
      return ropeOf([parameters], config, [parameters], { ...defaults, theta });
    });
  }
  const whole = parseRope(config, { ...defaults, theta: 5e6 });
  return [whole, { ...whole, theta: config.positive("swa_rope_theta", 10_000), scaling: { type: "default" } }];
}

function readAttentions(config: ConfigReader, shape: DecoderShape): AttentionConfig[] {
  const { numLayers, numHeads, numKvHeads, headDim } = shape, valueDim = config.integer("v_head_dim", 128);
  checkFixed(config, shape, valueDim);
  const slidingHeads = config.integer("swa_num_key_value_heads", 2 * numKvHeads);
  if (numHeads % slidingHeads !== 0) {
    throw config.refuse("swa_num_key_value_heads", `a divisor of num_attention_heads (${numHeads})`);
  }
  const attention = plainAttention(headDim, { qkvBias: config.boolean("attention_bias", false) });
  // null stands for 1, a key that is not there for the default.
  if (config.raw("attention_value_scale") !== null) attention.valueMultiplier = config.positive("attention_value_scale", 0.707);
  // Releases count the tokens before the present one.
  const windowTokens = config.has("sliding_window_size")
    ? config.integer("sliding_window_size") + 1
    : config.integer("sliding_window", 129);
  const whole = { ...attention, heads: { numKvHeads, headDim, valueDim } };
  const windowed: AttentionConfig = {
    ...{ ...attention, windowTokens, sinks: true, rope: { index: 1, interleaved: false } },
    heads: { numKvHeads: slidingHeads, headDim, valueDim },
  };
  const pattern = readPattern(config, "hybrid_layer_pattern", numLayers);
  return readSlidingLayers(config, numLayers, (layer) => pattern?.[layer] ?? (layer > 0 && (layer + 1) % 6 !== 0))
    .map((slides) => slides ? windowed : whole);
}

function parseConfig(values: Record<string, unknown>): ModelConfig {
  const config = new ConfigReader(values, "config.json");
  refuseUnimplemented(config, [
    ...["n_routed_experts", "attention_bias", "sliding_window", "layer_types", "attention_chunk_size"],
  ]);
  const shape = readShape(config, { contextTokens: 131_072, numKvHeads: 4, headDim: 192 });
  const eps = config.positive("rms_norm_eps", config.positive("layernorm_epsilon", 1e-5));
  const activation = readActivation(config, "hidden_act", "silu");
  const keys = { experts: "n_routed_experts", shared: "n_shared_experts" };
  const moe = correctedMoe(config, activation, keys, {
    ...{ numExperts: 256, topK: 8, expertSize: 2048, sharedExperts: 0, scale: 1 },
  });
  const dense = gatedMlp(shape.intermediateSize, { activation });
  const routed = readPattern(config, "moe_layer_freq", shape.numLayers) ?? readMlpLayers(config, shape.numLayers, 1);
  return decoderConfig("mimo_v2_flash", { ...shape, intermediateSize: widestIntermediate([moe, dense]) }, {
    ropes: readRopes(config, shape),
    layers: readAttentions(config, shape).map((attention, layer) => preNormLayer(attention, routed[layer] ? moe : dense, eps)),
    finalNorm: rmsNorm("model.norm", eps),
    tieWordEmbeddings: config.boolean("tie_word_embeddings", false),
  });
}

function layerSource(name: string): TensorSource | undefined {
  return name === "self_attn.sinks" ? { name: "self_attn.attention_sink_bias" } : undefined;
}

/** MiMo-V2-Flash. */
export const MIMO_V2_FLASH = decoderArchitecture({
  modelTypes: ["mimo_v2_flash"],
  parseConfig,
  layerSource,
  ignoredTensorReason: (name) => name.startsWith("model.mtp.") ? "predicts tokens further ahead, which is not used" : undefined,
});
