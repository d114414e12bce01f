/**
 * Reads what a PyTorch file (`pytorch_model.bin`, written by torch.save) holds, in the terms of a safetensors header: where each tensor's bytes lie.
 * Tensors that share a storage, or are a part of one, lie where they do, and may have strides.
 * @module
 */
import { createHash } from "node:crypto";
import fs from "node:fs";
import { FormatError } from "../errors.ts";
import { unpickleTensors } from "./pickle.ts";
import { readAt } from "./positional_io.ts";
import { DTYPE_BITS, type SafetensorsHeader, type SafetensorsTensor } from "./safetensors.ts";
import { type FileReader, type ZipMember, zipMembers } from "./zip.ts";

/** Longest pickle: some 100 bytes a tensor. */
const MAX_PICKLE_BYTES = 256 * 1024 * 1024;

async function readMember(file: FileReader, member: ZipMember, path: string): Promise<Uint8Array<ArrayBuffer>> {
  const bytes = new Uint8Array(member.bytes);
  if (await file(bytes, member.offset) !== bytes.length) {
    throw new FormatError(`Cannot read ${path}: ${member.name} ends early`);
  }
  return bytes;
}

/** Returns whether a tensor's elements follow each other in its own order. */
function isContiguous(shape: readonly number[], stride: readonly number[]): boolean {
  if (shape.includes(0)) return true;
  let step = 1;
  for (let i = shape.length - 1; i >= 0; i--) {
    if (shape[i] !== 1 && stride[i] !== step) return false;
    step *= shape[i];
  }
  return true;
}

/** Returns how far a tensor's last element lies after its first, in elements. */
function lastElement(shape: readonly number[], stride: readonly number[]): number {
  return shape.reduce((sum, n, i) => sum + (n - 1) * stride[i], 0);
}

/**
 * Reads and checks the directory and the pickle of a PyTorch file.
 * @throws {FormatError} for a file that is missing, damaged, or holds anything but tensors.
 */
export async function readPytorchHeader(path: string): Promise<SafetensorsHeader> {
  let descriptor: number;
  try {
    descriptor = fs.openSync(path, "r");
  } catch (error) {
    const reason = (error as NodeJS.ErrnoException).code === "ENOENT" ? "no such file" : (error as Error).message;
    throw new FormatError(`Cannot read ${path}: ${reason}`);
  }
  try {
    return await parsePytorchHeader((into, position) => readAt(descriptor, into, position), fs.fstatSync(descriptor).size, path);
  } finally {
    fs.closeSync(descriptor);
  }
}

/**
 * Reads and checks the directory and the pickle of a PyTorch file, wherever it is.
 * @param path What it is called in messages.
 * @throws {FormatError} as {@linkcode readPytorchHeader}.
 */
export async function parsePytorchHeader(file: FileReader, fileBytes: number, path: string): Promise<SafetensorsHeader> {
  const refuse = (reason: string) => new FormatError(`Cannot read ${path}: ${reason}`);
  const members = await zipMembers(file, fileBytes, path);
  const pickle = [...members.values()].find(({ name }) => /^[^/]+\/data\.pkl$/.test(name));
  if (pickle === undefined) throw refuse("its archive has no data.pkl, so torch.save did not write it");
  if (pickle.bytes > MAX_PICKLE_BYTES) throw refuse(`its data.pkl has ${pickle.bytes} bytes, at most ${MAX_PICKLE_BYTES}`);
  const root = pickle.name.slice(0, -"data.pkl".length), order = members.get(`${root}byteorder`);
  if (order !== undefined) {
    const text = new TextDecoder().decode(await readMember(file, order, path));
    if (text !== "little") throw refuse(`its byteorder is ${JSON.stringify(text)}, required "little"`);
  }
  const program = await readMember(file, pickle, path);
  const tensors: SafetensorsTensor[] = [];
  for (const [name, { storage, offset, shape, stride }] of unpickleTensors(program, path)) {
    const subject = `tensor ${JSON.stringify(name)}`, data = members.get(`${root}data/${storage.key}`);
    if (data === undefined) throw refuse(`${subject} is in a storage ${JSON.stringify(storage.key)} that is not there`);
    const elementBytes = DTYPE_BITS[storage.dtype] / 8, count = shape.reduce((product, n) => product * n, 1);
    if (storage.elements * elementBytes > data.bytes) {
      throw refuse(`${subject} has a storage of ${storage.elements} ${storage.dtype}, but there are ${data.bytes} bytes`);
    }
    if (stride.length !== shape.length) {
      throw refuse(`${subject} has strides [${stride.join(", ")}] for shape [${shape.join(", ")}]`);
    }
    // The last element that is used; every other lies before it, since no stride is negative.
    const contiguous = isContiguous(shape, stride), end = offset + (contiguous ? count : 1 + lastElement(shape, stride));
    if (!Number.isSafeInteger(count * elementBytes) || end > storage.elements) {
      throw refuse(`${subject} of shape [${shape.join(", ")}] ends beyond its storage of ${storage.elements} elements`);
    }
    tensors.push({
      name,
      dtype: storage.dtype,
      shape,
      offset: data.offset + offset * elementBytes,
      bytes: count * elementBytes,
      ...(contiguous ? {} : { strides: stride }),
    });
  }
  tensors.sort((a, b) => a.offset - b.offset || a.bytes - b.bytes);
  const headerSha256 = createHash("sha256").update(program).digest("hex");
  return { headerBytes: pickle.bytes, headerSha256, fileBytes, tensors, metadata: {} };
}
