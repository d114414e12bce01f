/**
 * Nemotron H and Nemotron 3 Nano: state spaces of Mamba 2, and between some of them attention without positions, plain layers or plain experts, each with one
 * norm before it. Follows transformers' `modeling_nemotron_h.py`, but for the least step, `time_step_min`, which transformers keeps to in prompts alone and
 * NVIDIA's kernels do not.
 * @module
 */
import type { AttentionConfig, LayerConfig, MlpConfig, MoeConfig } from "../../layers/model_config.ts";
import type { ModelConfig, TensorSource } from "../architecture.ts";
import { ConfigReader } from "../config_reader.ts";
import { decoderArchitecture } from "../decoder.ts";
import {
  decoderConfig,
  type DecoderShape,
  gatedMlp,
  plainAttention,
  readActivation,
  readShape,
  rmsNorm,
} from "../decoder_config.ts";
import { mambaSource, readStateSpace, refuseStepLimits } from "../mamba_config.ts";
import { correctedRouter, plainMoe, readExperts, widestIntermediate } from "../moe_config.ts";
import { refuseUnimplemented } from "../unimplemented_keys.ts";

type Block = "state" | "attention" | "mlp" | "moe";

/** What blocks are called, by letters in older releases. */
const BLOCKS: Readonly<Record<string, Block>> = {
  ...{ M: "state", "*": "attention", "-": "mlp", E: "moe" },
  ...{ mamba: "state", linear_attention: "state", attention: "attention", full_attention: "attention", mlp: "mlp", moe: "moe" },
};

/** Reads the kinds of blocks in their order. @throws {UnsupportedError} */
function readBlocks(config: ConfigReader): Block[] {
  const key = ["layers_block_type", "layer_types", "hybrid_override_pattern"].find((key) => config.has(key)) ??
    "layers_block_type";
  const written = config.raw(key), list = typeof written === "string" ? [...written] : written;
  if (!Array.isArray(list) || list.length === 0 || list.some((block) => !Object.hasOwn(BLOCKS, block))) {
    throw config.refuse(key, "a list of linear_attention, full_attention, mlp, moe");
  }
  const blocks = list.map((block) => BLOCKS[block]);
  if (!blocks.includes("attention")) throw config.refuse(key, "full_attention somewhere");
  const isMixer = (block: Block | undefined): boolean => block === "state" || block === "attention";
  if (blocks.some((block, i) => !isMixer(block) && !isMixer(blocks[i - 1]))) {
    throw config.refuse(key, "linear_attention or full_attention before each mlp and moe");
  }
  return blocks;
}

function readMixers(config: ConfigReader, shape: DecoderShape, eps: number): Record<"state" | "attention", AttentionConfig> {
  for (const key of ["use_bias", "mamba_proj_bias", "attention_bias", "mlp_bias"]) {
    if (config.boolean(key, false)) throw config.refuse(key, "false");
  }
  refuseStepLimits(config);
  const attention = { ...plainAttention(shape.headDim), rope: undefined };
  const mamba = readStateSpace(config, {
    ...{ heads: ["mamba_num_heads", 128], headDim: ["mamba_head_dim", 64], groups: ["n_groups", 8] },
    ...{ stateDim: ["ssm_state_size", 128], kernel: ["conv_kernel", 4] },
  }, { activationKey: "mamba_hidden_act", convolutionBias: config.boolean("use_conv_bias", true), eps });
  return { attention, state: { ...attention, mamba } };
}

