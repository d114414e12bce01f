/**
 * Checkpoints of the compressed-tensors library (llm-compressor): which of its formats a linear layer has is told from its tensors, and checked
 * against the schemes in `quantization_config`. Activations, which it may quantize as well, are not quantized here. Source:
 * compressed_tensors/compressors.
 * @module
 */
import type { Checkpoint } from "../checkpoint/checkpoint.ts";
import { isJsonObject } from "../checkpoint/json_file.ts";
import { UnsupportedError } from "../errors.ts";
import { compressedFp4, compressedMxfp4 } from "./compressed_fp4.ts";
import { compressedInt8, packedIntegers } from "./compressed_integers.ts";
import { cacheScaleReason, Companions, type EncodedTensor, type Encoding } from "./encoding.ts";
import { fp8Tensor, type ScaleBlock, scaleShape } from "./fp8_scales.ts";

/** How weights of some layers are quantized: a scheme of `config_groups`. */
export interface WeightScheme {
  bits: number;
  type: "int" | "float";
  symmetric: boolean;
  strategy: "tensor" | "channel" | "group" | "tensor_group" | "block";
  /** Columns that share a scale, with strategies of groups. */
  groupSize: number;
  /** Rows and columns that share a scale, with strategy block. */
  block: ScaleBlock;
  /** Whether columns were grouped by activations: `weight_g_idx` says how. */
  ordered: boolean;
}

const STRATEGIES = ["tensor", "channel", "group", "tensor_group", "block"];

/** What `format` may be, of a checkpoint and of its groups. */
const FORMATS = [
  ...["dense", "int-quantized", "float-quantized", "naive-quantized", "pack-quantized", "nvfp4-pack-quantized"],
  ...["mxfp4-pack-quantized", "mxfp8-quantized", "mixed-precision"],
];

/** Returns the schemes for weights that a config has. */
function parseSchemes(checkpoint: Checkpoint, config: Record<string, unknown>): WeightScheme[] {
  const refuse = (what: string) => new UnsupportedError(`Cannot use model ${checkpoint.path}: quantization_config has ${what}`);
  const { config_groups: groups, sparsity_config: sparsity, transform_config: transform } = config;
  const checkFormat = (format: unknown) => {
    if (format === undefined || format === null || FORMATS.includes(format as string)) return;
    throw refuse(`format ${JSON.stringify(format)}, supported: ${FORMATS.join(", ")}`);
  };
  checkFormat(config.format);
  if (!isJsonObject(groups)) throw refuse(`config_groups ${JSON.stringify(groups)}, required schemes by name`);
  const isDense = !isJsonObject(sparsity) || Object.keys(sparsity).length === 0 || sparsity.format === "dense";
  if (!isDense) throw refuse(`sparsity_config ${JSON.stringify(sparsity)}, supported is none or "dense"`);
  if (isJsonObject(transform) && Object.keys(transform).length > 0) {
    throw refuse("a transform_config, which changes activations; supported is none");
  }
  return Object.values(groups).flatMap((group) => {
    const weights = isJsonObject(group) ? group.weights : undefined;
    if (isJsonObject(group)) checkFormat(group.format);
    if (weights === null || weights === undefined) return [];
    if (!isJsonObject(weights)) throw refuse("a scheme whose weights are no object");
    const { num_bits: bits, type, symmetric = true, strategy: given, group_size: size, block_structure: block } = weights;
    const strategy = given ?? (typeof size === "number" && size > 0 ? "group" : size === -1 ? "channel" : "tensor");
    if (type !== "int" && type !== "float" || typeof bits !== "number" || !STRATEGIES.includes(strategy as string)) {
      throw refuse(
        `weights of ${JSON.stringify({ num_bits: bits, type, strategy })}, supported are int and float by ${
          STRATEGIES.join(", ")
        }`,
      );
    }
    const sides = typeof block === "string" ? block.split("x").map(Number) : block;
    const [rows, cols] = Array.isArray(sides) && sides.every((n) => Number.isSafeInteger(n) && n > 0) ? sides : [128, 128];
    return [{
      bits,
      type,
      symmetric: symmetric === true,
      strategy: strategy as WeightScheme["strategy"],
      groupSize: typeof size === "number" && size > 0 ? size : 0,
      block: { rows, cols },
      ordered: weights.actorder === true || ["group", "dynamic"].includes(weights.actorder as string),
    }];
  });
}

