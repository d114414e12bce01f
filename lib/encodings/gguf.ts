/**
 * Quantized tensors of GGUF files (ggml-common.h). A block's small numbers lie with its codes there and mostly apart in extents; Q4_K, Q5_K and Q6_K are
 * kept block by block.
 * @module
 */
import type { Checkpoint, CheckpointTensor } from "../checkpoint/checkpoint.ts";
import type { PackedFormatName } from "../shard/packed_formats.ts";
import type { EncodedMatrix, EncodedTensor, Encoding } from "./encoding.ts";

/** How blocks of a type become one of a format. */
interface Layout {
  format: PackedFormatName;
  blockBytes: number;
  /** For each section of the format the ranges of a block that it holds, in order. */
  sections: readonly (readonly (readonly [from: number, to: number])[])[];
  /** Changes a block before it is cut up. */
  prepare?: (block: Uint8Array) => void;
}

const LAYOUTS: Readonly<Record<string, Layout>> = {
  Q4_0: { format: "int4-32-f16", blockBytes: 18, sections: [[[0, 2]], [[2, 18]]] },
  Q4_1: { format: "q4_1", blockBytes: 20, sections: [[[0, 4]], [[4, 20]]] },
  Q5_0: { format: "q5_0", blockBytes: 22, sections: [[[0, 2]], [[2, 6]], [[6, 22]]] },
  Q5_1: { format: "q5_1", blockBytes: 24, sections: [[[0, 4]], [[4, 8]], [[8, 24]]] },
  Q8_0: { format: "int8-32-f16", blockBytes: 34, sections: [[[0, 2]], [[2, 34]]] },
  IQ4_NL: { format: "iq4_nl", blockBytes: 18, sections: [[[0, 2]], [[2, 18]]] },
  MXFP4: { format: "mxfp4", blockBytes: 17, sections: [[[0, 1]], [[1, 17]]], prepare: withoutNegativeZeros },
  Q2_K: { format: "q2_k", blockBytes: 84, sections: [[[0, 16], [80, 84]], [[16, 80]]] },
  Q3_K: { format: "q3_k", blockBytes: 110, sections: [[[96, 110]], [[0, 32]], [[32, 96]]] },
  IQ4_XS: { format: "iq4_xs", blockBytes: 136, sections: [[[0, 8]], [[8, 136]]] },
  TQ1_0: { format: "tq2_0", blockBytes: 54, sections: [[[64, 66]], [[0, 64]]], prepare: ternaryInTwoBits },
  TQ2_0: { format: "tq2_0", blockBytes: 66, sections: [[[64, 66]], [[0, 64]]] },
  IQ2_XXS: { format: "iq2_xxs", blockBytes: 66, sections: [[[0, 2]], [[2, 66]]] },
  IQ2_XS: { format: "iq2_xs", blockBytes: 74, sections: [[[0, 2], [66, 74]], [[2, 66]]] },
  IQ2_S: { format: "iq2_s", blockBytes: 82, sections: [[[0, 2], [74, 82]], [[66, 74]], [[2, 66]]] },
  IQ3_XXS: { format: "iq3_xxs", blockBytes: 98, sections: [[[0, 2]], [[66, 98]], [[2, 66]]] },
  IQ3_S: { format: "iq3_s", blockBytes: 110, sections: [[[0, 2], [106, 110]], [[66, 106]], [[2, 66]]] },
  IQ1_S: { format: "iq1_s", blockBytes: 50, sections: [[[0, 2]], [[34, 50]], [[2, 34]]] },
  IQ1_M: { format: "iq1_m", blockBytes: 56, sections: [[[48, 56]], [[32, 48]], [[0, 32]]] },
  Q4_K: { format: "q4_k", blockBytes: 144, sections: [[[0, 144]]] },
  Q5_K: { format: "q5_k", blockBytes: 176, sections: [[[0, 176]]] },
  Q6_K: { format: "q6_k", blockBytes: 210, sections: [[[0, 210]]] },
};

/** ggml has no negative zero, for which MXFP4 elsewhere has code 8. */
function withoutNegativeZeros(block: Uint8Array): void {
  for (let i = 1; i < 17; i++) {
    if ((block[i] & 0x0f) === 0x08) block[i] &= 0xf0;
    if ((block[i] & 0xf0) === 0x80) block[i] &= 0x0f;
  }
}

/** Writes a block of TQ1_0, five values of three in a byte, as one of TQ2_0, in the 66 bytes from the block's start. */
function ternaryInTwoBits(block: Uint8Array): void {
  const digit = (byte: number, n: number) => ((byte * 3 ** n & 255) * 3) >> 8;
  const values = new Uint8Array(256), scale = block.slice(52, 54);
  for (let n = 0; n < 5; n++) {
    for (let i = 0; i < 32; i++) values[32 * n + i] = digit(block[i], n);
    for (let i = 0; i < 16; i++) values[160 + 16 * n + i] = digit(block[32 + i], n);
  }
  for (let n = 0; n < 4; n++) for (let i = 0; i < 4; i++) values[240 + 4 * n + i] = digit(block[48 + i], n);
  block.fill(0, 0, 64);
  values.forEach((value, i) => block[32 * (i >> 7) + i % 32] |= value << 2 * (i >> 5 & 3));
  block.set(scale, 64);
}

function cut(checkpoint: Checkpoint, tensor: CheckpointTensor, { format, blockBytes, sections, prepare }: Layout): EncodedMatrix {
  const rowBytes = tensor.shape[1], blocks = rowBytes / blockBytes;
  if (sections.length === 1) {
    return {
      format,
      read: (firstRow, rows, [into], atRow) =>
        checkpoint.read(tensor, firstRow * rowBytes, into.subarray(atRow * rowBytes, (atRow + rows) * rowBytes)),
    };
  }
  const sizes = sections.map((ranges) => ranges.reduce((sum, [from, to]) => sum + to - from, 0));
  const spareBytes = Math.max(blockBytes, ...sections.flat().map(([, to]) => to));
  return {
    format,
    async read(firstRow, rows, into, atRow) {
      const source = new Uint8Array(rows * rowBytes), spare = new Uint8Array(spareBytes);
      await checkpoint.read(tensor, firstRow * rowBytes, source);
      for (let index = 0; index < rows * blocks; index++) {
        let block = source.subarray(index * blockBytes, (index + 1) * blockBytes);
        if (prepare !== undefined) {
          spare.set(block);
          prepare(block = spare);
        }
        for (const [i, ranges] of sections.entries()) {
          let at = (atRow * blocks + index) * sizes[i];
          for (const [from, to] of ranges) for (let byte = from; byte < to; byte++) into[i][at++] = block[byte];
        }
      }
    },
  };
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
        cut: () => cut(checkpoint, tensor, LAYOUTS[type]),
      });
    }
    return Promise.resolve(found);
  },
};
