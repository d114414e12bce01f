/**
 * Quantized tensors of GGUF files (ggml-common.h). Q4_0, Q8_0 and IQ4_NL keep a float16 scale in each block of 32, which extents have apart; the
 * K-quants are kept block by block.
 * @module
 */
import type { Checkpoint, CheckpointTensor } from "../checkpoint/checkpoint.ts";
import type { PackedFormatName } from "../shard/packed_formats.ts";
import type { EncodedMatrix, EncodedTensor, Encoding } from "./encoding.ts";

const FORMATS: Readonly<Record<string, PackedFormatName>> = {
  Q4_0: "int4-32-f16",
  Q8_0: "int8-32-f16",
  IQ4_NL: "iq4_nl",
  Q4_K: "q4_k",
  Q5_K: "q5_k",
  Q6_K: "q6_k",
};

function cut(checkpoint: Checkpoint, tensor: CheckpointTensor, type: string): EncodedMatrix {
  const rowBytes = tensor.shape[1], format = FORMATS[type];
  const whole: EncodedMatrix["read"] = (firstRow, rows, [blocks], atRow) =>
    checkpoint.read(tensor, firstRow * rowBytes, blocks.subarray(atRow * rowBytes, (atRow + rows) * rowBytes));
  // A block is a scale and then 16 or 32 bytes of codes, which are in the extent's order already.
  const codeBytes = type === "Q8_0" ? 32 : 16, blockBytes = 2 + codeBytes, blocks = rowBytes / blockBytes;
  const apart: EncodedMatrix["read"] = async (firstRow, rows, [scales, codes], atRow) => {
    const source = new Uint8Array(rows * rowBytes);
    await checkpoint.read(tensor, firstRow * rowBytes, source);
    for (let block = 0; block < rows * blocks; block++) {
      const from = block * blockBytes, to = atRow * blocks + block;
      scales[2 * to] = source[from];
      scales[2 * to + 1] = source[from + 1];
      codes.set(source.subarray(from + 2, from + blockBytes), to * codeBytes);
    }
  };
  return { format, read: type.endsWith("_K") ? whole : apart };
}

/** GGUF's quantized types. */
export const GGUF: Encoding = {
  methods: ["gguf"],
  find(checkpoint) {
    const found: EncodedTensor[] = [];
    for (const tensor of checkpoint.tensors.values()) {
      if (tensor.ggml === undefined) continue;
      const { type, cols } = tensor.ggml;
      found.push({
        name: tensor.name,
        encoding: `GGUF ${type}`,
        shape: [tensor.shape[0], cols],
        parts: [tensor],
        cut: () => cut(checkpoint, tensor, type),
      });
    }
    return Promise.resolve(found);
  },
};
