/**
 * Reads and writes the header of a safetensors file: an 8-byte little-endian length, then JSON that gives each tensor's dtype, shape and
 * place in the data behind it. Follows the format's specification (huggingface/safetensors, README.md and `safetensors/src/tensor.rs`).
 * A file comes from elsewhere, so nothing in its header is trusted.
 * @module
 */
import { createHash } from "node:crypto";
import fs from "node:fs";
import { FormatError } from "../errors.ts";
import { readAt } from "./positional_io.ts";

/** Name of an element type in a safetensors header. */
export type Dtype =
  | "BOOL"
  | "F4"
  | "F6_E2M3"
  | "F6_E3M2"
  | "U8"
  | "I8"
  | "F8_E5M2"
  | "F8_E4M3"
  | "F8_E8M0"
  | "F8_E4M3FNUZ"
  | "F8_E5M2FNUZ"
  | "I16"
  | "U16"
  | "F16"
  | "BF16"
  | "I32"
  | "U32"
  | "F32"
  | "C64"
  | "F64"
  | "I64"
  | "U64";

/** Bits of one element of every dtype of the format. */
export const DTYPE_BITS: Record<Dtype, number> = {
  BOOL: 8,
  F4: 4,
  F6_E2M3: 6,
  F6_E3M2: 6,
  U8: 8,
  I8: 8,
  F8_E5M2: 8,
  F8_E4M3: 8,
  F8_E8M0: 8,
  F8_E4M3FNUZ: 8,
  F8_E5M2FNUZ: 8,
  I16: 16,
  U16: 16,
  F16: 16,
  BF16: 16,
  I32: 32,
  U32: 32,
  F32: 32,
  C64: 64,
  F64: 64,
  I64: 64,
  U64: 64,
};

/** One tensor of a safetensors file. */
export interface SafetensorsTensor {
  /** Name in the file's header. */
  name: string;
  /** Type of its elements. */
  dtype: Dtype;
  /** Lengths of its dimensions, the last one running fastest. */
  shape: number[];
  /** Position of its first byte in the file. */
  offset: number;
  /** Bytes of its elements. */
  bytes: number;
  /** Elements from one index of each dimension to the next, where they do not lie in its own order (PyTorch's files). */
  strides?: readonly number[];
  /** Of a quantized tensor of a GGUF file: its type, and the columns of its rows; `shape` counts bytes then. */
  ggml?: { type: string; cols: number };
  /** Whether its values, of float32, are the logarithms of those in the file with the sign changed. */
  logOfNegative?: boolean;
}

/** What the header of a safetensors file says. */
export interface SafetensorsHeader {
  /** The 8-byte length and the JSON behind it, padding included; data start here. */
  headerBytes: number;
  /** SHA-256, in hex, of those bytes. */
  headerSha256: string;
  /** Length of the whole file. */
  fileBytes: number;
  /** In the order of their data. */
  tensors: SafetensorsTensor[];
  /** What `__metadata__` maps. */
  metadata: Record<string, string>;
}

/** Longest header that the format's own reader accepts. */
export const MAX_HEADER_BYTES = 100_000_000;

/** Returns the first key that some object of a valid JSON text holds twice; JSON.parse would keep the last one silently. */
function duplicateKey(json: string): string | undefined {
  const open: Set<string>[] = [];
  for (let at = 0; at < json.length; at++) {
    const character = json[at];
    if (character === "{" || character === "[") open.push(new Set());
    else if (character === "}" || character === "]") open.pop();
    else if (character === '"') {
      const start = at++;
      while (json[at] !== '"') at += json[at] === "\\" ? 2 : 1;
      let behind = at + 1;
      while (" \t\r\n".includes(json[behind] ?? "x")) behind++;
      if (json[behind] !== ":") continue;
      const key: string = JSON.parse(json.slice(start, at + 1));
      if (open[open.length - 1].has(key)) return key;
      open[open.length - 1].add(key);
    }
  }
  return undefined;
}

