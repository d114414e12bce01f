/**
 * What the tensors of a GGUF file are in a checkpoint: their names, and matrices that lie in one there, one by one. Names: gguf-py's constants.py and
 * tensor_mapping.py; what is merged: llama.cpp's `conversion/`.
 * @module
 */
import { UnsupportedError } from "../errors.ts";
import type { GgufTensor } from "./gguf.ts";
import type { Dtype, SafetensorsTensor } from "./safetensors.ts";

/** Names of tensors outside of layers, and of those within `blk.N.`: those that stored tensors have, which every family's checkpoints may have. */
const ROOT: Readonly<Record<string, string>> = {
  token_embd: "model.embed_tokens",
  output_norm: "model.norm",
  output: "lm_head",
};
const LAYER: Readonly<Record<string, string>> = {
  attn_norm: "input_layernorm",
  attn_q: "self_attn.q_proj",
  attn_k: "self_attn.k_proj",
  attn_v: "self_attn.v_proj",
  attn_output: "self_attn.o_proj",
  attn_q_norm: "self_attn.q_norm",
  attn_k_norm: "self_attn.k_norm",
  attn_q_a: "self_attn.q_a_proj",
  attn_q_a_norm: "self_attn.q_a_layernorm",
  attn_q_b: "self_attn.q_b_proj",
  attn_kv_a_mqa: "self_attn.kv_a_proj_with_mqa",
  attn_kv_a_norm: "self_attn.kv_a_layernorm",
  attn_kv_b: "self_attn.kv_b_proj",
  attn_k_b: "self_attn.k_b_proj",
  attn_v_b: "self_attn.v_b_proj",
  ffn_norm: "post_attention_layernorm",
  post_attention_norm: "post_attention_layernorm",
  post_ffw_norm: "post_feedforward_layernorm",
  ffn_gate: "mlp.gate_proj",
  ffn_up: "mlp.up_proj",
  ffn_down: "mlp.down_proj",
  ffn_gate_inp: "mlp.gate",
  ffn_gate_inp_shexp: "mlp.shared_expert_gate",
  ffn_gate_shexp: "mlp.shared_expert.gate_proj",
  ffn_up_shexp: "mlp.shared_expert.up_proj",
  ffn_down_shexp: "mlp.shared_expert.down_proj",
  ffn_gate_exps: "mlp.experts.#.gate_proj",
  ffn_up_exps: "mlp.experts.#.up_proj",
  ffn_down_exps: "mlp.experts.#.down_proj",
  attn_gate: "linear_attn.in_proj_z",
  ssm_in: "linear_attn.in_proj_qkvz",
  ssm_ba: "linear_attn.in_proj_ba",
  ssm_beta: "linear_attn.in_proj_b",
  ssm_alpha: "linear_attn.in_proj_a",
  ssm_conv1d: "linear_attn.conv1d",
  ssm_norm: "linear_attn.norm",
  ssm_out: "linear_attn.out_proj",
};

/** Names that some models have instead, by `model_type`. `#` stands for an expert's number. */
const GEMMA_NORMS = { ffn_norm: "pre_feedforward_layernorm" };
const OTHERS: Readonly<Record<string, Readonly<Record<string, string>>>> = {
  phi3: { attn_qkv: "self_attn.qkv_proj", ffn_up: "mlp.gate_up_proj" },
  gemma2: GEMMA_NORMS,
  gemma3_text: GEMMA_NORMS,
  glm4: {
    ffn_up: "mlp.gate_up_proj",
    post_attention_norm: "post_self_attn_layernorm",
    ffn_norm: "post_attention_layernorm",
    post_ffw_norm: "post_mlp_layernorm",
  },
  stablelm: { attn_q_norm: "self_attn.q_layernorm", attn_k_norm: "self_attn.k_layernorm" },
};

/** Names with `.weight` or `.bias` that have none in a checkpoint, or another. */
const WHOLE: Readonly<Record<string, string>> = {
  "attn_sinks.weight": "self_attn.sinks",
  "exp_probs_b.bias": "mlp.gate.e_score_correction_bias",
  "exp_probs_b": "mlp.gate.e_score_correction_bias",
  "ssm_a": "linear_attn.A_log",
  "ssm_dt.bias": "linear_attn.dt_bias",
};

