/**
 * Integer weights of compressed-tensors: `pack-quantized` (`X.weight_packed`, int32 words of 4- or 8-bit codes along a row, the first element
 * lowest, each code plus half its range) and `int-quantized` (`X.weight` int8). Source: compressors/pack_quantized and naive_quantized.
 * @module
 */
import type { Checkpoint, CheckpointTensor } from "../checkpoint/checkpoint.ts";
import type { WeightScheme } from "./compressed_tensors.ts";
import { Companions, type EncodedMatrix, type EncodedTensor } from "./encoding.ts";
import { codeRowBytes, fromLowFirst } from "./nibbles.ts";
import { readPaddedRows } from "./padded_rows.ts";
import { groupsOf, integerFormat, integerSections, isGroupSize, SCALE_TYPES, type ScaledIntegers } from "./scaled_integers.ts";

/** Returns the scheme of integer weights of so many bits. */
function schemeOf(schemes: readonly WeightScheme[], bits: number, companions: Companions): WeightScheme {
  const scheme = schemes.find((one) => one.type === "int" && one.bits === bits);
  if (scheme === undefined) {
    throw companions.refuse(`has integer weights of ${bits} bits, which no scheme of quantization_config has`);
  }
  if (scheme.strategy === "block" || scheme.strategy === "tensor_group") {
    throw companions.unsupported(`has integer weights by ${scheme.strategy}, supported are tensor, channel, group`);
  }
  return scheme;
}

/** The scales of a matrix: a group's, a row's, or one for all. */
interface Scales {
  tensor: CheckpointTensor;
  format: ScaledIntegers;
  /** Whether all rows share the one there is. */
  single: boolean;
}

function scalesOf(companions: Companions, module: string, scheme: WeightScheme, bits: 4 | 8, rows: number, cols: number): Scales {
  const group = scheme.strategy === "group" ? scheme.groupSize : 0, single = scheme.strategy === "tensor";
  if (group !== 0 && !isGroupSize(group)) {
    throw companions.unsupported(`has groups of ${group} columns, supported are powers of two from 32 to 65536`);
  }
  const groups = group === 0 ? 1 : Math.ceil(cols / group);
  const shapes = single ? [[], [1], [1, 1]] : [[rows, groups], ...(groups === 1 ? [[rows]] : [])];
  const tensor = companions.required(`${module}.weight_scale`, ["F32", "F16", "BF16"], ...shapes);
  return { tensor, single, format: { bits, cols, group, type: SCALE_TYPES[tensor.dtype]!, zero: !scheme.symmetric } };
}

/** Reads the scales of rows into an extent. */
async function readScales(
  checkpoint: Checkpoint,
  { tensor, format, single }: Scales,
  firstRow: number,
  rows: number,
  into: Uint8Array,
) {
  const rowBytes = groupsOf(format) * (format.type === "f32" ? 4 : 2);
  if (!single) return await checkpoint.read(tensor, firstRow * rowBytes, into.subarray(0, rows * rowBytes));
  await checkpoint.read(tensor, 0, into.subarray(0, rowBytes));
  for (let row = 1; row < rows; row++) into.copyWithin(row * rowBytes, 0, rowBytes);
}

/** Returns a matrix of `pack-quantized`. */
export async function packedIntegers(
  checkpoint: Checkpoint,
  module: string,
  schemes: readonly WeightScheme[],
): Promise<EncodedTensor> {
  const name = `${module}.weight`, companions = new Companions(checkpoint, name);
  const packed = companions.required(`${module}.weight_packed`, ["I32"]);
  const shapeTensor = companions.required(`${module}.weight_shape`, ["I64", "I32"], [2]);
  const shapeBytes = await companions.read(shapeTensor);
  const [rows, cols] = shapeTensor.dtype === "I32"
    ? new Int32Array(shapeBytes.buffer)
    : Array.from(new BigInt64Array(shapeBytes.buffer), Number);
  const bits = ([4, 8] as const).find((bits) => packed.shape.length === 2 && packed.shape[1] === Math.ceil(cols * bits / 32));
  if (!(rows > 0 && cols > 0) || packed.shape[0] !== rows || bits === undefined) {
    throw companions.unsupported(
      `has weight_packed [${
        packed.shape.join(", ")
      }] for [${rows}, ${cols}], supported are words of 4- or 8-bit codes along rows`,
    );
  }
  const scheme = schemeOf(schemes, bits, companions), scales = scalesOf(companions, module, scheme, bits, rows, cols);
  const { format } = scales, groups = groupsOf(format), words = packed.shape[1];
  const perWord = 32 / bits, half = 1 << (bits - 1);
  const zero = scheme.symmetric
    ? undefined
    : scales.single
    ? companions.required(`${module}.weight_zero_point`, ["I8"], [1], [])
    : companions.required(`${module}.weight_zero_point`, ["I32"], [Math.ceil(rows / perWord), groups]);
  const order = companions.take(`${module}.weight_g_idx`);
  if (order !== undefined) {
    companions.checked(order, ["I32"], [cols]);
    format.order = await groupOrder(companions, order, format.group || cols);
  }
  const read: EncodedMatrix["read"] = async (firstRow, count, sections, atRow) => {
    const into = integerSections(format, sections, atRow);
    const codes = new Uint8Array(count * words * 4);
    await Promise.all([
      readScales(checkpoint, scales, firstRow, count, into.scale),
      checkpoint.read(packed, firstRow * words * 4, codes),
      zero === undefined ? undefined : readZeros(checkpoint, zero, scales, bits, firstRow, count, into.zero),
    ]);
    const rowBytes = bits === 4 ? codeRowBytes(cols) : Math.ceil(cols / 32) * 32;
    for (let row = 0; row < count; row++) {
      const from = codes.subarray(row * words * 4, (row + 1) * words * 4),
        to = into.code.subarray(row * rowBytes, (row + 1) * rowBytes);
      if (bits === 4) fromLowFirst(from, cols, to);
      else for (let col = 0; col < cols; col++) to[col] = from[col] - half;
    }
  };
  return {
    name,
    encoding: `compressed-tensors int${bits}`,
    shape: [rows, cols],
    parts: companions.parts,
    cut: () => ({ format: integerFormat(format), read }),
  };
}

