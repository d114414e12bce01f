/**
 * bitsandbytes' 4-bit weights (NF4, FP4) as transformers saves them: `X.weight` holds the codes, whatever element type it claims to have
 * (`bnb_4bit_quant_storage`), and `X.weight.quant_state.bitsandbytes__nf4` a JSON text that says how. A tensor is encoded if that key is
 * there; `llm_int8_skip_modules` is not consulted. Source: `QuantState.as_dict` and `dequantize_4bit` in bitsandbytes/functional.py.
 * @module
 */
import type { Checkpoint, CheckpointTensor } from "../checkpoint/checkpoint.ts";
import { isJsonObject } from "../checkpoint/json_file.ts";
import { commonPower, Companions, type EncodedMatrix, type EncodedTensor, type Encoding } from "./encoding.ts";

const STATE = /^(.+)\.quant_state\.bitsandbytes__(nf4|fp4)$/;

/** Longest JSON text of a quant_state. */
const MAX_STATE_BYTES = 65_536;

/** Most elements that an extent's rows are a multiple of: 2 MiB of codes, half an extent. */
const MAX_UNIT_ELEMENTS = 4 * 1024 * 1024;

const TYPES: Record<string, "f32" | "f16" | "bf16"> = { float32: "f32", float16: "f16", bfloat16: "bf16" };

/** What a quant_state says, checked. */
interface State {
  rows: number;
  cols: number;
  blockSize: number;
  type: "f32" | "f16" | "bf16";
  /** Double quantization: absmax that share a second one, and what is added to each. */
  nested?: { blockSize: number; offset: number };
}

function parseState(text: string, companions: Companions, quantType: string): State {
  let state: unknown;
  try {
    state = JSON.parse(text);
  } catch {
    throw companions.refuse("has a quant_state that is not valid JSON");
  }
  if (!isJsonObject(state)) throw companions.refuse("has a quant_state that is no JSON object");
  const { quant_type, blocksize, dtype, shape, nested_blocksize, nested_dtype, nested_offset } = state;
  const refuse = (key: string, value: unknown, required: string) =>
    companions.refuse(`has ${key} ${JSON.stringify(value)} in its quant_state, required ${required}`);
  if (quant_type !== quantType) throw refuse("quant_type", quant_type, JSON.stringify(quantType));
  const power = (key: string, value: unknown, least: number): number => {
    if (typeof value === "number" && value >= least && value <= 4096 && Number.isInteger(Math.log2(value))) return value;
    throw refuse(key, value, `a power of two from ${least} to 4096`);
  };
  if (typeof dtype !== "string" || !Object.hasOwn(TYPES, dtype)) throw refuse("dtype", dtype, Object.keys(TYPES).join(", "));
  const isSize = (n: unknown) => Number.isSafeInteger(n) && (n as number) > 0;
  if (!Array.isArray(shape) || shape.length !== 2 || !shape.every(isSize) || !Number.isSafeInteger(shape[0] * shape[1])) {
    throw refuse("shape", shape, "[rows, cols]");
  }
  const known = ["quant_type", "blocksize", "dtype", "shape", "nested_blocksize", "nested_dtype", "nested_offset"];
  const extra = Object.keys(state).find((key) => !known.includes(key));
  if (extra !== undefined) throw companions.unsupported(`has an unknown ${JSON.stringify(extra)} in its quant_state`);
  const parsed: State = {
    rows: shape[0],
    cols: shape[1],
    blockSize: power("blocksize", blocksize, 32),
    type: TYPES[dtype],
  };
  if (nested_blocksize === undefined) return parsed;
  if (nested_dtype !== "float32") throw refuse("nested_dtype", nested_dtype, `"float32"`);
  if (typeof nested_offset !== "number") throw refuse("nested_offset", nested_offset, "a number");
  return { ...parsed, nested: { blockSize: power("nested_blocksize", nested_blocksize, 1), offset: nested_offset } };
}

/** The tensors of one encoded matrix. */
interface Tensors {
  code: CheckpointTensor;
  map: CheckpointTensor;
  absmax: CheckpointTensor;
  nested?: { map: CheckpointTensor; absmax: CheckpointTensor };
}

function encoded(checkpoint: Checkpoint, name: string, quantType: string, state: State, companions: Companions): EncodedTensor {
  const { rows, cols, blockSize, nested } = state;
  const elements = rows * cols, blocks = Math.ceil(elements / blockSize), codeBytes = Math.ceil(elements / 2);
  const code = companions.take(name);
  if (code === undefined) throw companions.refuse("is missing, though it has a quant_state");
  // The storage type's size may round the bytes up; a shape that is not [n, 1] would be of another release.
  if (code.bytes < codeBytes || code.bytes > codeBytes + 7) {
    throw companions.refuse(`holds ${code.bytes} bytes of codes, required ${codeBytes} for [${rows}, ${cols}]`);
  }
  const tensors: Tensors = {
    code,
    map: companions.required(`${name}.quant_map`, ["F32"], [16]),
    absmax: companions.required(`${name}.absmax`, [nested ? "U8" : "F32"], [blocks], [blocks, 1]),
  };
  if (nested) {
    tensors.nested = {
      map: companions.required(`${name}.nested_quant_map`, ["F32"], [256]),
      absmax: companions.required(`${name}.nested_absmax`, ["F32"], [Math.ceil(blocks / nested.blockSize)]),
    };
  }
  return {
    name,
    encoding: `bitsandbytes ${quantType}`,
    shape: [rows, cols],
    parts: companions.parts,
    cut: (unitRows) => cut(checkpoint, tensors, state, unitRows, companions),
  };
}