/** Stacks of matrices that are one matrix each, their rows below each other. */
const FLAT = ["attn_k_b", "attn_v_b"];

/** A matrix of several that lie below each other in one, and how many rows it has of that. */
type MergedPart = readonly [name: string, rows: number];

/** Returns what lies merged in the tensors of a name; undefined where that is one tensor in a checkpoint too. */
function mergedParts(part: string, config: Readonly<Record<string, unknown>>): MergedPart[] | undefined {
  const size = (name: string) => config[name] as number;
  if (part === "ffn_gate_up_exps") {
    const rows = size("moe_intermediate_size") ?? size("intermediate_size");
    return [["mlp.experts.#.gate_proj", rows], ["mlp.experts.#.up_proj", rows]];
  }
  if (part !== "attn_qkv" || Object.hasOwn(OTHERS[config.model_type as string] ?? {}, part)) return undefined;
  if (config.linear_num_key_heads !== undefined) {
    const keys = size("linear_num_key_heads") * size("linear_key_head_dim");
    const values = size("linear_num_value_heads") * size("linear_value_head_dim");
    return [["linear_attn.in_proj_q", keys], ["linear_attn.in_proj_k", keys], ["linear_attn.in_proj_v", values]];
  }
  const queries = size("num_attention_heads") * size("head_dim"), keys = size("num_key_value_heads") * size("head_dim");
  return [["self_attn.q_proj", queries], ["self_attn.k_proj", keys], ["self_attn.v_proj", keys]];
}

/** Tensors that are settings: factors of rotary frequencies. */
export const ROPE_TENSORS = ["rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight"];

/** Where a tensor of a layer or of the root is: its layer's prefix, what it is called there, and `weight` or `bias`. */
function partsOf(name: string): { prefix: string; part: string; kind: string } | undefined {
  const [, layer, part, kind = ""] = /^(?:blk\.(\d+)\.)?([a-z0-9_]+|nextn\.[a-z0-9_]+)(?:\.(weight|bias))?$/.exec(name) ?? [];
  return part === undefined ? undefined : { prefix: layer === undefined ? "" : `model.layers.${layer}.`, part, kind };
}

/** Returns the checkpoint's name of a tensor, or undefined where there is none. @param layerParts Which tensors layers have. */
function checkpointName(name: string, modelType: string, layerParts: ReadonlySet<string>): string | undefined {
  const { prefix, part, kind } = partsOf(name) ?? {};
  if (part === undefined) return undefined;
  const ending = kind === "" ? "" : `.${kind}`;
  if (prefix === "") return Object.hasOwn(ROOT, part) ? ROOT[part] + ending : undefined;
  const whole = WHOLE[part + ending];
  if (whole !== undefined) return prefix + whole;
  if (modelType === "falcon" && layerParts.has("attn_norm_2")) {
    // Two norms of one input: the second is the attention's.
    if (part === "attn_norm") return `${prefix}ln_mlp${ending}`;
    if (part === "attn_norm_2") return `${prefix}ln_attn${ending}`;
  }
  const found = [OTHERS[modelType] ?? {}, LAYER].find((table) => Object.hasOwn(table, part))?.[part];
  return found && prefix + found + ending;
}

/**
 * Returns the tensors that a GGUF file's are in a checkpoint of a config, in the order of the file.
 * @param where Path of the file, for messages.
 * @throws {UnsupportedError} for quantized values in a shape that is no matrix.
 */