/** Returns how many rows and columns share a scale by a scheme of e4m3 weights; undefined where that is not known. */
function fp8Block({ strategy, groupSize, block }: WeightScheme): ScaleBlock | undefined {
  if (strategy === "tensor") return { rows: 0, cols: 0 };
  if (strategy === "channel") return { rows: 1, cols: 0 };
  return strategy === "block" ? block : strategy === "group" ? { rows: 1, cols: groupSize } : undefined;
}

/** An e4m3 weight with a scale for the tensor, a row, a group of columns or a block; of MXFP8, powers of two. */
function compressedFp8(checkpoint: Checkpoint, module: string, schemes: readonly WeightScheme[]): EncodedTensor {
  const name = `${module}.weight`, companions = new Companions(checkpoint, name);
  const codes = companions.required(name, ["F8_E4M3"]);
  if (codes.shape.length !== 2) throw companions.refuse(`has shape [${codes.shape.join(", ")}], required [rows, cols]`);
  const [rows, cols] = codes.shape, types = ["F32", "BF16", "F16", "U8", "F8_E8M0"] as const;
  const scale = companions.required(`${module}.weight_scale`, types);
  const fitting = schemes.filter(({ bits, type, symmetric }) => bits === 8 && type === "float" && symmetric);
  if (fitting.length === 0) throw companions.refuse("is e4m3, but no symmetric scheme has float weights of 8 bits");
  const shapesOf = (block: ScaleBlock): number[][] => {
    const [scaleRows, scaleCols] = scaleShape(rows, cols, block), all = [scaleRows, scaleCols];
    return [all, ...(scaleRows * scaleCols === 1 ? [[], [1]] : scaleCols === 1 ? [[scaleRows]] : [])];
  };
  // Of several schemes, that which its scales have the shape of.
  const scheme = fitting.find((one) => {
    const block = fp8Block(one);
    return block !== undefined && shapesOf(block).some((shape) => `${shape}` === `${scale.shape}`);
  }) ?? fitting[0];
  const block = fp8Block(scheme);
  if (block === undefined) {
    throw companions.unsupported(`is e4m3 by ${scheme.strategy}, supported are tensor, channel, group, block`);
  }
  companions.checked(scale, types, ...shapesOf(block));
  companions.take(`${module}.input_scale`);
  return fp8Tensor(checkpoint, name, `compressed-tensors FP8 by ${scheme.strategy}`, codes, scale, block, companions);
}

/** Checkpoints of compressed-tensors. */
export const COMPRESSED_TENSORS: Encoding = {
  methods: ["compressed-tensors"],
  async find(checkpoint, config) {
    const schemes = parseSchemes(checkpoint, config);
    const found: EncodedTensor[] = [];
    for (const [name, tensor] of checkpoint.tensors) {
      const [, module, kind] = /^(.+)\.(weight|weight_packed)$/.exec(name) ?? [];
      if (module === undefined) continue;
      if (kind === "weight") {
        if (tensor.dtype === "F8_E4M3") found.push(compressedFp8(checkpoint, module, schemes));
        else if (tensor.dtype === "I8") found.push(compressedInt8(checkpoint, module, schemes));
      } else if (tensor.dtype === "I32") found.push(await packedIntegers(checkpoint, module, schemes));
      else if (checkpoint.tensors.has(`${module}.weight_global_scale`)) found.push(compressedFp4(checkpoint, module, schemes));
      else found.push(compressedMxfp4(checkpoint, module, schemes));
    }
    return found;
  },
  needlessTensorReason: cacheScaleReason,
};
