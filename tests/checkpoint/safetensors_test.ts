import assert from "node:assert/strict";
import fs from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DTYPE_BITS, readHeader, writeHeader } from "../../lib/checkpoint/safetensors.ts";
import { FormatError } from "../../lib/errors.ts";

const directory = fs.mkdtempSync(join(tmpdir(), "airkern-safetensors-"));
globalThis.addEventListener("unload", () => fs.rmSync(directory, { recursive: true, force: true }));
const path = join(directory, "x.safetensors");

/** Writes a file of a header's JSON text and some bytes of data; `claimedBytes` is the length it states. */
function write(json: string, dataBytes: number, claimedBytes?: number): void {
  const text = new TextEncoder().encode(json);
  const file = new Uint8Array(8 + text.length + dataBytes);
  new DataView(file.buffer).setBigUint64(0, BigInt(claimedBytes ?? text.length), true);
  file.set(text, 8);
  fs.writeFileSync(path, file);
}

const tensor = (begin: number, end: number, shape: unknown[] = [(end - begin) / 4], dtype: unknown = "F32") => ({
  dtype,
  shape,
  data_offsets: [begin, end],
});

/** Expects one line that names the file and says what is wrong. */
async function refuses(expected: RegExp): Promise<void> {
  await assert.rejects(readHeader(path), (error: Error) => {
    assert(error instanceof FormatError, String(error.stack));
    assert.match(error.message, expected);
    assert(error.message.includes(path) && !error.message.includes("\n"), error.message);
    return true;
  });
}

Deno.test("readHeader() gives every tensor with its place, in the order of the data", async () => {
  write(
    JSON.stringify({
      __metadata__: { format: "pt" },
      b: tensor(8, 24, [2, 2]),
      a: tensor(0, 8),
      c: tensor(24, 25, [1], "I8"),
      d: tensor(25, 25, [0]),
    }) + "   ",
    25,
  );
  const header = await readHeader(path);
  assert.deepEqual(header.tensors.map(({ name, shape, bytes, offset }) => [name, shape, bytes, offset - header.headerBytes]), [
    ["a", [2], 8, 0],
    ["b", [2, 2], 16, 8],
    ["c", [1], 1, 24],
    ["d", [0], 0, 25],
  ]);
  assert.deepEqual(header.metadata, { format: "pt" });
  assert.equal(header.fileBytes, header.headerBytes + 25);
});

Deno.test("readHeader() knows every dtype of the format and refuses a size that does not fit it", async () => {
  for (const [dtype, bits] of Object.entries(DTYPE_BITS)) {
    write(JSON.stringify({ x: tensor(0, bits, [8], dtype) }), bits);
    assert.equal((await readHeader(path)).tensors[0].bytes, bits);
    write(JSON.stringify({ x: tensor(0, bits, [9], dtype) }), bits);
    await refuses(/tensor "x" holds .* bytes, but/);
  }
});

Deno.test("readHeader() refuses a header longer than the file", async () => {
  write(JSON.stringify({ a: tensor(0, 8) }), 8, 10_000);
  await refuses(/header says it has 10000 bytes, but the file has \d+: truncated/);
  fs.writeFileSync(path, new Uint8Array(8).fill(255));
  await refuses(/header says it has 18446744073709551615 bytes/);
});

Deno.test("readHeader() refuses a header above the format's 100 MB before reading it", async () => {
  write("{}", 0, 100_000_001);
  fs.truncateSync(path, 200_000_000);
  await refuses(/more than the 100000000 that the format allows/);
});

Deno.test("readHeader() refuses files cut anywhere", async () => {
  write(JSON.stringify({ a: tensor(0, 8), b: tensor(8, 24) }), 24);
  const whole = fs.readFileSync(path);
  for (let bytes = 0; bytes < whole.length; bytes++) {
    fs.writeFileSync(path, whole.subarray(0, bytes));
    await refuses(/truncated/);
  }
  fs.writeFileSync(path, whole);
  await readHeader(path);
});

Deno.test("readHeader() refuses a missing path and a directory", async () => {
  await assert.rejects(readHeader(join(directory, "none")), /Cannot read .*none: no such file/);
  await assert.rejects(readHeader(directory), /it is not a file/);
});

Deno.test("readHeader() refuses text that is not UTF-8", async () => {
  write(`{"~":${JSON.stringify(tensor(0, 8))}}`, 8);
  const bytes = fs.readFileSync(path);
  bytes[bytes.indexOf(0x7e)] = 0xff;
  fs.writeFileSync(path, bytes);
  await refuses(/not valid JSON/);
});

