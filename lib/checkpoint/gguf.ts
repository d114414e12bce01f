/**
 * Reads the header of a GGUF file: metadata, and where each tensor's bytes lie. Follows ggml's docs/gguf.md, versions 2 and 3. A file comes from
 * elsewhere, so nothing in its header is trusted.
 * @module
 */
import { createHash } from "node:crypto";
import fs from "node:fs";
import { FormatError, UnsupportedError } from "../errors.ts";
import { readAt } from "./positional_io.ts";

/** A value of the metadata. 64-bit integers are numbers where they are exact. */
export type GgufValue = number | boolean | string | GgufValue[];

/** Elements and bytes of a block of each tensor type that is read (ggml-common.h), by the type's number. */
const TYPES: Readonly<Record<number, { name: string; elements: number; bytes: number }>> = {
  0: { name: "F32", elements: 1, bytes: 4 },
  1: { name: "F16", elements: 1, bytes: 2 },
  2: { name: "Q4_0", elements: 32, bytes: 18 },
  3: { name: "Q4_1", elements: 32, bytes: 20 },
  6: { name: "Q5_0", elements: 32, bytes: 22 },
  7: { name: "Q5_1", elements: 32, bytes: 24 },
  8: { name: "Q8_0", elements: 32, bytes: 34 },
  10: { name: "Q2_K", elements: 256, bytes: 84 },
  11: { name: "Q3_K", elements: 256, bytes: 110 },
  12: { name: "Q4_K", elements: 256, bytes: 144 },
  13: { name: "Q5_K", elements: 256, bytes: 176 },
  14: { name: "Q6_K", elements: 256, bytes: 210 },
  16: { name: "IQ2_XXS", elements: 256, bytes: 66 },
  17: { name: "IQ2_XS", elements: 256, bytes: 74 },
  18: { name: "IQ3_XXS", elements: 256, bytes: 98 },
  19: { name: "IQ1_S", elements: 256, bytes: 50 },
  20: { name: "IQ4_NL", elements: 32, bytes: 18 },
  21: { name: "IQ3_S", elements: 256, bytes: 110 },
  22: { name: "IQ2_S", elements: 256, bytes: 82 },
  23: { name: "IQ4_XS", elements: 256, bytes: 136 },
  29: { name: "IQ1_M", elements: 256, bytes: 56 },
  30: { name: "BF16", elements: 1, bytes: 2 },
  34: { name: "TQ1_0", elements: 256, bytes: 54 },
  35: { name: "TQ2_0", elements: 256, bytes: 66 },
  39: { name: "MXFP4", elements: 32, bytes: 17 },
};

/** One tensor: its shape has the row's length last, as everywhere here; the file has it first. */
export interface GgufTensor {
  name: string;
  type: string;
  shape: number[];
  offset: number;
  bytes: number;
}

/** What the header of a GGUF file says. */
export interface GgufHeader {
  metadata: Map<string, GgufValue>;
  tensors: GgufTensor[];
  /** Bytes before the tensors' data. */
  headerBytes: number;
  headerSha256: string;
  fileBytes: number;
}

/** Bytes that are read first, which hold the header of a part, and by how much each read is longer than the one before. */
const FIRST_READ_BYTES = 256 * 1024, GROWTH = 4;
/** Longest header: vocabularies are some MiB. */
const MAX_HEADER_BYTES = 512 * 1024 * 1024;

/** Says that more of the file is needed. */
class HeaderEnds extends Error {}

/** Walks over a header. */
class Reader {
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  readonly #where: string;
  at = 0;

  constructor(bytes: Uint8Array<ArrayBuffer>, where: string) {
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.#where = where;
  }

  refuse(reason: string): FormatError {
    return new FormatError(`Cannot read ${this.#where}: ${reason}`);
  }

  #skip(bytes: number): number {
    const at = this.at;
    if (at + bytes > this.#bytes.length) throw new HeaderEnds();
    this.at += bytes;
    return at;
  }

  u32(): number {
    return this.#view.getUint32(this.#skip(4), true);
  }

  /** A count: exact, and of no more than the header could hold. */
  count(what: string, most = MAX_HEADER_BYTES): number {
    const value = this.#view.getBigUint64(this.#skip(8), true);
    if (value > BigInt(most)) throw this.refuse(`${what} is ${value}, at most ${most}`);
    return Number(value);
  }