export function checkpointTensors(
  tensors: readonly GgufTensor[],
  config: Readonly<Record<string, unknown>>,
  where: string,
): SafetensorsTensor[] {
  const modelType = config.model_type as string;
  const layerParts = new Set(tensors.map(({ name }) => partsOf(name)?.part).filter((part) => part !== undefined));
  const found = tensors.filter(({ name }) => !ROPE_TENSORS.includes(name)).flatMap((tensor): SafetensorsTensor[] => {
    const { prefix = "", part = "", kind = "" } = partsOf(tensor.name) ?? {};
    // Layers after the last predict further ahead, which whoever reads the model leaves out.
    if (Number(/\d+/.exec(prefix)?.[0] ?? -1) >= (config.num_hidden_layers as number)) {
      return [{ name: `mtp.${tensor.name}`, dtype: "U8", shape: [tensor.bytes], offset: tensor.offset, bytes: tensor.bytes }];
    }
    // Unknown names stay, so that whoever reads the model refuses what it has no place for.
    const known = checkpointName(tensor.name, modelType, layerParts) ?? tensor.name;
    const parts = mergedParts(part, config);
    if (parts !== undefined) return merged(tensor, parts.map(([name, rows]) => [`${prefix}${name}.${kind}`, rows]), where);
    if (known.includes("#") && tensor.shape.length === (kind === "bias" ? 2 : 3)) return stacked(tensor, known, where);
    return [placed({ ...tensor, shape: shapeOf(tensor, part, known) }, known, where)];
  });
  return found.sort((a, b) => a.offset - b.offset);
}

/** Returns the shape that a tensor has in a checkpoint. */
function shapeOf({ shape }: GgufTensor, part: string, known: string): number[] {
  if (FLAT.includes(part) && shape.length === 3) return [shape[0] * shape[1], shape[2]];
  // The gate of a shared expert, one row, is a vector there.
  if (known.endsWith(".shared_expert_gate.weight") && shape.length === 1) return [1, ...shape];
  // Norms of heads are a matrix there.
  if (/\.[qk]_layernorm\.weight$/.test(known) && shape.length === 2) return [shape[0] * shape[1]];
  if (part === "ssm_conv1d" && shape.length === 2) return [shape[0], 1, shape[1]];
  return shape;
}

/** Returns each matrix, or vector, of a stack as a tensor of its own. */
function stacked(tensor: GgufTensor, known: string, where: string): SafetensorsTensor[] {
  const [count, ...shape] = tensor.shape, bytes = tensor.bytes / count;
  return Array.from(
    { length: count },
    (_, i) => placed({ ...tensor, shape, bytes, offset: tensor.offset + i * bytes }, known.replace("#", `${i}`), where),
  );
}

/** Returns each matrix, or vector, of those that lie below each other as a tensor of its own; of each of a stack where it is one of experts. */
function merged(tensor: GgufTensor, parts: readonly MergedPart[], where: string): SafetensorsTensor[] {
  const isStack = parts[0][0].includes("#");
  const [stack, rows, ...rest] = isStack ? tensor.shape : [1, ...tensor.shape], rowBytes = tensor.bytes / (stack * rows);
  const sum = parts.reduce((sum, [, count]) => sum + count, 0);
  if (sum !== rows) {
    throw new UnsupportedError(
      `Cannot use ${where}: tensor ${JSON.stringify(tensor.name)} has ${rows} rows, required ${
        parts.map(([, count]) => count).join(" + ")
      }`,
    );
  }
  return Array.from({ length: stack }, (_, index) => {
    let offset = tensor.offset + index * rows * rowBytes;
    return parts.map(([name, count]) => {
      const part = { ...tensor, shape: [count, ...rest], bytes: count * rowBytes, offset };
      offset += part.bytes;
      return placed(part, name.replace("#", `${index}`), where);
    });
  }).flat();
}

function placed({ name: stored, type, shape, offset, bytes }: GgufTensor, name: string, where: string): SafetensorsTensor {
  if (type === "F32" || type === "F16" || type === "BF16") {
    // How much decays is stored as it is used.
    const logOfNegative = type === "F32" && name.endsWith(".A_log");
    return { name, dtype: type as Dtype, shape, offset, bytes, ...(logOfNegative && { logOfNegative }) };
  }
  if (shape.length !== 2) {
    throw new UnsupportedError(`Cannot use ${where}: tensor ${JSON.stringify(stored)} has ${type} in ${shape.length} dimensions`);
  }
  return { name, dtype: "U8", shape: [shape[0], bytes / shape[0]], offset, bytes, ggml: { type, cols: shape[1] } };
}
