/**
 * GPTQ: `X.qweight` has words of 4- or 8-bit codes along the columns of the matrix, stored turned, [cols / 8, rows]; `X.qzeros` words of zero
 * points along its rows, each less one but in checkpoint_format `gptq_v2`; `X.scales` [groups, rows]; `X.g_idx` the group of each column, which
 * with `desc_act` is not their order. Source: AutoGPTQ's nn_modules/qlinear/qlinear_cuda.py, GPTQModel's convert_gptq_v1_to_v2_format_module.
 * @module
 */
import type { Checkpoint, CheckpointTensor } from "../checkpoint/checkpoint.ts";
import { UnsupportedError } from "../errors.ts";
import { readColumns, turn } from "./column_reads.ts";
import { groupOrder } from "./compressed_integers.ts";
import { Companions, type EncodedMatrix, type EncodedTensor, type Encoding } from "./encoding.ts";
import { codeRowBytes } from "./nibbles.ts";
import {
  groupColumns,
  groupSizeOf,
  integerFormat,
  type IntegerSections,
  integerSections,
  SCALE_TYPES,
  type ScaledIntegers,
} from "./scaled_integers.ts";

/** Settings of the whole checkpoint. */
interface Settings {
  bits: 4 | 8;
  /** Added to words of stored zero points: 1 for each, where one of 0 has borrowed from those above it. */
  zeroOffset: number;
  groupSize: number | undefined;
}

function parseSettings(checkpoint: Checkpoint, config: Record<string, unknown>): Settings {
  const { bits, dynamic } = config, format = config.checkpoint_format ?? config.format ?? "gptq";
  const refuse = (key: string, value: unknown, supported: string) =>
    new UnsupportedError(
      `Cannot use model ${checkpoint.path}: quantization_config has ${key} ${JSON.stringify(value)}, supported: ${supported}`,
    );
  if (bits !== 4 && bits !== 8) throw refuse("bits", bits, "4, 8");
  if (format !== "gptq" && format !== "gptq_v2") throw refuse("checkpoint_format", format, `"gptq", "gptq_v2"`);
  // Rules that begin with `-:` say what is not quantized, which the tensors say too.
  if (Object.keys(dynamic ?? {}).some((rule) => !rule.startsWith("-:"))) throw refuse("dynamic", dynamic, "rules of -: alone");
  const zeroOffset = format === "gptq_v2" ? 0 : bits === 4 ? 0x11111111 : 0x01010101;
  return { bits, zeroOffset, groupSize: groupSizeOf(checkpoint, config) };
}

/** The tensors of one matrix. */
interface Tensors {
  codes: CheckpointTensor;
  zeros: CheckpointTensor;
  scales: CheckpointTensor;
}

/** Writes the codes of word-row `word`, 8 or 4 columns of all `rows`. */
function unpackWords(words: Uint32Array, word: number, rows: number, bits: 4 | 8, cols: number, code: Uint8Array): void {
  if (bits === 8) {
    const rowBytes = Math.ceil(cols / 32) * 32;
    for (let row = 0; row < rows; row++) {
      const value = words[word * rows + row], at = row * rowBytes + word * 4;
      // An int8 code is the byte less 128.
      for (let i = 0; i < 4; i++) code[at + i] = (value >>> 8 * i & 255) ^ 128;
    }
    return;
  }
  const rowBytes = codeRowBytes(cols), col = word * 8, block = (col >> 5) * 16 + (col & 15), shift = col & 16 ? 4 : 0;
  for (let row = 0; row < rows; row++) {
    const value = words[word * rows + row], at = row * rowBytes + block;
    for (let i = 0; i < 8; i++) code[at + i] |= (value >>> 4 * i & 15) << shift;
  }
}

