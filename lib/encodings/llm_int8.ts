/**
 * LLM.int8 of bitsandbytes: `X.weight` int8 with `X.SCB`, the largest magnitude of each row; a weight is code * SCB / 127. Its activations are
 * quantized too while it runs; here they are not. Source: `int8_vectorwise_dequant` in bitsandbytes/backends/default/ops.py.
 * @module
 */
import { Companions, type EncodedTensor, type Encoding } from "./encoding.ts";
import { readPaddedRows } from "./padded_rows.ts";

/** LLM.int8. */
export const LLM_INT8: Encoding = {
  methods: ["bitsandbytes"],
  async find(checkpoint) {
    const found: EncodedTensor[] = [];
    for (const [name, tensor] of checkpoint.tensors) {
      if (tensor.dtype !== "I8" || !name.endsWith(".weight")) continue;
      const companions = new Companions(checkpoint, name), module = name.slice(0, -".weight".length);
      companions.required(name, ["I8"]);
      if (tensor.shape.length !== 2) throw companions.refuse(`has shape [${tensor.shape.join(", ")}], required [rows, cols]`);
      const [rows, cols] = tensor.shape;
      const scale = companions.required(`${module}.SCB`, ["F32"], [rows]);
      const layout = companions.take(`${module}.weight_format`);
      if (layout !== undefined) {
        companions.checked(layout, ["U8"], [], [1]);
        // 1 to 3 are orders of tiles that one generation of GPUs had.
        const [order] = await companions.read(layout);
        if (order !== 0) throw companions.unsupported(`has weight_format ${order}, supported is 0 (row order)`);
      }
      found.push({
        name,
        encoding: "bitsandbytes LLM.int8",
        shape: [rows, cols],
        parts: companions.parts,
        cut: () => ({
          format: "int8-row-scb",
          async read(firstRow, count, [scales, codes], atRow) {
            await Promise.all([
              checkpoint.read(scale, firstRow * 4, scales.subarray(atRow * 4, (atRow + count) * 4)),
              readPaddedRows(checkpoint, tensor, cols, firstRow, count, codes, atRow),
            ]);
          },
        }),
      });
    }
    return found;
  },
};
