/**
 * FP8 as DeepSeek stores it: e4m3 weights, and in `X_scale_inv` what each block of, usually, 128 x 128 is multiplied by (`X.weight_scale_inv` of
 * a linear layer); a single number where `weight_block_size` is null. MXFP8 is the same with powers of two for 32 columns. AutoFP8 stored a number
 * in `X.weight_scale` under the same name of method. Activations are quantized too while it runs; here they are not. Source:
 * transformers/integrations/finegrained_fp8.py; vLLM's quantization/fp8.py.
 * @module
 */
import { UnsupportedError } from "../errors.ts";
import { cacheScaleReason, Companions, type EncodedTensor, type Encoding } from "./encoding.ts";
import { fp8Tensor, scaleShape } from "./fp8_scales.ts";

/** FP8 with scales of blocks. */
export const FINEGRAINED_FP8: Encoding = {
  methods: ["fp8", "mxfp8"],
  find(checkpoint, config) {
    const usual = config.quant_method === "mxfp8" ? [1, 32] : [128, 128];
    const size = config.weight_block_size === undefined ? usual : config.weight_block_size;
    const valid = size === null ||
      Array.isArray(size) && size.length === 2 && size.every((n) => Number.isSafeInteger(n) && n > 0);
    if (!valid || (config.fmt !== undefined && config.fmt !== "e4m3")) {
      throw new UnsupportedError(
        `Cannot use model ${checkpoint.path}: quantization_config has weight_block_size ${JSON.stringify(size)} and fmt ` +
          `${JSON.stringify(config.fmt ?? "e4m3")}, supported are [rows, cols] or null, and "e4m3"`,
      );
    }
    const [blockRows, blockCols] = size ?? [0, 0];
    const found: EncodedTensor[] = [];
    for (const [name, codes] of checkpoint.tensors) {
      if (codes.dtype !== "F8_E4M3") continue;
      const companions = new Companions(checkpoint, name);
      companions.required(name, ["F8_E4M3"]);
      if (codes.shape.length !== 2 && codes.shape.length !== 3) {
        throw companions.refuse(`has shape [${codes.shape.join(", ")}], required [rows, cols] or [n, rows, cols]`);
      }
      const [rows, cols] = codes.shape.slice(-2), stack = codes.shape.slice(0, -2);
      if (config.weight_block_size === undefined && checkpoint.tensors.has(`${name}_scale`)) {
        const scale = companions.required(`${name}_scale`, ["F32", "BF16", "F16"], [], [1]);
        companions.take(name.replace(/weight$/, "input_scale"));
        found.push(fp8Tensor(checkpoint, name, "FP8 by tensor", codes, scale, { rows: 0, cols: 0 }, companions));
        continue;
      }
      const scales = scaleShape(rows, cols, { rows: blockRows, cols: blockCols });
      const shapes = size === null ? stack.length > 0 ? [stack, [...stack, 1, 1]] : [[], [1]] : [[...stack, ...scales]];
      const scale = companions.required(`${name}_scale_inv`, ["F32", "BF16", "F16", "F8_E8M0", "U8"], ...shapes);
      // Of static activation scales, which nothing here needs.
      companions.take(`${name.replace(/\.weight$/, ".")}activation_scale`) ?? companions.take(`${name}_activation_scale`);
      const encoding = size === null ? "FP8 by tensor" : "FP8 in blocks";
      found.push(
        fp8Tensor(checkpoint, name, encoding, codes, scale, { rows: blockRows, cols: blockCols }, companions),
      );
    }
    return Promise.resolve(found);
  },
  needlessTensorReason: cacheScaleReason,
};
