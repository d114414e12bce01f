/**
 * What the families have in common whose layers are gated delta nets and, every few of them, gated attention: read with transformers' names.
 * @module
 */
import { deltaNetWidths } from "../layers/delta_net.ts";
import type { AttentionConfig, DeltaNetConfig } from "../layers/model_config.ts";
import type { ModelConfig, TensorSource } from "./architecture.ts";
import type { ConfigReader } from "./config_reader.ts";
import { type DecoderShape, plainAttention, readActivation, rmsNorm } from "./decoder_config.ts";

/** Keys of these families that others refuse. */
export const HYBRID_KEYS = ["layer_types", "attention_bias"];

const LAYER_TYPES = ["linear_attention", "full_attention"];

/** What the operations compute (cuda/airkern.h). */
const MOST_KERNEL = 16, MOST_KEY_DIM = 256;

/** Returns which layers are delta nets. @throws {UnsupportedError} */
function readRecurrentLayers(config: ConfigReader, numLayers: number): boolean[] {
  const interval = config.integer("full_attention_interval", 4);
  let recurrent = Array.from({ length: numLayers }, (_, layer) => (layer + 1) % interval !== 0);
  if (config.has("layer_types")) {
    const types = config.raw("layer_types");
    if (!Array.isArray(types) || types.length !== numLayers || types.some((type) => !LAYER_TYPES.includes(type))) {
      throw config.refuse("layer_types", `a list of ${numLayers} of ${LAYER_TYPES.join(", ")}`);
    }
    recurrent = types.map((type) => type === "linear_attention");
  }
  if (!recurrent.includes(false)) {
    throw config.refuse(config.has("layer_types") ? "layer_types" : "full_attention_interval", "full_attention in some layer");
  }
  return recurrent;
}

function readDeltaNet(config: ConfigReader, eps: number): DeltaNetConfig {
  const keyHeads = config.integer("linear_num_key_heads", 16), valueHeads = config.integer("linear_num_value_heads", 32);
  if (valueHeads % keyHeads !== 0) {
    throw config.refuse("linear_num_value_heads", `a multiple of linear_num_key_heads (${keyHeads})`);
  }
  const kernel = config.integer("linear_conv_kernel_dim", 4), keyDim = config.integer("linear_key_head_dim", 128);
  if (kernel < 2 || kernel > MOST_KERNEL) throw config.refuse("linear_conv_kernel_dim", `2 to ${MOST_KERNEL}`);
  if (keyDim > MOST_KEY_DIM) throw config.refuse("linear_key_head_dim", `at most ${MOST_KEY_DIM}`);
  const valueDim = config.integer("linear_value_head_dim", 128);
  return { keyHeads, valueHeads, keyDim, valueDim, kernel, activation: readActivation(config, "hidden_act", "silu"), eps };
}

/**
 * Returns what stands in each layer before its feed-forward layer.
 * @throws {UnsupportedError}
 */
export function readHybridLayers(config: ConfigReader, { numLayers, headDim }: DecoderShape, eps: number): AttentionConfig[] {
  // Newer configs say so, with the one value that transformers computes.
  if (!config.boolean("attn_output_gate", true)) throw config.refuse("attn_output_gate", "true");
  const bias = config.boolean("attention_bias", false);
  const attention = plainAttention(headDim, {
    qkvBias: bias,
    outputBias: bias,
    queryNorm: { ...rmsNorm("self_attn.q_norm", eps, 1), scope: "head" },
    keyNorm: { ...rmsNorm("self_attn.k_norm", eps, 1), scope: "head" },
    gated: true,
  });
  const recurrent = { ...plainAttention(headDim), deltaNet: readDeltaNet(config, eps) };
  return readRecurrentLayers(config, numLayers).map((isRecurrent) => isRecurrent ? recurrent : attention);
}

/** Norms of the residual stream, whose weights are stored as distances from 1. */
export function hybridNorms(
  eps: number,
): { attentionInput: ReturnType<typeof rmsNorm>; feedForwardInput: ReturnType<typeof rmsNorm> } {
  return {
    attentionInput: rmsNorm("input_layernorm", eps, 1),
    feedForwardInput: rmsNorm("post_attention_layernorm", eps, 1),
  };
}

/** Returns where queries and the gate of attention lie in the one tensor that has both, head by head; undefined for other tensors. */
function gatedQuerySource(name: string, { headDim }: ModelConfig): TensorSource | undefined {
  const match = /^self_attn\.(q|gate)_proj(\.weight|\.bias)$/.exec(name);
  if (!match) return undefined;
  return {
    name: `self_attn.q_proj${match[2]}`,
    firstRow: match[1] === "q" ? 0 : headDim,
    runRows: headDim,
    rowStep: 2 * headDim,
  };
}

/** Returns where the weights of a part's convolution lie in the tensor that has those of all; undefined for other tensors. */
function convolutionSource(name: string, deltaNet: DeltaNetConfig): TensorSource | undefined {
  const part = /^linear_attn\.conv1d_([qkv])\.weight$/.exec(name)?.[1];
  if (!part) return undefined;
  const { keys } = deltaNetWidths(deltaNet), { kernel } = deltaNet;
  return {
    ...{ name: "linear_attn.conv1d.weight", vectorRows: 1, vectorCols: kernel },
    firstRow: { q: 0, k: keys, v: 2 * keys }[part]! * kernel,
  };
}

/**
 * Returns where a layer's tensor lies in a checkpoint.
 * @param projection The same of the delta net's projections, by the part of the name that tells them apart.
 */
export function hybridSource(
  name: string,
  config: ModelConfig,
  layer: number,
  projection: (part: string, deltaNet: DeltaNetConfig) => TensorSource | undefined,
): TensorSource | undefined {
  const { deltaNet } = config.layers[layer].attention;
  if (!deltaNet) return gatedQuerySource(name, config);
  const part = /^linear_attn\.in_proj_(\w)\.weight$/.exec(name)?.[1];
  return part ? projection(part, deltaNet) : convolutionSource(name, deltaNet);
}

/** Returns why the tensors that predict tokens further ahead are not needed. */
export function aheadReason(name: string): string | undefined {
  return name.startsWith("mtp.") ? "predicts tokens further ahead, which is not used" : undefined;
}
