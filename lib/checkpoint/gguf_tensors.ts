/**
 * What the tensors of a GGUF file are in a Hugging Face checkpoint: their names, and experts' matrices, which lie in stacks there, one by one. Names:
 * gguf-py's constants.py and tensor_mapping.py.
 * @module
 */
import { UnsupportedError } from "../errors.ts";
import type { GgufTensor } from "./gguf.ts";
import type { Dtype, SafetensorsTensor } from "./safetensors.ts";

/** Names of tensors outside of layers, and of those within `blk.N.`, for most models. */
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
  ffn_norm: "post_attention_layernorm",
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
};

/** Names that some models have instead, by `model_type`. `#` stands for an expert's number. */
const GEMMA_NORMS = {
  post_attention_norm: "post_attention_layernorm",
  ffn_norm: "pre_feedforward_layernorm",
  post_ffw_norm: "post_feedforward_layernorm",
};
const OTHERS: Readonly<Record<string, Readonly<Record<string, string>>>> = {
  mixtral: {
    ffn_gate_inp: "block_sparse_moe.gate",
    ffn_gate_exps: "block_sparse_moe.experts.#.w1",
    ffn_up_exps: "block_sparse_moe.experts.#.w3",
    ffn_down_exps: "block_sparse_moe.experts.#.w2",
  },
  phi3: { attn_qkv: "self_attn.qkv_proj", ffn_up: "mlp.gate_up_proj" },
  gemma2: GEMMA_NORMS,
  gemma3_text: GEMMA_NORMS,
};

/** Tensors that are settings: factors of rotary frequencies. */
export const ROPE_TENSORS = ["rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight"];

/** Returns the checkpoint's name of a tensor, or undefined where there is none. */
function checkpointName(name: string, modelType: string): string | undefined {
  const [, layer, part, kind] = /^(?:blk\.(\d+)\.)?([a-z_]+)\.(weight|bias)$/.exec(name) ?? [];
  if (part === undefined) return undefined;
  const tables = layer === undefined ? [ROOT] : [OTHERS[modelType] ?? {}, LAYER];
  const found = tables.find((table) => Object.hasOwn(table, part))?.[part];
  return found && `${layer === undefined ? "" : `model.layers.${layer}.`}${found}.${kind}`;
}

/**
 * Returns the tensors that a GGUF file's are in a checkpoint of a `model_type`, in the order of the file.
 * @param where Path of the file, for messages.
 * @throws {UnsupportedError} for quantized values in a shape that is no matrix.
 */
export function checkpointTensors(tensors: readonly GgufTensor[], modelType: string, where: string): SafetensorsTensor[] {
  const found = tensors.filter(({ name }) => !ROPE_TENSORS.includes(name)).flatMap((tensor): SafetensorsTensor[] => {
    // Unknown names stay, so that whoever reads the model refuses what it has no place for.
    const known = checkpointName(tensor.name, modelType) ?? tensor.name;
    if (known.includes("#") && tensor.shape.length === 3) return stacked(tensor, known, where);
    // The gate of a shared expert, one row, is a vector there.
    const shape = known.endsWith(".shared_expert_gate.weight") && tensor.shape.length === 1 ? [1, ...tensor.shape] : tensor.shape;
    return [placed({ ...tensor, shape }, known, where)];
  });
  return found.sort((a, b) => a.offset - b.offset);
}

/** Returns each matrix of a stack as a tensor of its own. */
function stacked(tensor: GgufTensor, known: string, where: string): SafetensorsTensor[] {
  const [count, ...shape] = tensor.shape, bytes = tensor.bytes / count;
  return Array.from(
    { length: count },
    (_, i) => placed({ ...tensor, shape, bytes, offset: tensor.offset + i * bytes }, known.replace("#", `${i}`), where),
  );
}

function placed({ name: stored, type, shape, offset, bytes }: GgufTensor, name: string, where: string): SafetensorsTensor {
  if (type === "F32" || type === "F16" || type === "BF16") return { name, dtype: type as Dtype, shape, offset, bytes };
  if (shape.length !== 2) {
    throw new UnsupportedError(`Cannot use ${where}: tensor ${JSON.stringify(stored)} has ${type} in ${shape.length} dimensions`);
  }
  return { name, dtype: "U8", shape: [shape[0], bytes / shape[0]], offset, bytes, ggml: { type, cols: shape[1] } };
}
