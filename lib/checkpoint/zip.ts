/**
 * Lists the members of a ZIP archive that are stored without compression, as PyTorch writes them. Follows PKWARE's APPNOTE.TXT, with its 64-bit
 * extensions. An archive comes from elsewhere, so nothing in it is trusted.
 * @module
 */
import { FormatError } from "../errors.ts";

/** A member of an archive. */
export interface ZipMember {
  name: string;
  /** Position of its first byte in the file. */
  offset: number;
  bytes: number;
}

const END_BYTES = 22, END64_LOCATOR_BYTES = 20, END64_BYTES = 56, ENTRY_BYTES = 46, LOCAL_BYTES = 30;
/** Longest comment behind the end record. */
const MAX_COMMENT_BYTES = 65_535;
/** Longest directory: a million members. */
const MAX_DIRECTORY_BYTES = 256 * 1024 * 1024;

/** Reads little-endian fields and says where they end too early. */
class Records {
  readonly view: DataView;
  constructor(readonly bytes: Uint8Array<ArrayBuffer>, readonly where: string) {
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  refuse(reason: string): FormatError {
    return new FormatError(`Cannot read ${this.where}: ${reason}`);
  }

  /** An unsigned 64-bit number. */
  long(at: number): number {
    const value = this.view.getBigUint64(at, true);
    if (value > BigInt(Number.MAX_SAFE_INTEGER)) throw this.refuse("a size in its ZIP directory overflows");
    return Number(value);
  }
}

/** Fills `into` from a position of a file, and returns the bytes that were there: fewer only where the file ends. */
export type FileReader = (into: Uint8Array, position: number) => Promise<number>;

async function read(file: FileReader, position: number, bytes: number, where: string): Promise<Records> {
  const into = new Uint8Array(bytes);
  if (position < 0 || await file(into, position) !== bytes) {
    throw new FormatError(`Cannot read ${where}: its ZIP directory ends early; truncated?`);
  }
  return new Records(into, where);
}

/** Finds the archive's directory: its position, bytes and number of members. */
async function findDirectory(file: FileReader, fileBytes: number, where: string): Promise<[number, number, number]> {
  const tailBytes = Math.min(fileBytes, END_BYTES + MAX_COMMENT_BYTES), start = fileBytes - tailBytes;
  const tail = await read(file, start, tailBytes, where);
  let end = tailBytes - END_BYTES;
  while (
    end >= 0 &&
    !(tail.view.getUint32(end, true) === 0x06054b50 && end + END_BYTES + tail.view.getUint16(end + 20, true) === tailBytes)
  ) end--;
  if (end < 0) throw tail.refuse("it is no ZIP archive, as torch.save has written since PyTorch 1.6, or it is truncated");
  const count = tail.view.getUint16(end + 10, true),
    bytes = tail.view.getUint32(end + 12, true),
    offset = tail.view.getUint32(end + 16, true);
  const locator = end - END64_LOCATOR_BYTES;
  if (locator < 0 || tail.view.getUint32(locator, true) !== 0x07064b50) return [offset, bytes, count];
  const end64 = await read(file, tail.long(locator + 8), END64_BYTES, where);
  if (end64.view.getUint32(0, true) !== 0x06064b50) throw end64.refuse("its 64-bit ZIP end record is damaged");
  return [end64.long(48), end64.long(40), end64.long(32)];
}

/**
 * Returns the members of an archive by name.
 * @param where Path of the file, for messages.
 * @throws {FormatError} for anything that is damaged, compressed, encrypted, or beyond the file.
 */
export async function zipMembers(file: FileReader, fileBytes: number, where: string): Promise<Map<string, ZipMember>> {
  const [position, directoryBytes, count] = await findDirectory(file, fileBytes, where);
  if (directoryBytes > MAX_DIRECTORY_BYTES) {
    throw new FormatError(`Cannot read ${where}: its ZIP directory has ${directoryBytes} bytes`);
  }
  const directory = await read(file, position, directoryBytes, where), { view } = directory;
  const members = new Map<string, ZipMember>();
  let at = 0;
  for (let i = 0; i < count; i++) {
    if (at + ENTRY_BYTES > directoryBytes || view.getUint32(at, true) !== 0x02014b50) {
      throw directory.refuse("its ZIP directory is damaged");
    }
    const flags = view.getUint16(at + 8, true), method = view.getUint16(at + 10, true);
    const nameBytes = view.getUint16(at + 28, true), extraBytes = view.getUint16(at + 30, true);
    const next = at + ENTRY_BYTES + nameBytes + extraBytes + view.getUint16(at + 32, true);
    if (next > directoryBytes) throw directory.refuse("its ZIP directory is damaged");
    const name = new TextDecoder().decode(directory.bytes.subarray(at + ENTRY_BYTES, at + ENTRY_BYTES + nameBytes));
    const subject = JSON.stringify(name);
    if (method !== 0 || (flags & 1) !== 0) {
      throw directory.refuse(`${subject} is ${method === 0 ? "encrypted" : "compressed"}, required: stored as it is`);
    }
    let bytes = view.getUint32(at + 24, true), header = view.getUint32(at + 42, true);
    // The 64-bit field has those of uncompressed size, compressed size and offset that are all ones, in this order.
    const packed = view.getUint32(at + 20, true);
    const field = extraField(directory, at + ENTRY_BYTES + nameBytes, extraBytes);
    let long = field?.at ?? 0;
    const take = (): number => {
      if (field === undefined || long + 8 > field.end) throw directory.refuse(`the 64-bit size of ${subject} is missing`);
      return directory.long((long += 8) - 8);
    };
    if (bytes === 0xffffffff) bytes = take();
    if (packed === 0xffffffff) take();
    if (header === 0xffffffff) header = take();
    const local = await read(file, header, LOCAL_BYTES, where);
    if (local.view.getUint32(0, true) !== 0x04034b50) throw directory.refuse(`the header of ${subject} is damaged`);
    const offset = header + LOCAL_BYTES + local.view.getUint16(26, true) + local.view.getUint16(28, true);
    if (offset + bytes > fileBytes) {
      throw directory.refuse(`${subject} ends at byte ${offset + bytes}, but the file has ${fileBytes}`);
    }
    if (members.has(name)) throw directory.refuse(`${subject} is there twice`);
    members.set(name, { name, offset, bytes });
    at = next;
  }
  return members;
}

/** Finds the field of 64-bit sizes among a member's extra fields. */
function extraField({ view }: Records, start: number, bytes: number): { at: number; end: number } | undefined {
  for (let at = start; at + 4 <= start + bytes;) {
    const length = view.getUint16(at + 2, true), end = at + 4 + length;
    if (view.getUint16(at, true) === 1 && end <= start + bytes) return { at: at + 4, end };
    at = end;
  }
  return undefined;
}
