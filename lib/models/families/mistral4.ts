/**
 * Mistral Small 4: DeepSeek-V3's attention to latents with queries that sharpen over long contexts, a softmax over experts. Follows transformers'
 * `modeling_mistral4.py`.
 * @module
 */
import type { RopeConfig } from "../../layers/model_config.ts";
import type { ModelConfig, TensorSource } from "../architecture.ts";
import type { ConfigReader } from "../config_reader.ts";
import { deepseek, type DeepseekVersion } from "./deepseek.ts";
import type { LanguageFamily } from "../language_model.ts";
import { plainRouter, readGroups, stackedExpertSource } from "../moe_config.ts";
import { parseRope } from "../rope_config.ts";

/** What the config is without rope parameters. */
const ROPE = {
  ...{ rope_type: "yarn", rope_theta: 10_000, factor: 128, original_max_position_embeddings: 8192 },
  ...{ beta_fast: 32, beta_slow: 1, mscale: 1, mscale_all_dim: 1, llama_4_scaling_beta: 0.1 },
};

/** Keys of rope parameters that say nothing of the rotation. */
const ROPE_KEYS = ["llama_4_scaling_beta", "max_position_embeddings"];

function readRopes(
  config: ConfigReader,
  { contextTokens, headDim, rotaryDim, queryDim }: Parameters<NonNullable<DeepseekVersion["readRopes"]>>[1],
): RopeConfig[] {
  const written = config.has("rope_parameters") || config.has("rope_scaling");
  const reader = written ? config : config.with({ rope_parameters: ROPE });
  const partialRotaryFactor = rotaryDim / headDim;
  const rope = parseRope(reader, { contextTokens, headDim, theta: 10_000, partialRotaryFactor, needlessKeys: ROPE_KEYS });
  const parameters = reader.object("rope_parameters") ?? reader.object("rope_scaling")!;
  if (rope.dim !== rotaryDim) {
    throw parameters.refuse("partial_rotary_factor", `${partialRotaryFactor}, as qk_rope_head_dim says`);
  }
  const scaling: RopeConfig["scaling"] = {
    type: "temperature",
    attentionScale: parameters.positive("llama_4_scaling_beta"),
    floorTokens: parameters.integer("original_max_position_embeddings"),
    firstPosition: 0,
  };
  return [rope, { dim: queryDim, theta: 1, scaling }];
}

/** Mistral Small 4 within whole models, which transformers has no model of without images. */
export const MISTRAL4_LANGUAGE: LanguageFamily = {
  ...deepseek({
    missing: {
      ...{ contextTokens: 1_048_576, rank: 256, queryRank: 1024, plainDim: 64, valueDim: 128 },
      ...{ numExperts: 128, topK: 4, sharedExperts: 1, denseLayers: 0, expertSize: 2048 },
    },
    router: (config, experts) =>
      plainRouter(experts, {
        normalize: config.boolean("norm_topk_prob", true),
        normalizeEpsilon: 1e-20,
        scale: config.positive("routed_scaling_factor", 1),
        groups: readGroups(config, experts, { count: 1, kept: 1 }, "top2"),
      }),
    choosesPairs: true,
    readRopes,
  }),
  otherLayerSource: (name: string, config: ModelConfig, layer: number): TensorSource | undefined =>
    stackedExpertSource(name, config, layer),
};