/**
 * Blocks run over the flat tensor, nested ones over the blocks, and neither restarts at a row. Where extents cannot start on a whole one, or
 * would be too large, each is stored as several of half the size: the same values, some of them more than once.
 */
function cut(checkpoint: Checkpoint, tensors: Tensors, state: State, unitRows: number, companions: Companions): EncodedMatrix {
  const { rows, cols, type, nested } = state;
  const rowsElements = cols * unitRows;
  const fits = (unit: number) =>
    unit * (cols / commonDivisor(unit, cols)) <= MAX_UNIT_ELEMENTS || rows * cols <= MAX_UNIT_ELEMENTS;
  let block = commonPower(rowsElements, state.blockSize);
  while (block > 1 && !fits(block)) block /= 2;
  if (block < 2) {
    throw companions.unsupported(`of ${cols} columns cannot be cut every ${unitRows} rows: its codes are two a byte`);
  }
  let group = nested ? commonPower(rowsElements / block, nested.blockSize) : 0;
  while (group > 1 && !fits(block * group)) group /= 2;
  const format = `bnb4-${block}${nested ? `x${group}` : ""}-${type}` as const;

  /** Reads the values of blocks [first, first + count) of `size` units each, which the file has one of every `fileSize` units. */
  const spread = async (
    tensor: CheckpointTensor,
    into: Uint8Array,
    bytes: number,
    first: number,
    fileSize: number,
    size: number,
  ) => {
    const count = into.length / bytes, repeat = fileSize / size;
    if (repeat === 1) return await checkpoint.read(tensor, first * bytes, into);
    const start = Math.floor(first / repeat), end = Math.ceil((first + count) / repeat);
    const source = new Uint8Array((end - start) * bytes);
    await checkpoint.read(tensor, start * bytes, source);
    for (let i = 0; i < count; i++) {
      const from = (Math.floor((first + i) / repeat) - start) * bytes;
      for (let b = 0; b < bytes; b++) into[i * bytes + b] = source[from + b];
    }
  };
  const read: EncodedMatrix["read"] = async (firstRow, count, sections, atRow) => {
    const first = firstRow * cols, at = atRow * cols, length = count * cols;
    const absmax = sections.at(-2)!, code = sections.at(-1)!, absmaxBytes = nested ? 1 : 4;
    const atBlock = at / block, blocks = Math.ceil(length / block);
    const jobs = [
      checkpoint.read(tensors.map, 0, sections[0]),
      checkpoint.read(tensors.code, first / 2, code.subarray(at / 2, Math.ceil((at + length) / 2))),
      spread(
        tensors.absmax,
        absmax.subarray(atBlock * absmaxBytes, (atBlock + blocks) * absmaxBytes),
        absmaxBytes,
        first / block,
        state.blockSize,
        block,
      ),
    ];
    if (nested) {
      const [, nestedMap, offset, nestedAbsmax] = sections, atGroup = atBlock / group, groups = Math.ceil(blocks / group);
      new Float32Array(offset.buffer, offset.byteOffset, 1)[0] = nested.offset;
      // A group of the file in units of this format's blocks: a block of the file may be several of them.
      const fileGroup = nested.blockSize * (state.blockSize / block);
      jobs.push(
        checkpoint.read(tensors.nested!.map, 0, nestedMap),
        spread(
          tensors.nested!.absmax,
          nestedAbsmax.subarray(atGroup * 4, (atGroup + groups) * 4),
          4,
          first / block / group,
          fileGroup,
          group,
        ),
      );
    }
    await Promise.all(jobs);
  };
  return { format, read };
}

function commonDivisor(a: number, b: number): number {
  while (b !== 0) [a, b] = [b, a % b];
  return a;
}

/** NF4 and FP4 of bitsandbytes. */
export const BITSANDBYTES_4BIT: Encoding = {
  methods: ["bitsandbytes"],
  async find(checkpoint) {
    const found: EncodedTensor[] = [];
    for (const [key, tensor] of checkpoint.tensors) {
      const [, name, quantType] = STATE.exec(key) ?? [];
      if (name === undefined) continue;
      const companions = new Companions(checkpoint, name);
      companions.required(key, ["U8"]);
      if (tensor.bytes > MAX_STATE_BYTES) {
        throw companions.refuse(`has a quant_state of ${tensor.bytes} bytes, at most ${MAX_STATE_BYTES}`);
      }
      const text = new TextDecoder().decode(await companions.read(tensor));
      found.push(encoded(checkpoint, name, quantType, parseState(text, companions, quantType), companions));
    }
    return found;
  },
};
