/**
 * MXFP4 as gpt-oss has it: stacks of experts' matrices `X_blocks` u8 [n, rows, cols / 32, 16], two e2m1 codes a byte, the even element low, and
 * `X_scales` u8 [n, rows, cols / 32], exponents of two plus 127. The plain `X` that transformers makes of them is turned, [n, cols, rows].
 * Source: transformers/integrations/mxfp4.py.
 * @module
 */
import { Companions, type EncodedTensor, type Encoding } from "./encoding.ts";
import { fromLowFirst } from "./nibbles.ts";

/** MXFP4 of gpt-oss. */
export const MXFP4: Encoding = {
  methods: ["mxfp4"],
  find(checkpoint) {
    const found: EncodedTensor[] = [];
    for (const [key, codes] of checkpoint.tensors) {
      const [, name] = /^(.+)_blocks$/.exec(key) ?? [];
      if (name === undefined) continue;
      const companions = new Companions(checkpoint, name);
      companions.required(key, ["U8"]);
      if (codes.shape.length !== 4 || codes.shape[3] !== 16) {
        throw companions.refuse(`has blocks [${codes.shape.join(", ")}], required [n, rows, cols / 32, 16]`);
      }
      const [count, rows, blocks] = codes.shape, cols = blocks * 32;
      const scales = companions.required(`${name}_scales`, ["U8", "F8_E8M0"], [count, rows, blocks]);
      found.push({
        name,
        encoding: "MXFP4",
        shape: [count, cols, rows],
        turned: true,
        parts: companions.parts,
        cut: () => ({
          format: "mxfp4",
          async read(firstRow, rowCount, [scaleSection, codeSection], atRow) {
            const bytes = new Uint8Array(rowCount * blocks * 16);
            await Promise.all([
              checkpoint.read(scales, firstRow * blocks, scaleSection.subarray(atRow * blocks, (atRow + rowCount) * blocks)),
              checkpoint.read(codes, firstRow * blocks * 16, bytes),
            ]);
            // Rows are whole blocks, so that they can be put in order as one.
            fromLowFirst(bytes, rowCount * cols, codeSection.subarray(atRow * blocks * 16, (atRow + rowCount) * blocks * 16));
          },
        }),
      });
    }
    return Promise.resolve(found);
  },
};