function readFeedForwards(
  config: ConfigReader,
  shape: DecoderShape,
  blocks: readonly Block[],
): Record<"mlp" | "moe", MlpConfig | MoeConfig> {
  const activation = readActivation(config, "mlp_hidden_act", "relu2");
  const plain = (intermediateSize: number): MlpConfig => gatedMlp(intermediateSize, { kind: "plain", activation });
  const mlp = plain(shape.intermediateSize);
  if (!blocks.includes("moe")) return { mlp, moe: mlp };
  if (config.has("moe_latent_size")) throw config.refuse("moe_latent_size", "not set");
  if (config.integer("n_shared_experts", 1) !== 1) throw config.refuse("n_shared_experts", "1");
  const experts = readExperts(config, "n_routed_experts", { numExperts: 8, topK: 2 });
  const router = correctedRouter(config, experts, { groups: { count: 1, kept: 1 }, scale: 1 });
  const moe = plainMoe(router, activation, config.integer("moe_intermediate_size", 7688), {
    plain: true,
    correctionBias: true,
    shared: { mlp: plain(config.integer("moe_shared_expert_intermediate_size", 7688)), gated: false },
  });
  return { mlp, moe };
}

function parseConfig(values: Record<string, unknown>): ModelConfig {
  const config = new ConfigReader(values, "config.json");
  refuseUnimplemented(config, ["n_routed_experts", "layer_types", "attention_bias", "mlp_bias"]);
  const blocks = readBlocks(config), eps = config.positive("layer_norm_epsilon", 1e-5);
  const given = readShape(config, {
    contextTokens: 4096,
    numKvHeads: 8,
    headDim: 128,
    numLayers: blocks.length,
    intermediateSize: 21_504,
  });
  const mixers = readMixers(config, given, eps), feedForwards = readFeedForwards(config, given, blocks);
  const none = gatedMlp(0, { kind: "none" });
  const layers = blocks.flatMap((block, i): LayerConfig[] => {
    if (block !== "state" && block !== "attention") return [];
    const next = blocks[i + 1], feedForward = next === "mlp" || next === "moe" ? feedForwards[next] : none;
    return [{
      ...{ attention: mixers[block], feedForward, parallel: false, residualMultiplier: 1 },
      norms: {
        attentionInput: rmsNorm("input_layernorm", eps),
        ...feedForward.kind !== "none" && { feedForwardInput: rmsNorm("post_attention_layernorm", eps) },
      },
    }];
  });
  const intermediateSize = widestIntermediate(layers.map(({ feedForward }) => feedForward));
  return decoderConfig("nemotron_h", { ...given, numLayers: layers.length, intermediateSize }, {
    ropes: [],
    layers,
    finalNorm: rmsNorm("model.norm", eps),
    tieWordEmbeddings: config.boolean("tie_word_embeddings", false),
  });
}

/** Returns where a tensor lies; a layer here is one block of the checkpoint, or two. */
function layerSource(name: string, { layers }: ModelConfig, layer: number): TensorSource {
  const mixerBlock = layers.slice(0, layer).reduce((count, { feedForward }) => count + (feedForward.kind === "none" ? 1 : 2), 0);
  const inMixer = (rest: string): string => `${mixerBlock}.${rest}`,
    inFeedForward = (rest: string): string => `${mixerBlock + 1}.${rest}`;
  if (name === "input_layernorm.weight") return { name: inMixer("norm.weight") };
  if (name === "post_attention_layernorm.weight") return { name: inFeedForward("norm.weight") };
  const { mamba } = layers[layer].attention, source = mamba && mambaSource(name, mamba, "mixer.");
  if (source) return { ...source, name: inMixer(source.name) };
  if (name.startsWith("self_attn.")) return { name: inMixer(name.replace("self_attn.", "mixer.")) };
  return { name: inFeedForward(name.replace("mlp.", "mixer.").replace("shared_expert.", "shared_experts.")) };
}

/** Nemotron H. */
export const NEMOTRON_H = decoderArchitecture({
  modelTypes: ["nemotron_h"],
  parseConfig,
  layerPrefix: () => "backbone.layers.",
  rootNames: { "model.embed_tokens.weight": "backbone.embeddings.weight", "model.norm.weight": "backbone.norm_f.weight" },
  layerSource,
  ignoredTensorReason: (name) => name.startsWith("mtp.") ? "predicts tokens further ahead, which is not used" : undefined,
});