const BAD_HEADERS: [string, string, number, RegExp][] = [
  ["invalid JSON", "{", 0, /not valid JSON/],
  ["an array", "[]", 0, /not a JSON object/],
  ["a tensor twice", `{"a":${JSON.stringify(tensor(0, 8))},"a":${JSON.stringify(tensor(0, 8))}}`, 8, /has "a" twice/],
  [
    "a tensor twice, once escaped",
    `{"a":${JSON.stringify(tensor(0, 8))},"\\u0061":${JSON.stringify(tensor(0, 8))}}`,
    8,
    /has "a" twice/,
  ],
  ["a field twice", `{"a":{"dtype":"F32","dtype":"I32","shape":[2],"data_offsets":[0,8]}}`, 8, /has "dtype" twice/],
  ["metadata that is not text", `{"__metadata__":{"a":1}}`, 0, /__metadata__/],
  ["a tensor that is no object", `{"a":3}`, 0, /tensor "a" is not described by an object/],
  [
    "an unknown dtype",
    JSON.stringify({ a: tensor(0, 8, [2], "F33") }),
    8,
    /tensor "a" has unknown dtype "F33"; known: BOOL, .*F32/,
  ],
  ["a dtype that is a property of every object", JSON.stringify({ a: tensor(0, 8, [2], "constructor") }), 8, /unknown dtype/],
  ["a missing dtype", `{"a":{"shape":[2],"data_offsets":[0,8]}}`, 8, /unknown dtype undefined/],
  ["a negative dimension", JSON.stringify({ a: tensor(0, 8, [-2]) }), 8, /tensor "a" has shape \[-2\]/],
  ["a fractional dimension", JSON.stringify({ a: tensor(0, 8, [1.5]) }), 8, /tensor "a" has shape/],
  ["a dimension above 2^53", `{"a":{"dtype":"F32","shape":[9007199254740993],"data_offsets":[0,8]}}`, 8, /tensor "a" has shape/],
  ["a product that overflows", JSON.stringify({ a: tensor(0, 8, [2 ** 40, 2 ** 40]) }), 8, /overflows/],
  ["an unknown field", `{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8],"order":"F"}}`, 8, /unknown field "order"/],
  ["offsets that are no pair", `{"a":{"dtype":"F32","shape":[2],"data_offsets":[0]}}`, 8, /data_offsets \[0\]/],
  ["negative offsets", JSON.stringify({ a: tensor(-8, 0) }), 8, /data_offsets \[-8,0\]/],
  ["reversed offsets", `{"a":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}}`, 8, /data_offsets \[8,0\]/],
  [
    "a shape that does not fit its bytes",
    JSON.stringify({ a: tensor(0, 8, [3]) }),
    8,
    /tensor "a" holds 8 bytes, but F32 \[3\] takes 12/,
  ],
  ["overlapping tensors", JSON.stringify({ a: tensor(0, 8), b: tensor(4, 12) }), 12, /tensor "b" overlaps tensor "a" by 4 bytes/],
  ["a hole", JSON.stringify({ a: tensor(0, 8), b: tensor(12, 20) }), 20, /tensor "b" starts 4 bytes after the end/],
  ["a hole at the beginning", JSON.stringify({ a: tensor(4, 12) }), 12, /tensor "a" starts 4 bytes after/],
  [
    "data out of range",
    JSON.stringify({ a: tensor(0, 8), b: tensor(8, 24) }),
    20,
    /tensor "b" ends at byte \d+, but the file has \d+/,
  ],
  ["data beyond the last tensor", JSON.stringify({ a: tensor(0, 8) }), 9, /header describes/],
];
for (const [what, json, dataBytes, expected] of BAD_HEADERS) {
  Deno.test(`readHeader() refuses ${what}`, async () => {
    write(json, dataBytes);
    await refuses(expected);
  });
}

Deno.test("writeHeader() writes what readHeader() reads, aligned and within the place kept for it", async () => {
  const entries = [
    { name: "a", dtype: "U8" as const, shape: [4096], bytes: 4096 },
    { name: "b", dtype: "BF16" as const, shape: [3, 5], bytes: 30 },
  ];
  for (const [alignment, minimumBytes] of [[8, 0], [4096, 0], [4096, 5000]]) {
    const header = writeHeader(entries, alignment, minimumBytes);
    assert.equal(header.length % alignment, 0);
    assert(header.length >= minimumBytes);
    fs.writeFileSync(path, header);
    fs.appendFileSync(path, new Uint8Array(4126));
    const read = await readHeader(path);
    assert.equal(read.headerBytes, header.length);
    assert.deepEqual(read.tensors.map(({ name, dtype, shape, bytes }) => ({ name, dtype, shape, bytes })), entries);
  }
});
