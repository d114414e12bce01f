/**
 * Integer weights of compressed-tensors: `pack-quantized` (`X.weight_packed`, a stream of 2- to 8-bit codes in int32 words along a row, the first
 * element lowest, each code plus half its range) and `int-quantized` (`X.weight` int8). Source: compressors/pack_quantized and naive_quantized.
 * @module
 */
import type { Checkpoint, CheckpointTensor } from "../checkpoint/checkpoint.ts";
import { streamCode, streamWords } from "./bit_stream.ts";
import type { WeightScheme } from "./compressed_tensors.ts";
import { Companions, type EncodedMatrix, type EncodedTensor } from "./encoding.ts";
import { codeRowBytes, fromLowFirst, setCode } from "./nibbles.ts";
import { readPaddedRows } from "./padded_rows.ts";
import { groupsOf, integerFormat, integerSections, isGroupSize, SCALE_TYPES, type ScaledIntegers } from "./scaled_integers.ts";

/** Bits of codes in words. */
const PACKED_BITS = [2, 3, 4, 5, 6, 7, 8];

/** The scales of a matrix: a group's, a row's, or one for all. */
interface Scales {
  tensor: CheckpointTensor;
  format: ScaledIntegers;
  /** Whether all rows share the one there is. */
  single: boolean;
}

/** Returns the shapes that scales of a scheme may have. */
function scaleShapes({ strategy, groupSize }: WeightScheme, rows: number, cols: number): number[][] {
  if (strategy === "tensor") return [[], [1], [1, 1]];
  const groups = strategy === "group" && groupSize !== 0 ? Math.ceil(cols / groupSize) : 1;
  return [[rows, groups], ...(groups === 1 ? [[rows]] : [])];
}

/** Returns the scales of a matrix by one of the schemes: of several, that which its scales have the shape of. */
function scalesOf(
  companions: Companions,
  module: string,
  schemes: readonly WeightScheme[],
  bits: number | undefined,
  [rows, cols]: [number, number],
): Scales & { scheme: WeightScheme } {
  const { tensors } = companions, symmetric = !tensors.has(`${module}.weight_zero_point`);
  const fitting = schemes.filter((one) => one.type === "int" && (bits === undefined ? one.bits <= 8 : one.bits === bits));
  if (fitting.length === 0) {
    throw companions.refuse(`has integer weights of ${bits ?? 8} bits, which no scheme of quantization_config has`);
  }
  const shape = `${tensors.get(`${module}.weight_scale`)?.shape}`;
  const scheme =
    fitting.find((one) => one.symmetric === symmetric && scaleShapes(one, rows, cols).some((fit) => `${fit}` === shape)) ??
      fitting[0];
  if (scheme.strategy === "block" || scheme.strategy === "tensor_group") {
    throw companions.unsupported(`has integer weights by ${scheme.strategy}, supported are tensor, channel, group`);
  }
  const group = scheme.strategy === "group" ? scheme.groupSize : 0;
  if (group !== 0 && !isGroupSize(group)) {
    throw companions.unsupported(`has groups of ${group} columns, supported are powers of two from 32 to 65536`);
  }
  const tensor = companions.required(`${module}.weight_scale`, ["F32", "F16", "BF16"], ...scaleShapes(scheme, rows, cols));
  const format: ScaledIntegers = {
    ...{ bits: bits !== undefined && bits <= 4 ? 4 : 8, cols, group, type: SCALE_TYPES[tensor.dtype]! },
    zero: !scheme.symmetric,
  };
  return { tensor, single: scheme.strategy === "tensor", format, scheme };
}

