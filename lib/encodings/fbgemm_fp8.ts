/**
 * FP8 of FBGEMM, as Meta released Llama 3.1 405B: e4m3 weights with a float32 for each row in `X_scale`. Llama 4's stacks of experts lie turned,
 * [n, cols, rows], and a scale still belongs to a row of the matrix. Activations are quantized too while FBGEMM runs, up to
 * `activation_scale_ub`; here they are not. Source: transformers/integrations/fbgemm_fp8.py.
 * @module
 */
import { Companions, type EncodedTensor, type Encoding } from "./encoding.ts";
import { fp8Tensor, turnedFp8Tensor } from "./fp8_scales.ts";

const ENCODING = "FBGEMM FP8";

/** FP8 of FBGEMM. */
export const FBGEMM_FP8: Encoding = {
  methods: ["fbgemm_fp8"],
  find(checkpoint) {
    const found: EncodedTensor[] = [];
    for (const [name, codes] of checkpoint.tensors) {
      if (codes.dtype !== "F8_E4M3") continue;
      const companions = new Companions(checkpoint, name), { shape } = codes;
      companions.required(name, ["F8_E4M3"]);
      if (shape.length !== 2 && shape.length !== 3) {
        throw companions.refuse(`has shape [${shape.join(", ")}], required [rows, cols] or [n, cols, rows]`);
      }
      const [matrices] = shape, rows = shape.length === 2 ? shape[0] : shape[2];
      const shapes = shape.length === 2 ? [[rows, 1], [rows]] : [[matrices, 1, rows], [matrices, rows, 1]];
      const scale = companions.required(`${name}_scale`, ["F32", "BF16", "F16"], ...shapes);
      // The bound of activations, the same for all.
      companions.take(name.replace(/[^.]+$/, "input_scale_ub"));
      found.push(
        shape.length === 2
          ? fp8Tensor(checkpoint, name, ENCODING, codes, scale, { rows: 1, cols: 0 }, companions)
          : turnedFp8Tensor(checkpoint, name, ENCODING, codes, scale, companions),
      );
    }
    return Promise.resolve(found);
  },
};
