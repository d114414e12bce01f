/**
 * Matrices in GPTQ's layout: `X.qweight` is a stream of codes along the columns of the matrix, stored turned, [words, rows]; `X.qzeros` one of zero
 * points along its rows, [groups, words]; `X.scales` [groups, rows]; `X.g_idx` the group of each column, which with `desc_act` is not their order.
 * Source: AutoGPTQ's nn_modules/qlinear/qlinear_cuda.py, GPTQModel's nn_modules/qlinear.
 * @module
 */
import type { Checkpoint, CheckpointTensor } from "../checkpoint/checkpoint.ts";
import { streamCode, streamWords } from "./bit_stream.ts";
import { readColumns, turn } from "./column_reads.ts";
import { groupOrder } from "./compressed_integers.ts";
import { Companions, type EncodedMatrix, type EncodedTensor } from "./encoding.ts";
import { codeRowBytes, setCode } from "./nibbles.ts";
import {
  groupColumns,
  integerFormat,
  type IntegerSections,
  integerSections,
  SCALE_TYPES,
  type ScaledIntegers,
} from "./scaled_integers.ts";

/** How zero points of so many bits are stored. */
export interface ZeroPoints {
  /** Added to words of them: 1 for each, where one of 0 has borrowed from those above it. */
  word: number;
  /** Added to each. */
  own: number;
  /** Whether the sum wraps to the bits there are. */
  wraps: boolean;
}

/** Settings of a whole checkpoint. */
export interface GptqSettings {
  /** Name of the encoding, for people. */
  label: string;
  /** Bits that its matrices may have, those of most first. */
  bits: readonly number[];
  /** Columns that may share a scale; undefined where the tensors alone say it. */
  groupSizes: readonly (number | undefined)[];
  zeroPoints(bits: number): ZeroPoints;
}

/** The tensors of one matrix. */
interface Tensors {
  codes: CheckpointTensor;
  zeros: CheckpointTensor;
  scales: CheckpointTensor;
}