/** What a stored code, which is its value plus half its range, is less in an extent: int4 keeps it plus 8, int8 as it is. */
function codeOffset(bits: number): number {
  const half = 1 << (bits - 1);
  return bits <= 4 ? half - 8 : half;
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
  const isPacked = packed.shape.length === 2 && packed.shape[0] === rows && rows > 0 && cols > 0;
  // As many words as there are, of a scheme's bits before any others.
  const bits = [...schemes.map((one) => one.bits), ...PACKED_BITS].find((bits) =>
    PACKED_BITS.includes(bits) && isPacked && packed.shape[1] === streamWords(cols, bits)
  );
  if (bits === undefined) {
    throw companions.unsupported(
      `has weight_packed [${
        packed.shape.join(", ")
      }] for [${rows}, ${cols}], supported are words of 2- to 8-bit codes along rows`,
    );
  }
  const scales = scalesOf(companions, module, schemes, bits, [rows, cols]), { format, scheme } = scales;
  const groups = groupsOf(format), words = packed.shape[1], offset = codeOffset(bits);
  const zero = scheme.symmetric
    ? undefined
    : scales.single
    ? companions.required(`${module}.weight_zero_point`, ["I8"], [1], [])
    : companions.required(`${module}.weight_zero_point`, ["I32"], [streamWords(rows, bits), groups]);
  const order = companions.take(`${module}.weight_g_idx`);
  if (order !== undefined) {
    companions.checked(order, ["I32"], [cols]);
    format.order = await groupOrder(companions, order, format.group || cols);
  } else if (scheme.ordered) throw companions.refuse(`has actorder "group" but no weight_g_idx, which says the columns' groups`);
  const read: EncodedMatrix["read"] = async (firstRow, count, sections, atRow) => {
    const into = integerSections(format, sections, atRow);
    const codes = new Uint8Array(count * words * 4);
    await Promise.all([
      readScales(checkpoint, scales, firstRow, count, into.scale),
      checkpoint.read(packed, firstRow * words * 4, codes),
      zero === undefined ? undefined : readZeros(checkpoint, zero, scales, bits, firstRow, count, into.zero),
    ]);
    const rowBytes = bits <= 4 ? codeRowBytes(cols) : Math.ceil(cols / 32) * 32, stream = new Uint32Array(codes.buffer);
    for (let row = 0; row < count; row++) {
      const to = into.code.subarray(row * rowBytes, (row + 1) * rowBytes);
      if (bits === 4) fromLowFirst(codes.subarray(row * words * 4, (row + 1) * words * 4), cols, to);
      else {
        for (let col = 0; col < cols; col++) {
          const code = streamCode(stream, row * words, 1, col, bits) - offset;
          if (bits < 4) setCode(to, col, code);
          else to[col] = code;
        }
      }
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

/** Zero points are streams along the columns of the scales, each plus half its range. */
async function readZeros(
  checkpoint: Checkpoint,
  zero: CheckpointTensor,
  { format, single }: Scales,
  bits: number,
  firstRow: number,
  rows: number,
  into: Uint8Array | Int16Array,
): Promise<void> {
  const groups = groupsOf(format), offset = codeOffset(bits);
  if (single) {
    const one = new Uint8Array(1);
    await checkpoint.read(zero, 0, one);
    into.fill((one[0] << 24 >> 24) + (1 << (bits - 1)) - offset, 0, rows * groups);
    return;
  }
  // So many words hold a whole number of codes, 32.
  const word = Math.floor(firstRow * bits / 32), first = word - word % bits, end = streamWords(firstRow + rows, bits);
  const words = new Uint32Array((end - first) * groups);
  await checkpoint.read(zero, first * groups * 4, new Uint8Array(words.buffer));
  for (let row = 0; row < rows; row++) {
    for (let group = 0; group < groups; group++) {
      into[row * groups + group] = streamCode(words, group, groups, firstRow + row - first * 32 / bits, bits) - offset;
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
  const [rows, cols] = codes.shape, scales = scalesOf(companions, module, schemes, undefined, [rows, cols]);
  const { scheme } = scales, groups = groupsOf(scales.format);
  if (scheme.ordered || companions.tensors.has(`${module}.weight_g_idx`)) {
    throw companions.unsupported("has int8 weights with a weight_g_idx, supported is packed ones");
  }
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
