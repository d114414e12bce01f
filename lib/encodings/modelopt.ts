/**
 * Checkpoints of NVIDIA's ModelOpt: which of its algorithms a weight has is told from its tensors, `X.weight_scale` and `X.weight_scale_2`, and
 * `quant_algo`, or those of `quantized_layers`, must be known. What it does to activations and to the KV cache is not done here. Llama 4's stacks of
 * experts lie turned, [n, cols, rows], with `_weight_scale` behind their names. Source: modelopt/torch/export/{quant_utils,unified_export_hf}.py
 * and quantization/qtensor.
 * @module
 */
import type { Checkpoint, CheckpointTensor } from "../checkpoint/checkpoint.ts";
import { isJsonObject } from "../checkpoint/json_file.ts";
import { UnsupportedError } from "../errors.ts";
import { cacheScaleReason, Companions, type EncodedTensor, type Encoding } from "./encoding.ts";
import { type Fp4Tensors, mxfp4Tensor, nvfp4Tensor } from "./fp4_matrices.ts";
import { fp8Tensor, type ScaleBlock, scaleShape, turnedFp8Tensor } from "./fp8_scales.ts";

/** What `quant_algo` may be; those that are missing change activations beforehand (AWQ, SmoothQuant, SVDQuant). */
const ALGORITHMS = [
  "FP8",
  "FP8_PER_CHANNEL_PER_TOKEN",
  "FP8_PB_WO",
  "NVFP4",
  "W4A16_NVFP4",
  "W4A8_NVFP4_FP8",
  "MXFP4",
  "W4A8_MXFP4_FP8",
  "MXFP8",
];

/** Families whose stacks of experts lie turned. */
const TURNED_STACKS = ["llama4", "llama4_text", "gpt_oss"];

/** Blocks of `FP8_PB_WO`. */
const FP8_BLOCK: ScaleBlock = { rows: 128, cols: 128 };

/** What is not quantized, or not to be used, has none. @throws {UnsupportedError} for an algorithm that is not known. */
function checkAlgorithms(checkpoint: Checkpoint, config: Record<string, unknown>): void {
  const settings = isJsonObject(config.quantization) ? config.quantization : config;
  const refuse = (key: string, value: unknown, supported: string) =>
    new UnsupportedError(
      `Cannot use model ${checkpoint.path}: quantization_config has ${key} ${JSON.stringify(value)}, supported: ${supported}`,
    );
  const { quant_algo: algorithm, quantized_layers: layers } = settings;
  const known = (name: unknown) => typeof name === "string" && ALGORITHMS.includes(name.toUpperCase());
  if (algorithm === "MIXED_PRECISION") {
    if (!isJsonObject(layers)) throw refuse("quantized_layers", layers, "algorithms by layer");
    for (const [layer, own] of Object.entries(layers)) {
      const name = isJsonObject(own) ? own.quant_algo : own;
      if (!known(name)) throw refuse(`for ${layer} quant_algo`, name, ALGORITHMS.join(", "));
    }
  } else if (algorithm !== null && algorithm !== undefined && !known(algorithm)) {
    throw refuse("quant_algo", algorithm, [...ALGORITHMS, "MIXED_PRECISION"].join(", "));
  }
}

/** Returns the companions' names, but for what they end with. */
function prefixOf(name: string): string {
  return name.endsWith(".weight") ? name.slice(0, -"weight".length) : `${name}_`;
}

/** Takes what belongs to activations. */
function takeActivationScales(name: string, companions: Companions): void {
  const prefix = prefixOf(name);
  companions.take(`${prefix}input_scale`);
  if (companions.take(`${prefix}pre_quant_scale`) !== undefined) {
    throw companions.unsupported("has a pre_quant_scale, by which activations would have to be multiplied");
  }
}