/** What a code is less in an extent than in the file: int8 keeps 8 bits as a signed byte. */
function codeOffset(bits: number): number {
  return bits === 8 ? 128 : 0;
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

/** Writes the codes of all `rows`, of bits that do not fill words, into a format of more. */
function unpackStream(words: Uint32Array, rows: number, bits: number, cols: number, code: Uint8Array): void {
  const rowBytes = bits < 4 ? codeRowBytes(cols) : Math.ceil(cols / 32) * 32;
  for (let row = 0; row < rows; row++) {
    const into = code.subarray(row * rowBytes, (row + 1) * rowBytes);
    for (let col = 0; col < cols; col++) {
      const value = streamCode(words, row, rows, col, bits);
      if (bits < 4) setCode(into, col, value);
      else into[col] = value;
    }
  }
}

async function readZeros(
  checkpoint: Checkpoint,
  zeros: CheckpointTensor,
  bits: number,
  { word: wordOffset, own, wraps }: ZeroPoints,
  firstRow: number,
  rows: number,
  into: IntegerSections["zero"],
): Promise<void> {
  // So many words hold a whole number of codes, 32.
  const groups = zeros.shape[0], first = Math.floor(firstRow * bits / 32), start = first - first % bits;
  const count = streamWords(firstRow + rows, bits) - start;
  const words = new Uint32Array((await readColumns(checkpoint, zeros, 4, start, count)).buffer);
  if (wordOffset !== 0) { for (let i = 0; i < words.length; i++) words[i] += wordOffset; }
  const mask = (1 << bits) - 1, offset = codeOffset(bits);
  for (let row = 0; row < rows; row++) {
    for (let group = 0; group < groups; group++) {
      const value = streamCode(words, group * count, 1, firstRow + row - start * 32 / bits, bits) + own;
      into[row * groups + group] = (wraps ? value & mask : value) - offset;
    }
  }
}

function cut(
  checkpoint: Checkpoint,
  tensors: Tensors,
  bits: number,
  zeroPoints: ZeroPoints,
  format: ScaledIntegers,
): EncodedMatrix {
  const { codes, zeros, scales } = tensors, groups = scales.shape[0], scaleBytes = format.type === "f32" ? 4 : 2;
  const read: EncodedMatrix["read"] = async (firstRow, rows, sections, atRow) => {
    const into = integerSections(format, sections, atRow);
    const [words, scale] = await Promise.all([
      readColumns(checkpoint, codes, 4, firstRow, rows),
      readColumns(checkpoint, scales, scaleBytes, firstRow, rows),
      readZeros(checkpoint, zeros, bits, zeroPoints, firstRow, rows, into.zero),
    ]);
    turn(scale, groups, rows, scaleBytes, into.scale);
    const values = new Uint32Array(words.buffer);
    if (bits !== 4 && bits !== 8) unpackStream(values, rows, bits, format.cols, into.code);
    else for (let word = 0; word < codes.shape[0]; word++) unpackWords(values, word, rows, bits, format.cols, into.code);
  };
  return { format: integerFormat(format), read };
}

/**
 * Returns the bits of a matrix: those of which its zero points take as many words as there are.
 * @throws {FormatError} where none do.
 */
function bitsOf(settings: GptqSettings, zeros: CheckpointTensor, rows: number, companions: Companions): number {
  const bits = settings.bits.find((bits) => streamWords(rows, bits) === zeros.shape[1]);
  if (bits !== undefined) return bits;
  throw companions.refuse(
    `has qzeros [${zeros.shape.join(", ")}] for ${rows} rows, required ${
      settings.bits.map((bits) => `[.., ${streamWords(rows, bits)}] (${bits} bits)`).join(" or ")
    }`,
  );
}

/** Returns which of the sizes that groups may have gives so many of them. */
function groupSizeOf(settings: GptqSettings, groups: number, cols: number): number | undefined {
  const { groupSizes } = settings;
  const fits = (size: number | undefined) =>
    size === undefined || (size <= 0 || size >= cols ? 1 : Math.ceil(cols / size)) === groups;
  return groupSizes.some(fits) ? groupSizes.find(fits) : groupSizes[0];
}

async function matrixOf(
  checkpoint: Checkpoint,
  settings: GptqSettings,
  module: string,
  codes: CheckpointTensor,
): Promise<EncodedTensor> {
  const name = `${module}.weight`, companions = new Companions(checkpoint, name);
  companions.required(codes.name, ["I32"]);
  if (codes.shape.length !== 2) throw companions.refuse(`has qweight [${codes.shape.join(", ")}], required two dimensions`);
  const rows = codes.shape[1];
  const scales = companions.required(`${module}.scales`, ["F16", "BF16", "F32"]), groups = scales.shape[0];
  companions.checked(scales, [scales.dtype], [groups, rows]);
  const zeros = companions.required(`${module}.qzeros`, ["I32"]), bits = bitsOf(settings, zeros, rows, companions);
  companions.checked(zeros, ["I32"], [groups, streamWords(rows, bits)]);
  const cols = Math.floor(codes.shape[0] * 32 / bits);
  const group = groupColumns(groupSizeOf(settings, groups, cols), groups, cols, companions);
  const format: ScaledIntegers = { bits: bits <= 4 ? 4 : 8, cols, group, type: SCALE_TYPES[scales.dtype]!, zero: true };
  const order = companions.take(`${module}.g_idx`);
  if (order !== undefined) {
    companions.checked(order, ["I32"], [cols], ...(groups === 1 ? [[0]] : []));
    if (group !== 0) format.order = await groupOrder(companions, order, group);
  }
  // For long AutoGPTQ gave every layer a bias, of zeros where the model has none. Another must have its place in the model.
  const bias = checkpoint.tensors.get(`${module}.bias`);
  if (bias !== undefined && (await companions.read(bias)).every((byte) => byte === 0)) companions.parts.push(bias);
  return {
    name,
    encoding: `${settings.label} int${bits}`,
    shape: [rows, cols],
    parts: companions.parts,
    cut: () => cut(checkpoint, { codes, zeros, scales }, bits, settings.zeroPoints(bits), format),
  };
}

/** Returns a checkpoint's matrices in GPTQ's layout. */
export async function gptqMatrices(checkpoint: Checkpoint, settings: GptqSettings): Promise<EncodedTensor[]> {
  const found: EncodedTensor[] = [];
  for (const [key, codes] of checkpoint.tensors) {
    const [, module] = /^(.+)\.qweight$/.exec(key) ?? [];
    if (module !== undefined) found.push(await matrixOf(checkpoint, settings, module, codes));
  }
  return found;
}
