/**
 * LFM2 and LFM2 MoE: gated short convolutions, and every few layers attention with norms of query and key heads; some with experts that are chosen by
 * corrected sigmoids. Follows transformers' `modeling_lfm2.py` and `modeling_lfm2_moe.py`.
 * @module
 */
import type { AttentionConfig, MlpConfig, MoeConfig } from "../../layers/model_config.ts";
import type { ModelConfig, TensorSource } from "../architecture.ts";
import { ConfigReader } from "../config_reader.ts";
import { decoderArchitecture } from "../decoder.ts";
import {
  decoderConfig,
  type DecoderShape,
  gatedMlp,
  plainAttention,
  preNormLayer,
  readShape,
  rmsNorm,
} from "../decoder_config.ts";
import { plainMoe, plainRouter, readExperts, widestIntermediate } from "../moe_config.ts";
import { parseRope } from "../rope_config.ts";
import { refuseUnimplemented } from "../unimplemented_keys.ts";

const LAYER_TYPES = ["full_attention", "conv"];

/** What the convolution computes (cuda/airkern.h). */
const MOST_KERNEL = 16;

/** Returns which layers attend. @throws {UnsupportedError} */
function readAttendingLayers(config: ConfigReader, numLayers: number): boolean[] {
  if (config.has("layer_types")) {
    const types = config.raw("layer_types");
    if (!Array.isArray(types) || types.length !== numLayers || types.some((type) => !LAYER_TYPES.includes(type))) {
      throw config.refuse("layer_types", `a list of ${numLayers} of ${LAYER_TYPES.join(", ")}`);
    }
    if (!types.includes("full_attention")) throw config.refuse("layer_types", "full_attention in some layer");
    return types.map((type) => type === "full_attention");
  }
  const listed = config.has("full_attn_idxs") ? config.raw("full_attn_idxs") : undefined;
  if (listed !== undefined && (!Array.isArray(listed) || listed.length === 0 || !listed.every(Number.isInteger))) {
    throw config.refuse("full_attn_idxs", "a list of layers");
  }
  return Array.from({ length: numLayers }, (_, layer) => listed?.includes(layer) ?? true);
}

function readMixers(config: ConfigReader, { numLayers, headDim, hiddenSize }: DecoderShape, eps: number): AttentionConfig[] {
  if (config.boolean("conv_bias", false)) throw config.refuse("conv_bias", "false");
  const kernel = config.integer("conv_L_cache", 3);
  if (kernel < 2 || kernel > MOST_KERNEL) throw config.refuse("conv_L_cache", `2 to ${MOST_KERNEL}`);
  const attention = plainAttention(headDim, {
    queryNorm: { ...rmsNorm("self_attn.q_layernorm", eps), scope: "head" },
    keyNorm: { ...rmsNorm("self_attn.k_layernorm", eps), scope: "head" },
  });
  const convolution = { ...plainAttention(headDim), shortConvolution: { width: hiddenSize, kernel } };
  return readAttendingLayers(config, numLayers).map((attends) => attends ? attention : convolution);
}

/** Returns the width of the dense layers, which is what is left of a larger one. */
function readInnerSize(config: ConfigReader, given: number): number {
  const size = config.integer("block_ff_dim", given);
  if (!config.boolean("block_auto_adjust_ff_dim", true)) return size;
  const multiple = config.integer("block_multiple_of", 256);
  const scaled = Math.trunc(config.positive("block_ffn_dim_multiplier", 1) * Math.trunc(2 * size / 3));
  return multiple * Math.ceil(scaled / multiple);
}

function readMoe(config: ConfigReader): MoeConfig {
  const corrected = config.boolean("use_expert_bias", true);
  const router = plainRouter(readExperts(config, "num_experts", { numExperts: 32, topK: 4 }), {
    ...{ score: "sigmoid", normalize: config.boolean("norm_topk_prob", true), normalizeEpsilon: 1e-6 },
    scale: config.positive("routed_scaling_factor", 1),
  });
  return plainMoe(router, "silu", config.integer("moe_intermediate_size", 1792), { correctionBias: corrected });
}

function parseConfig(values: Record<string, unknown>, modelType: string): ModelConfig {
  const config = new ConfigReader(values, "config.json"), routed = modelType === "lfm2_moe";
  refuseUnimplemented(config, ["layer_types", ...routed ? ["num_experts"] : []]);
  const shape = readShape(config, { contextTokens: 128_000, numKvHeads: 8, intermediateSize: routed ? 7168 : 12_288 });
  const eps = config.positive("norm_eps", 1e-5);
  const dense = gatedMlp(routed ? shape.intermediateSize : readInnerSize(config, shape.intermediateSize));
  const moe = routed ? readMoe(config) : undefined, denseLayers = config.count("num_dense_layers", 2);
  const feedForwards = Array.from(
    { length: shape.numLayers },
    (_, layer): MlpConfig | MoeConfig => moe && layer >= denseLayers ? moe : dense,
  );
  const norms = { attentionInput: rmsNorm("operator_norm", eps), feedForwardInput: rmsNorm("ffn_norm", eps) };
  // Releases call it tie_embedding.
  const tied = config.boolean("tie_embedding", config.boolean("tie_word_embeddings", true));
  return decoderConfig(modelType, { ...shape, intermediateSize: widestIntermediate(feedForwards) }, {
    ropes: [parseRope(config, { ...shape, theta: 1e6 })],
    layers: readMixers(config, shape, eps).map((mixer, layer) => preNormLayer(mixer, feedForwards[layer], eps, { norms })),
    finalNorm: rmsNorm("model.embedding_norm", eps),
    tieWordEmbeddings: tied,
  });
}

const PROJECTIONS: Readonly<Record<string, string>> = { gate_proj: "w1", down_proj: "w2", up_proj: "w3" };

function layerSource(name: string, config: ModelConfig, layer: number): TensorSource | undefined {
  const { shortConvolution } = config.layers[layer].attention;
  if (name === "self_attn.o_proj.weight") return { name: "self_attn.out_proj.weight" };
  if (name === "conv.conv.weight") return { name, vectorRows: 1, vectorCols: shortConvolution!.kernel };
  const part = /^conv\.in_proj_([bcv])\.weight$/.exec(name)?.[1];
  if (part) return { name: "conv.in_proj.weight", firstRow: "bcv".indexOf(part) * config.hiddenSize };
  if (name === "mlp.gate.e_score_correction_bias") return { name: "feed_forward.expert_bias" };
  const projection = /^mlp\.(experts\.\d+\.)?(gate_proj|up_proj|down_proj)\.weight$/.exec(name);
  if (projection) return { name: `feed_forward.${projection[1] ?? ""}${PROJECTIONS[projection[2]]}.weight` };
  return name === "mlp.gate.weight" ? { name: "feed_forward.gate.weight" } : undefined;
}

function lfm2(modelType: string) {
  return decoderArchitecture({ modelTypes: [modelType], parseConfig: (values) => parseConfig(values, modelType), layerSource });
}

/** LFM2. */
export const LFM2 = lfm2("lfm2");

/** LFM2 with experts. */
export const LFM2_MOE = lfm2("lfm2_moe");
