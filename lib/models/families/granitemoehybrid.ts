/**
 * Granite 4: Granite's multipliers, a shared expert alone or beside routed ones, and, in the releases with an H in their name, state spaces of Mamba 2 between
 * layers of attention without positions. Follows transformers' `modeling_granitemoehybrid.py`.
 * @module
 */
import type { AttentionConfig, MambaConfig, MlpConfig, MoeConfig } from "../../layers/model_config.ts";
import type { ModelConfig } from "../architecture.ts";
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
  rmsNorm,
} from "../decoder_config.ts";
import { graniteMlpSource } from "./granitemoe.ts";
import { mambaSource, readStateSpace, refuseStepLimits } from "../mamba_config.ts";
import { plainMoe, plainRouter, readExperts, widestIntermediate } from "../moe_config.ts";
import { parseRope } from "../rope_config.ts";
import { refuseUnimplemented } from "../unimplemented_keys.ts";

/** The kinds of layers, as releases and as transformers write them. */
const ATTENTION_TYPES = ["attention", "full_attention"], STATE_TYPES = ["mamba", "linear_attention"];

/** Returns which layers attend. @throws {UnsupportedError} */
function readAttendingLayers(config: ConfigReader, numLayers: number): boolean[] {
  const types = config.raw("layer_types"), known = [...ATTENTION_TYPES, ...STATE_TYPES];
  if (!Array.isArray(types) || types.length !== numLayers || types.some((type) => !known.includes(type))) {
    throw config.refuse("layer_types", `a list of ${numLayers} of ${known.join(", ")}`);
  }
  const attending = types.map((type) => ATTENTION_TYPES.includes(type));
  if (!attending.includes(true)) throw config.refuse("layer_types", "attention in some layer");
  return attending;
}

function readMamba(config: ConfigReader, hiddenSize: number, eps: number): MambaConfig {
  if (config.boolean("mamba_proj_bias", false)) throw config.refuse("mamba_proj_bias", "false");
  refuseStepLimits(config);
  const values = hiddenSize * config.integer("mamba_expand", 2), heads = config.integer("mamba_n_heads", 128);
  if (values % heads !== 0) throw config.refuse("mamba_n_heads", `a divisor of mamba_expand times hidden_size (${values})`);
  if (config.has("mamba_d_head") && config.raw("mamba_d_head") !== "auto" && config.raw("mamba_d_head") !== values / heads) {
    throw config.refuse("mamba_d_head", `"auto" or ${values / heads}`);
  }
  const [groups, stateDim, kernel] = ["mamba_n_groups", "mamba_d_state", "mamba_d_conv"];
  return {
    ...readStateSpace(config, {
      ...{ heads: ["mamba_n_heads", 128], groups: [groups, 1], stateDim: [stateDim, 256], kernel: [kernel, 4] },
      headDim: ["", values / heads],
    }, { activationKey: "hidden_act", convolutionBias: config.boolean("mamba_conv_bias", true), eps }),
  };
}

/** Returns the layer's experts beside the shared one, or that alone. */
function readFeedForward(config: ConfigReader, { intermediateSize }: DecoderShape): MlpConfig | MoeConfig {
  const activation = readActivation(config, "hidden_act", "silu");
  const shared = gatedMlp(config.integer("shared_intermediate_size", 1024), { activation });
  if (config.raw("num_local_experts") === 0) return shared;
  const router = plainRouter(readExperts(config, "num_local_experts", { numExperts: 8, topK: 2 }), { score: "topk_softmax" });
  return plainMoe(router, activation, intermediateSize, { shared: { mlp: shared, gated: false } });
}

function parseConfig(values: Record<string, unknown>): ModelConfig {
  const config = new ConfigReader(values, "config.json");
  const multipliers = ["embedding_multiplier", "attention_multiplier", "residual_multiplier", "logits_scaling"];
  refuseUnimplemented(config, [
    ...[...multipliers, "attention_bias", "num_local_experts", "layer_types", "position_embedding_type"],
  ]);
  const shape = readShape(config, { contextTokens: 2048 });
  const eps = config.positive("rms_norm_eps", 1e-6), bias = config.boolean("attention_bias", false);
  // Releases without positions say "nope", transformers null.
  const positions = config.has("position_embedding_type") ? config.raw("position_embedding_type") : "nope";
  if (positions !== "rope" && positions !== "nope") throw config.refuse("position_embedding_type", `"rope" or "nope"`);
  const attention: AttentionConfig = plainAttention(shape.headDim, {
    ...{ qkvBias: bias, outputBias: bias, scale: config.positive("attention_multiplier", 1) },
    ...positions === "nope" && { rope: undefined },
  });
  const attending = readAttendingLayers(config, shape.numLayers);
  const recurrent = attending.includes(false)
    ? { ...plainAttention(shape.headDim), mamba: readMamba(config, shape.hiddenSize, eps) }
    : attention;
  const feedForward = readFeedForward(config, shape), residualMultiplier = config.positive("residual_multiplier", 1);
  return decoderConfig("granitemoehybrid", { ...shape, intermediateSize: widestIntermediate([feedForward]) }, {
    ropes: positions === "rope" ? [parseRope(config, { ...shape, theta: 10_000 })] : [],
    layers: attending.map((attends) => preNormLayer(attends ? attention : recurrent, feedForward, eps, { residualMultiplier })),
    finalNorm: rmsNorm("model.norm", eps),
    tieWordEmbeddings: config.boolean("tie_word_embeddings", false),
    embeddingMultiplier: config.positive("embedding_multiplier", 1),
    logitsMultiplier: 1 / config.positive("logits_scaling", 1),
  });
}

/** Granite 4. */
export const GRANITEMOEHYBRID = decoderArchitecture({
  modelTypes: ["granitemoehybrid"],
  parseConfig,
  layerSource: (name, config, layer) => {
    const { mamba } = config.layers[layer].attention;
    return (mamba && mambaSource(name, mamba)) ?? graniteMlpSource(name, config, layer);
  },
});
