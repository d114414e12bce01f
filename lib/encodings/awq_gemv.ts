/**
 * AWQ of version gemv: `X.qweight` [rows, cols / 8] and `X.qzeros` [rows, words] have words of eight 4-bit codes along the columns and groups, in
 * their order; `X.scales` [rows, words * 8] is as wide as the zero points, whose words are padded. Source: AutoAWQ's awq/modules/linear/gemv.py.
 * @module
 */
import type { Checkpoint } from "../checkpoint/checkpoint.ts";
import { Companions, type EncodedMatrix, type EncodedTensor } from "./encoding.ts";
import { codeRowBytes, fromLowFirst } from "./nibbles.ts";
import { groupColumns, integerFormat, integerSections, SCALE_TYPES, type ScaledIntegers } from "./scaled_integers.ts";

/** Returns a matrix. @param groupSize What the config says. */
export function gemvMatrix(checkpoint: Checkpoint, module: string, groupSize: number | undefined): EncodedTensor {
  const name = `${module}.weight`, companions = new Companions(checkpoint, name);
  const codes = companions.required(`${module}.qweight`, ["I32"]);
  if (codes.shape.length !== 2) throw companions.refuse(`has qweight [${codes.shape.join(", ")}], required two dimensions`);
  const [rows, colWords] = codes.shape, cols = colWords * 8;
  // Padding leaves nothing but the config to say how many groups there are.
  if (groupSize === undefined) {
    throw companions.unsupported("is of AWQ gemv, for which quantization_config must have a group_size");
  }
  const groups = groupSize > 0 ? Math.ceil(cols / groupSize) : 1, group = groupColumns(groupSize, groups, cols, companions);
  const zeros = companions.required(`${module}.qzeros`, ["I32"]), words = zeros.shape.at(-1)!;
  if (zeros.shape.length !== 2 || zeros.shape[0] !== rows || words * 8 < groups) {
    throw companions.refuse(`has qzeros [${zeros.shape.join(", ")}], required [${rows}, words of 8 of ${groups} zero points]`);
  }
  const scales = companions.required(`${module}.scales`, ["F16", "BF16", "F32"], [rows, words * 8]);
  const format: ScaledIntegers = { bits: 4, cols, group, type: SCALE_TYPES[scales.dtype]!, zero: true };
  const read: EncodedMatrix["read"] = async (firstRow, count, sections, atRow) => {
    const into = integerSections(format, sections, atRow), scaleBytes = format.type === "f32" ? 4 : 2;
    const packed = new Uint8Array(count * colWords * 4), zeroBytes = new Uint8Array(count * words * 4);
    const wide = new Uint8Array(count * words * 8 * scaleBytes), rowBytes = codeRowBytes(cols);
    await Promise.all([
      checkpoint.read(codes, firstRow * colWords * 4, packed),
      checkpoint.read(zeros, firstRow * words * 4, zeroBytes),
      checkpoint.read(scales, firstRow * words * 8 * scaleBytes, wide),
    ]);
    for (let row = 0; row < count; row++) {
      const from = row * words * 8 * scaleBytes;
      into.scale.set(wide.subarray(from, from + groups * scaleBytes), row * groups * scaleBytes);
      for (let i = 0; i < groups; i++) {
        into.zero[row * groups + i] = zeroBytes[row * words * 4 + (i >> 1)] >> 4 * (i & 1) & 15;
      }
      const line = packed.subarray(row * cols / 2, (row + 1) * cols / 2);
      fromLowFirst(line, cols, into.code.subarray(row * rowBytes, (row + 1) * rowBytes));
    }
  };
  return {
    name,
    encoding: "AWQ int4",
    shape: [rows, cols],
    parts: companions.parts,
    cut: () => ({ format: integerFormat(format), read }),
  };
}