async function readZeros(
  checkpoint: Checkpoint,
  zeros: CheckpointTensor,
  { bits, zeroOffset }: Settings,
  firstRow: number,
  rows: number,
  into: IntegerSections["zero"],
): Promise<void> {
  const perWord = 32 / bits, groups = zeros.shape[0], first = Math.floor(firstRow / perWord);
  const count = Math.ceil((firstRow + rows) / perWord) - first;
  const words = new Uint32Array((await readColumns(checkpoint, zeros, 4, first, count)).buffer);
  // As int8 codes are stored less 128, so are their zero points.
  const offset = bits === 8 ? -128 : 0, mask = (1 << bits) - 1;
  for (let row = 0; row < rows; row++) {
    const at = firstRow + row, word = Math.floor(at / perWord) - first, shift = at % perWord * bits;
    for (let group = 0; group < groups; group++) {
      into[row * groups + group] = (words[group * count + word] + zeroOffset >>> shift & mask) + offset;
    }
  }
}

function cut(
  checkpoint: Checkpoint,
  { codes, zeros, scales }: Tensors,
  settings: Settings,
  format: ScaledIntegers,
): EncodedMatrix {
  const groups = scales.shape[0], scaleBytes = format.type === "f32" ? 4 : 2;
  const read: EncodedMatrix["read"] = async (firstRow, rows, sections, atRow) => {
    const into = integerSections(format, sections, atRow);
    const [words, scale] = await Promise.all([
      readColumns(checkpoint, codes, 4, firstRow, rows),
      readColumns(checkpoint, scales, scaleBytes, firstRow, rows),
      readZeros(checkpoint, zeros, settings, firstRow, rows, into.zero),
    ]);
    turn(scale, groups, rows, scaleBytes, into.scale);
    const values = new Uint32Array(words.buffer);
    for (let word = 0; word < codes.shape[0]; word++) unpackWords(values, word, rows, settings.bits, format.cols, into.code);
  };
  return { format: integerFormat(format), read };
}

/** GPTQ of 4 and 8 bits. */
export const GPTQ: Encoding = {
  methods: ["gptq"],
  async find(checkpoint, config) {
    const settings = parseSettings(checkpoint, config), { bits } = settings, perWord = 32 / bits;
    const found: EncodedTensor[] = [];
    for (const [key, codes] of checkpoint.tensors) {
      const [, module] = /^(.+)\.qweight$/.exec(key) ?? [];
      if (module === undefined) continue;
      const name = `${module}.weight`, companions = new Companions(checkpoint, name);
      companions.required(key, ["I32"]);
      if (codes.shape.length !== 2) throw companions.refuse(`has qweight [${codes.shape.join(", ")}], required two dimensions`);
      const rows = codes.shape[1], cols = codes.shape[0] * perWord;
      const scales = companions.required(`${module}.scales`, ["F16", "BF16", "F32"]), groups = scales.shape[0];
      companions.checked(scales, [scales.dtype], [groups, rows]);
      const zeros = companions.required(`${module}.qzeros`, ["I32"], [groups, Math.ceil(rows / perWord)]);
      const group = groupColumns(settings.groupSize, groups, cols, companions);
      const format: ScaledIntegers = { bits, cols, group, type: SCALE_TYPES[scales.dtype]!, zero: true };
      const order = companions.take(`${module}.g_idx`);
      if (order !== undefined) {
        companions.checked(order, ["I32"], [cols], ...(groups === 1 ? [[0]] : []));
        if (group !== 0) format.order = await groupOrder(companions, order, group);
      }
      // For long AutoGPTQ gave every layer a bias, of zeros where the model has none. Another must have its place in the model.
      const bias = checkpoint.tensors.get(`${module}.bias`);
      if (bias !== undefined && (await companions.read(bias)).every((byte) => byte === 0)) companions.parts.push(bias);
      found.push({
        name,
        encoding: `GPTQ int${bits}`,
        shape: [rows, cols],
        parts: companions.parts,
        cut: () => cut(checkpoint, { codes, zeros, scales }, settings, format),
      });
    }
    return found;
  },
};