/** An e4m3 weight: its scales say what shares one. */
function scaledFp8(checkpoint: Checkpoint, label: string, name: string, codes: CheckpointTensor): EncodedTensor {
  const companions = new Companions(checkpoint, name), { shape } = codes, encoding = `${label} FP8`;
  companions.required(name, ["F8_E4M3"]);
  takeActivationScales(name, companions);
  const scaleName = `${prefixOf(name)}weight_scale`, found = checkpoint.tensors.get(scaleName);
  if (shape.length === 3 && TURNED_STACKS.includes(`${checkpoint.config.model_type}`)) {
    const [matrices, , rows] = shape, shapes = [[], [1], [matrices], [matrices, 1, 1], [matrices, rows], [matrices, 1, rows]];
    const scale = companions.required(scaleName, ["F32", "BF16", "F16"], ...shapes);
    return turnedFp8Tensor(checkpoint, name, encoding, codes, scale, companions);
  }
  if (shape.length !== 2) throw companions.unsupported(`has shape [${shape.join(", ")}], supported are [rows, cols]`);
  const [rows, cols] = shape;
  const blocksOf = (block: ScaleBlock) => scaleShape(rows, cols, block);
  if (found?.dtype === "U8" || found?.dtype === "F8_E8M0") {
    const block = { rows: 1, cols: 32 };
    const scale = companions.required(scaleName, ["U8", "F8_E8M0"], blocksOf(block));
    return fp8Tensor(checkpoint, name, `${label} MXFP8`, codes, scale, block, companions);
  }
  const [blockRows, blockCols] = blocksOf(FP8_BLOCK), [first = 1, second = 1, ...others] = found?.shape ?? [];
  const isVector = second === 1 && others.length === 0;
  const block = isVector && first === 1 ? { rows: 0, cols: 0 } : isVector && first === rows ? { rows: 1, cols: 0 } : FP8_BLOCK;
  const shapes = block.rows === 0
    ? [[], [1], [1, 1]]
    : block.rows === 1
    ? [[rows], [rows, 1]]
    : [[blockRows, blockCols], [blockRows, 1, blockCols, 1]];
  const scale = companions.required(scaleName, ["F32", "BF16", "F16"], ...shapes);
  return fp8Tensor(checkpoint, name, encoding, codes, scale, block, companions);
}

/** A weight of two e2m1 codes a byte: NVFP4 where a second scale is there, else MXFP4. */
function scaledFp4(checkpoint: Checkpoint, label: string, name: string, codes: CheckpointTensor): EncodedTensor {
  const companions = new Companions(checkpoint, name), { shape } = codes, prefix = prefixOf(name);
  companions.required(name, ["U8"]);
  takeActivationScales(name, companions);
  const turned = shape.length === 3 && TURNED_STACKS.includes(`${checkpoint.config.model_type}`);
  if (shape.length !== 2 && !turned) {
    throw companions.unsupported(`has shape [${shape.join(", ")}], supported are [rows, cols / 2]`);
  }
  const axis = turned ? 1 : shape.length - 1, global = checkpoint.tensors.has(`${prefix}weight_scale_2`);
  const group = global ? 16 : 32, groups = 2 * shape[axis] / group;
  const scale = companions.required(
    `${prefix}weight_scale`,
    global ? ["F8_E4M3"] : ["U8", "F8_E8M0"],
    shape.map((n, i) => i === axis ? groups : n),
  );
  const tensors: Fp4Tensors = { codes, scale, turned };
  if (!global) {
    if (turned) throw companions.unsupported("is a stack of MXFP4, supported are matrices");
    return mxfp4Tensor(checkpoint, name, `${label} MXFP4`, tensors, companions);
  }
  const second = companions.required(
    `${prefix}weight_scale_2`,
    ["F32"],
    [],
    [1],
    ...turned ? [[shape[0]], [shape[0], 1, 1]] : [],
  );
  return nvfp4Tensor(checkpoint, name, `${label} NVFP4`, tensors, second, "nvfp4-product", companions);
}

/**
 * Returns the weights that have a `weight_scale` beside them, all of them floats of 8 or 4 bits.
 * @param label Name of the tool that made them, for people.
 * @throws {UnsupportedError} for one of other elements.
 */
export function scaledFloats(checkpoint: Checkpoint, label: string): EncodedTensor[] {
  const found: EncodedTensor[] = [];
  for (const [name, tensor] of checkpoint.tensors) {
    if (!checkpoint.tensors.has(`${prefixOf(name)}weight_scale`)) continue;
    const companions = new Companions(checkpoint, name);
    if (tensor.dtype === "F8_E4M3") found.push(scaledFp8(checkpoint, label, name, tensor));
    else if (tensor.dtype === "U8") found.push(scaledFp4(checkpoint, label, name, tensor));
    else throw companions.unsupported(`is of ${tensor.dtype} with a weight_scale, supported are F8_E4M3 and U8`);
  }
  return found;
}

/** Checkpoints of ModelOpt. */
export const MODELOPT: Encoding = {
  methods: ["modelopt", "modelopt_fp4", "modelopt_mixed"],
  find(checkpoint, config) {
    checkAlgorithms(checkpoint, config);
    return Promise.resolve(scaledFloats(checkpoint, "ModelOpt"));
  },
  needlessTensorReason: cacheScaleReason,
};