/** Zero points are packed along columns of the scales: word r holds those of rows r * perWord and on, each plus half its range. */
async function readZeros(
  checkpoint: Checkpoint,
  zero: CheckpointTensor,
  { format, single }: Scales,
  bits: 4 | 8,
  firstRow: number,
  rows: number,
  into: Uint8Array | Int16Array,
): Promise<void> {
  const groups = groupsOf(format), perWord = 32 / bits, half = 1 << (bits - 1);
  // Codes of int4 are stored plus half their range, of int8 without.
  const offset = bits === 4 ? 0 : half;
  if (single) {
    const one = new Uint8Array(1);
    await checkpoint.read(zero, 0, one);
    into.fill((one[0] << 24 >> 24) + half - offset, 0, rows * groups);
    return;
  }
  const first = Math.floor(firstRow / perWord), end = Math.ceil((firstRow + rows) / perWord);
  const words = new Uint32Array((end - first) * groups);
  await checkpoint.read(zero, first * groups * 4, new Uint8Array(words.buffer));
  for (let row = 0; row < rows; row++) {
    const line = (Math.floor((firstRow + row) / perWord) - first) * groups, shift = (firstRow + row) % perWord * bits;
    for (let group = 0; group < groups; group++) {
      into[row * groups + group] = (words[line + group] >>> shift & (2 * half - 1)) - offset;
    }
  }
}

/** Returns the group of each column, or undefined where columns are grouped in their order, `size` to a group. */
export async function groupOrder(
  companions: Companions,
  tensor: CheckpointTensor,
  size: number,
): Promise<Uint16Array<ArrayBuffer> | undefined> {
  const order = new Int32Array((await companions.read(tensor)).buffer), groups = Math.ceil(order.length / size);
  const wrong = order.find((group) => group < 0 || group >= groups);
  if (wrong !== undefined) {
    throw companions.refuse(`has group ${wrong} in ${JSON.stringify(tensor.name)}, required 0 to ${groups - 1}`);
  }
  return order.every((group, col) => group === Math.floor(col / size)) ? undefined : Uint16Array.from(order);
}

/** Returns a matrix of `int-quantized`: int8 with a scale for each row, group or tensor. */
export function compressedInt8(checkpoint: Checkpoint, module: string, schemes: readonly WeightScheme[]): EncodedTensor {
  const name = `${module}.weight`, companions = new Companions(checkpoint, name);
  const codes = companions.required(name, ["I8"]);
  if (codes.shape.length !== 2) throw companions.refuse(`has shape [${codes.shape.join(", ")}], required [rows, cols]`);
  const [rows, cols] = codes.shape, scheme = schemeOf(schemes, 8, companions);
  const scales = scalesOf(companions, module, scheme, 8, rows, cols), groups = groupsOf(scales.format);
  const zero = scheme.symmetric ? undefined : companions.required(`${module}.weight_zero_point`, ["I8"], scales.tensor.shape);
  companions.take(`${module}.input_scale`);
  companions.take(`${module}.input_zero_point`);
  const read: EncodedMatrix["read"] = async (firstRow, count, sections, atRow) => {
    const into = integerSections(scales.format, sections, atRow);
    const zeros = new Int8Array(zero === undefined ? 0 : scales.single ? 1 : count * groups);
    await Promise.all([
      readScales(checkpoint, scales, firstRow, count, into.scale),
      readPaddedRows(checkpoint, codes, cols, firstRow, count, sections.at(-1)!, atRow),
      zero === undefined ? undefined : checkpoint.read(zero, scales.single ? 0 : firstRow * groups, new Uint8Array(zeros.buffer)),
    ]);
    if (zero !== undefined) { for (let i = 0; i < count * groups; i++) into.zero[i] = zeros[scales.single ? 0 : i]; }
  };
  return {
    name,
    encoding: "compressed-tensors int8",
    shape: [rows, cols],
    parts: companions.parts,
    cut: () => ({ format: integerFormat(scales.format), read }),
  };
}