  text(): string {
    const bytes = this.count("the length of a text"), at = this.#skip(bytes);
    return new TextDecoder().decode(this.#bytes.subarray(at, at + bytes));
  }

  value(type: number, depth = 0): GgufValue {
    switch (type) {
      case 0:
        return this.#bytes[this.#skip(1)];
      case 1:
        return this.#view.getInt8(this.#skip(1));
      case 2:
        return this.#view.getUint16(this.#skip(2), true);
      case 3:
        return this.#view.getInt16(this.#skip(2), true);
      case 4:
        return this.u32();
      case 5:
        return this.#view.getInt32(this.#skip(4), true);
      case 6:
        return this.#view.getFloat32(this.#skip(4), true);
      case 7:
        return this.#bytes[this.#skip(1)] !== 0;
      case 8:
        return this.text();
      case 9: {
        const element = this.u32(), length = this.count("the length of a list");
        if (depth > 3) throw this.refuse("its metadata has lists within lists within lists");
        return Array.from({ length }, () => this.value(element, depth + 1));
      }
      case 10:
        return Number(this.#view.getBigUint64(this.#skip(8), true));
      case 11:
        return Number(this.#view.getBigInt64(this.#skip(8), true));
      case 12:
        return this.#view.getFloat64(this.#skip(8), true);
      default:
        throw this.refuse(`its metadata has a value of type ${type}, which is not known`);
    }
  }
}

function parse(bytes: Uint8Array<ArrayBuffer>, fileBytes: number, where: string): Omit<GgufHeader, "headerSha256"> {
  const reader = new Reader(bytes, where);
  if (reader.u32() !== 0x46554747) throw reader.refuse("it does not begin with GGUF");
  const version = reader.u32();
  if (version !== 2 && version !== 3) {
    throw new UnsupportedError(`Cannot read ${where}: it has version ${version}, supported: 2, 3`);
  }
  const tensorCount = reader.count("the number of tensors", 1_000_000),
    valueCount = reader.count("the number of metadata", 1_000_000);
  const metadata = new Map<string, GgufValue>();
  for (let i = 0; i < valueCount; i++) {
    const key = reader.text();
    if (metadata.has(key)) throw reader.refuse(`its metadata has ${JSON.stringify(key)} twice`);
    metadata.set(key, reader.value(reader.u32()));
  }
  const infos = Array.from({ length: tensorCount }, () => {
    const name = reader.text(), dimensions = reader.u32();
    if (dimensions < 1 || dimensions > 4) {
      throw reader.refuse(`tensor ${JSON.stringify(name)} has ${dimensions} dimensions, required 1 to 4`);
    }
    const shape = Array.from({ length: dimensions }, () => reader.count("a dimension", Number.MAX_SAFE_INTEGER)).reverse();
    return { name, shape, type: reader.u32(), offset: reader.count("an offset", Number.MAX_SAFE_INTEGER) };
  });
  const alignment = metadata.get("general.alignment") ?? 32;
  if (typeof alignment !== "number" || alignment < 1 || alignment > 65_536) {
    throw reader.refuse(`general.alignment is ${alignment}`);
  }
  const headerBytes = Math.ceil(reader.at / alignment) * alignment;
  const seen = new Set<string>();
  const tensors = infos.map(({ name, shape, type: id, offset }): GgufTensor => {
    const subject = `tensor ${JSON.stringify(name)}`, type = TYPES[id];
    if (seen.has(name)) throw reader.refuse(`${subject} is there twice`);
    seen.add(name);
    if (type === undefined) {
      const known = Object.values(TYPES).map((one) => one.name).join(", ");
      throw new UnsupportedError(`Cannot read ${where}: ${subject} has type ${id} of ggml, supported: ${known}`);
    }
    const elements = shape.reduce((product, n) => product * n, 1), size = elements / type.elements * type.bytes;
    if (!Number.isSafeInteger(size) || shape.at(-1)! % type.elements !== 0) {
      throw reader.refuse(`${subject} has shape [${shape.join(", ")}], which is not of whole blocks of ${type.elements}`);
    }
    if (headerBytes + offset + size > fileBytes) {
      throw reader.refuse(`${subject} ends at byte ${headerBytes + offset + size}, but the file has ${fileBytes}: truncated?`);
    }
    return { name, type: type.name, shape, offset: headerBytes + offset, bytes: size };
  });
  return { metadata, tensors, headerBytes, fileBytes };
}

/** A GGUF file that may lie elsewhere: a file on disk, or one of the hub. */
export interface GgufSource {
  /** What it is called in messages. */
  where: string;
  fileBytes: number;
  /** Fills `into` from a position that the file has. */
  read(into: Uint8Array, position: number): Promise<void>;
}

/** Returns a file on disk as a source. @throws the system's error where it cannot be opened. */
export function localGguf(path: string): GgufSource {
  return {
    where: path,
    fileBytes: fs.statSync(path).size,
    async read(into, position) {
      const descriptor = fs.openSync(path, "r");
      try {
        if (await readAt(descriptor, into, position) !== into.length) throw new FormatError(`Cannot read ${path}: it ends early`);
      } finally {
        fs.closeSync(descriptor);
      }
    },
  };
}

/**
 * Reads and checks the header of a GGUF file. How long it is nothing says: more and more of the file is read until it is all there.
 * @throws {FormatError} for a file that is missing, truncated, or not what the format allows.
 * @throws {UnsupportedError} for a version or a tensor type that is not read.
 */
export async function readGgufHeader({ where, fileBytes, read }: GgufSource): Promise<GgufHeader> {
  let bytes = new Uint8Array(0);
  for (let length = FIRST_READ_BYTES;; length *= GROWTH) {
    const longer = new Uint8Array(Math.min(length, fileBytes, MAX_HEADER_BYTES)), known = bytes.length;
    longer.set(bytes);
    await read(longer.subarray(known), known);
    bytes = longer;
    try {
      const header = parse(bytes, fileBytes, where);
      const headerSha256 = createHash("sha256").update(bytes.subarray(0, header.headerBytes)).digest("hex");
      return { ...header, headerSha256 };
    } catch (error) {
      if (!(error instanceof HeaderEnds)) throw error;
      if (bytes.length < length) throw new FormatError(`Cannot read ${where}: its header ends early; truncated?`);
    }
  }
}
