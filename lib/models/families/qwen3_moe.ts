/**
 * Qwen3 MoE: 30B-A3B, 235B-A22B, Coder 480B-A35B. Follows transformers' `modeling_qwen3_moe.py`. Also the language model of Qwen 3 VL with experts.
 * @module
 */
import type { ModelConfig, TensorSource } from "../architecture.ts";
import type { ConfigReader } from "../config_reader.ts";
import { decoderConfig, gatedMlp, plainAttention, preNormLayer, readActivation, readShape, rmsNorm } from "../decoder_config.ts";
import { type LanguageFamily, languageModel, NESTED, wholeModel } from "../language_model.ts";
import { plainMoe, plainRouter, readExperts, readSparseLayers, widestIntermediate } from "../moe_config.ts";
import { MROPE_KEYS, parseRope } from "../rope_config.ts";
import { refuseUnimplemented } from "../unimplemented_keys.ts";

/** Defaults of configuration classes. */
interface Missing {
  numExperts: number;
  topK: number;
  expertSize: number;
  theta: number;
  needlessKeys?: readonly string[];
}

function parseMoe(config: ConfigReader, modelType: string, missing: Missing): ModelConfig {
  // sliding_window counts with use_sliding_window alone, which is refused.
  refuseUnimplemented(config, ["num_experts", "num_local_experts", "sliding_window"]);
  const shape = readShape(config, { contextTokens: 32768 });
  const eps = config.positive("rms_norm_eps", 1e-6);
  const activation = readActivation(config, "hidden_act", "silu");
  const bias = config.boolean("attention_bias", false);
  const attention = plainAttention(shape.headDim, {
    qkvBias: bias,
    outputBias: bias,
    queryNorm: { ...rmsNorm("self_attn.q_norm", eps), scope: "head" },
    keyNorm: { ...rmsNorm("self_attn.k_norm", eps), scope: "head" },
  });
  const dense = gatedMlp(shape.intermediateSize, { activation });
  const key = config.has("num_local_experts") ? "num_local_experts" : "num_experts";
  const router = plainRouter(readExperts(config, key, missing), {
    normalize: config.boolean("norm_topk_prob", false),
  });
  const moe = plainMoe(router, activation, config.integer("moe_intermediate_size", missing.expertSize));
  const feedForwards = readSparseLayers(config, shape.numLayers).map((sparse) => sparse ? moe : dense);
  return decoderConfig(modelType, { ...shape, intermediateSize: widestIntermediate(feedForwards) }, {
    ropes: [parseRope(config, { ...shape, theta: missing.theta, needlessKeys: missing.needlessKeys })],
    layers: feedForwards.map((feedForward) => preNormLayer(attention, feedForward, eps)),
    finalNorm: rmsNorm("model.norm", eps),
    tieWordEmbeddings: config.boolean("tie_word_embeddings", false),
  });
}

/** Qwen3 MoE within whole models. */
export const QWEN3_MOE_LANGUAGE: LanguageFamily = {
  parse: (config, modelType) => parseMoe(config, modelType, { numExperts: 128, topK: 8, expertSize: 768, theta: 10_000 }),
};

/** The Qwen3 MoE family. */
export const QWEN3_MOE = languageModel(["qwen3_moe"], QWEN3_MOE_LANGUAGE);

/** Returns where an expert's matrix lies in the stacks of all: turned in releases, as it is used where transformers 5 has saved them. */
function stackedExpertSource(name: string, { layers, hiddenSize }: ModelConfig, layer: number): TensorSource[] {
  const expert = /^mlp\.experts\.(\d+)\.(gate|up|down)_proj\.weight$/.exec(name), { feedForward } = layers[layer];
  if (!expert || feedForward.kind !== "moe") return [];
  const { intermediateSize, router: { numExperts } } = feedForward, index = Number(expert[1]);
  const place = expert[2] === "down"
    ? { name: "mlp.experts.down_proj", index }
    : { name: "mlp.experts.gate_up_proj", index, firstRow: expert[2] === "gate" ? 0 : intermediateSize };
  const turned = expert[2] === "down" ? [intermediateSize, hiddenSize] : [hiddenSize, 2 * intermediateSize];
  return [{ ...place, transposed: true, shape: [numExperts, ...turned] }, place];
}

/** Qwen 3 VL with experts. */
export const QWEN3_VL_MOE = wholeModel({
  modelTypes: ["qwen3_vl_moe"],
  languages: {
    qwen3_vl_moe_text: {
      parse: (config, modelType) => {
        // Releases have this key, of which transformers has one value alone.
        if (!config.boolean("norm_topk_prob", true)) throw config.refuse("norm_topk_prob", "true");
        const missing = { numExperts: 60, topK: 4, expertSize: 1408, theta: 500_000, needlessKeys: MROPE_KEYS };
        return parseMoe(config.with({ norm_topk_prob: true }), modelType, missing);
      },
      otherLayerSource: stackedExpertSource,
    },
  },
  missing: "qwen3_vl_moe_text",
  names: [NESTED],
  needless: /^model\.visual\./,
});
