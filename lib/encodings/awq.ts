/**
 * AWQ, and of its version gemm: `X.qweight` [cols, rows / 8], `X.qzeros` [groups, rows / 8] have words of eight 4-bit codes along the rows of the matrix,
 * in the order 0 2 4 6 1 3 5 7; `X.scales` [groups, rows]. Source: AutoAWQ's awq/utils/packing_utils.py.
 * @module
 */
import type { Checkpoint, CheckpointTensor } from "../checkpoint/checkpoint.ts";
import { UnsupportedError } from "../errors.ts";
import { gemvMatrix } from "./awq_gemv.ts";
import { readColumns, turn } from "./column_reads.ts";
import { Companions, type EncodedMatrix, type EncodedTensor, type Encoding } from "./encoding.ts";
import { codeRowBytes } from "./nibbles.ts";
import {
  groupColumns,
  groupSizeOf,
  integerFormat,
  integerSections,
  SCALE_TYPES,
  type ScaledIntegers,
} from "./scaled_integers.ts";

/** Which of a word's eight rows its i-th nibble belongs to. */
const ROW_OF_NIBBLE = [0, 2, 4, 6, 1, 3, 5, 7];

/** The tensors of one matrix. */
interface Tensors {
  codes: CheckpointTensor;
  zeros: CheckpointTensor;
  scales: CheckpointTensor;
}

function cut(checkpoint: Checkpoint, { codes, zeros, scales }: Tensors, format: ScaledIntegers): EncodedMatrix {
  const { cols, type } = format, groups = scales.shape[0], scaleBytes = type === "f32" ? 4 : 2, rowBytes = codeRowBytes(cols);
  const read: EncodedMatrix["read"] = async (firstRow, rows, sections, atRow) => {
    const into = integerSections(format, sections, atRow);
    const first = Math.floor(firstRow / 8), count = Math.ceil((firstRow + rows) / 8) - first;
    const [codeWords, zeroWords, scale] = await Promise.all([
      readColumns(checkpoint, codes, 4, first, count),
      readColumns(checkpoint, zeros, 4, first, count),
      readColumns(checkpoint, scales, scaleBytes, firstRow, rows),
    ]);
    turn(scale, groups, rows, scaleBytes, into.scale);
    /** Calls set(row, line, code) for every code of `lines` of words. */
    const unpack = (bytes: Uint8Array<ArrayBuffer>, lines: number, set: (row: number, line: number, code: number) => void) => {
      const words = new Uint32Array(bytes.buffer);
      for (let word = 0; word < count; word++) {
        for (let i = 0; i < 8; i++) {
          const row = (first + word) * 8 + ROW_OF_NIBBLE[i] - firstRow;
          if (row < 0 || row >= rows) continue;
          for (let line = 0; line < lines; line++) set(row, line, words[line * count + word] >>> 4 * i & 15);
        }
      }
    };
    unpack(codeWords, cols, (row, col, code) => {
      into.code[row * rowBytes + (col >> 5) * 16 + (col & 15)] |= col & 16 ? code << 4 : code;
    });
    unpack(zeroWords, groups, (row, group, zero) => into.zero[row * groups + group] = zero);
  };
  return { format: integerFormat(format), read };
}

/** AWQ of 4 bits. */
export const AWQ: Encoding = {
  methods: ["awq"],
  find(checkpoint, config) {
    const { bits = config.w_bit, zero_point: zeroPoint = true } = config;
    // AutoAWQ's key, and those of GPTQModel.
    const version = config.version ?? config.checkpoint_format ?? config.format ?? "gemm", layout = `${version}`.toLowerCase();
    if (bits !== 4 || layout !== "gemm" && layout !== "gemv" || zeroPoint !== true) {
      throw new UnsupportedError(
        `Cannot use model ${checkpoint.path}: quantization_config has bits ${JSON.stringify(bits)}, version ${
          JSON.stringify(version)
        }, ` +
          `zero_point ${JSON.stringify(zeroPoint)}, supported: 4, "gemm" or "gemv", true`,
      );
    }
    const groupSize = groupSizeOf(checkpoint, config), found: EncodedTensor[] = [];
    for (const [key, codes] of checkpoint.tensors) {
      const [, module] = /^(.+)\.qweight$/.exec(key) ?? [];
      if (module === undefined) continue;
      if (layout === "gemv") {
        found.push(gemvMatrix(checkpoint, module, groupSize));
        continue;
      }
      const name = `${module}.weight`, companions = new Companions(checkpoint, name);
      companions.required(key, ["I32"]);
      if (codes.shape.length !== 2) throw companions.refuse(`has qweight [${codes.shape.join(", ")}], required two dimensions`);
      const cols = codes.shape[0], rows = codes.shape[1] * 8;
      const scales = companions.required(`${module}.scales`, ["F16", "BF16", "F32"]), groups = scales.shape[0];
      companions.checked(scales, [scales.dtype], [groups, rows]);
      const zeros = companions.required(`${module}.qzeros`, ["I32"], [groups, codes.shape[1]]);
      const group = groupColumns(groupSize, groups, cols, companions);
      const format: ScaledIntegers = { bits: 4, cols, group, type: SCALE_TYPES[scales.dtype]!, zero: true };
      found.push({
        name,
        encoding: "AWQ int4",
        shape: [rows, cols],
        parts: companions.parts,
        cut: () => cut(checkpoint, { codes, zeros, scales }, format),
      });
    }
    return Promise.resolve(found);
  },
};