function isCount(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** Checks one entry by itself: its dtype, its shape, and that its bytes are what these take. */
function parseTensor(name: string, entry: unknown, headerBytes: number, where: string): SafetensorsTensor {
  const refuse = (reason: string) => new FormatError(`Cannot read ${where}: tensor ${JSON.stringify(name)} ${reason}`);
  if (!isObject(entry)) throw refuse("is not described by an object");
  const { dtype, shape, data_offsets: range } = entry;
  if (typeof dtype !== "string" || !Object.hasOwn(DTYPE_BITS, dtype)) {
    throw refuse(`has unknown dtype ${JSON.stringify(dtype)}; known: ${Object.keys(DTYPE_BITS).join(", ")}`);
  }
  if (!Array.isArray(shape) || !shape.every(isCount)) {
    throw refuse(`has shape ${JSON.stringify(shape)}; required: non-negative integers`);
  }
  if (!Array.isArray(range) || range.length !== 2 || !range.every(isCount) || range[0] > range[1]) {
    throw refuse(`has data_offsets ${JSON.stringify(range)}; required: [begin, end] with 0 <= begin <= end`);
  }
  const extra = Object.keys(entry).find((key) => key !== "dtype" && key !== "shape" && key !== "data_offsets");
  if (extra !== undefined) throw refuse(`has unknown field ${JSON.stringify(extra)}`);
  const bits = shape.reduce((product, n) => product * n, DTYPE_BITS[dtype as Dtype]);
  if (!Number.isSafeInteger(bits)) throw refuse(`has shape ${JSON.stringify(shape)}, which overflows`);
  const bytes = range[1] - range[0];
  if (bits !== bytes * 8) throw refuse(`holds ${bytes} bytes, but ${dtype} ${JSON.stringify(shape)} takes ${bits / 8}`);
  return { name, dtype: dtype as Dtype, shape, offset: headerBytes + range[0], bytes };
}

/** Checks that the tensors cover the data exactly: no overlap, no hole, nothing behind the end. Sorts them by offset. */
function checkCoverage(tensors: SafetensorsTensor[], headerBytes: number, fileBytes: number, where: string): void {
  tensors.sort((a, b) => a.offset - b.offset || a.bytes - b.bytes);
  let end = headerBytes, previous: string | undefined;
  for (const { name, offset, bytes } of tensors) {
    const subject = `Cannot read ${where}: tensor ${JSON.stringify(name)}`;
    if (offset < end) throw new FormatError(`${subject} overlaps tensor ${JSON.stringify(previous)} by ${end - offset} bytes`);
    if (offset > end) throw new FormatError(`${subject} starts ${offset - end} bytes after the end of what is before it`);
    end = offset + bytes;
    if (end > fileBytes) {
      throw new FormatError(`${subject} ends at byte ${end}, but the file has ${fileBytes}: truncated or out of range`);
    }
    previous = name;
  }
  if (end !== fileBytes) {
    throw new FormatError(`Cannot read ${where}: it has ${fileBytes} bytes, but its header describes ${end}`);
  }
}

/**
 * Parses a header of which `header` holds the length and the JSON.
 * @param fileBytes Length of the whole file.
 * @param where Path of the file, for messages.
 * @throws {FormatError} for anything that the format does not allow.
 */
export function parseHeader(header: Uint8Array, fileBytes: number, where: string): SafetensorsHeader {
  const refuse = (reason: string) => new FormatError(`Cannot read ${where}: ${reason}`);
  let json: string, parsed: unknown;
  try {
    json = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(header.subarray(8));
    parsed = JSON.parse(json);
  } catch {
    throw refuse("its header is not valid JSON");
  }
  if (!isObject(parsed) || !json.startsWith("{")) throw refuse("its header is not a JSON object");
  const duplicate = duplicateKey(json);
  if (duplicate !== undefined) throw refuse(`its header has ${JSON.stringify(duplicate)} twice`);
  const metadata: Record<string, string> = {};
  const tensors: SafetensorsTensor[] = [];
  for (const [name, entry] of Object.entries(parsed)) {
    if (name !== "__metadata__") tensors.push(parseTensor(name, entry, header.length, where));
    else if (isObject(entry) && Object.values(entry).every((value) => typeof value === "string")) Object.assign(metadata, entry);
    else throw refuse("its __metadata__ does not map text to text");
  }
  checkCoverage(tensors, header.length, fileBytes, where);
  const headerSha256 = createHash("sha256").update(header).digest("hex");
  return { headerBytes: header.length, headerSha256, fileBytes, tensors, metadata };
}

/**
 * Reads and checks the header of a safetensors file.
 * @throws {FormatError} for a file that is missing, truncated, or not what the format allows.
 */
export async function readHeader(path: string): Promise<SafetensorsHeader> {
  const refuse = (reason: string) => new FormatError(`Cannot read ${path}: ${reason}`);
  let descriptor: number;
  try {
    descriptor = fs.openSync(path, "r");
  } catch (error) {
    throw refuse((error as NodeJS.ErrnoException).code === "ENOENT" ? "no such file" : (error as Error).message);
  }
  try {
    const stat = fs.fstatSync(descriptor);
    if (!stat.isFile()) throw refuse("it is not a file");
    if (stat.size < 8) throw refuse(`it has ${stat.size} bytes, fewer than the 8 of a header's length; truncated?`);
    const prefix = new Uint8Array(8);
    await readAt(descriptor, prefix, 0);
    const jsonBytes = new DataView(prefix.buffer).getBigUint64(0, true);
    if (jsonBytes > BigInt(stat.size - 8)) {
      throw refuse(`its header says it has ${jsonBytes} bytes, but the file has ${stat.size}: truncated, or not safetensors`);
    }
    if (jsonBytes > BigInt(MAX_HEADER_BYTES)) {
      throw refuse(`its header says it has ${jsonBytes} bytes, more than the ${MAX_HEADER_BYTES} that the format allows`);
    }
    const header = new Uint8Array(8 + Number(jsonBytes));
    if (await readAt(descriptor, header, 0) !== header.length) throw refuse("its header ends early");
    return parseHeader(header, stat.size, path);
  } finally {
    fs.closeSync(descriptor);
  }
}

/** What {@linkcode writeHeader} needs of a tensor. */
export interface HeaderEntry {
  name: string;
  dtype: Dtype;
  shape: number[];
  bytes: number;
}

/**
 * Returns the header of a file whose data are these tensors, in this order and without gaps, padded with spaces.
 * @param alignment The header's length is a multiple of this, itself a multiple of 8.
 * @param minimumBytes Least length, where a place of that length was kept free for it.
 */
export function writeHeader(entries: readonly HeaderEntry[], alignment = 8, minimumBytes = 0): Uint8Array<ArrayBuffer> {
  const body: Record<string, unknown> = {};
  let begin = 0;
  for (const { name, dtype, shape, bytes } of entries) {
    body[name] = { dtype, shape, data_offsets: [begin, begin + bytes] };
    begin += bytes;
  }
  const json = new TextEncoder().encode(JSON.stringify(body));
  const headerBytes = Math.ceil(Math.max(8 + json.length, minimumBytes) / alignment) * alignment;
  const header = new Uint8Array(headerBytes).fill(0x20);
  new DataView(header.buffer).setBigUint64(0, BigInt(headerBytes - 8), true);
  header.set(json, 8);
  return header;
}
