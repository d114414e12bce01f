import assert from "node:assert/strict";
import fs from "node:fs";
import { fileURLToPath } from "node:url";
import { FormatError } from "../../lib/errors.ts";
import { extentBytes } from "../../lib/shard/formats.ts";
import { GENERATOR, type Manifest, MAX_EXTENT_BYTES } from "../../lib/shard/manifest.ts";
import { parseManifest, sealJson, serializeManifest } from "../../lib/shard/manifest_file.ts";

const HASH = "0123456789abcdef".repeat(4);

/** Returns a small valid manifest: a vector and an nf4 matrix of two extents in one file, a q4o matrix in another. */
function sample(): Manifest {
  return {
    format: "airkern-shards",
    formatVersion: 1,
    generator: "test",
    config: { model_type: "llama", "1": 1e-5, nested: { "é": [null, "\ud83d\ude00"] } },
    generationConfig: null,
    tokenizerFiles: [
      { name: "tokenizer.json", bytes: 2, sha256: HASH },
      { name: "additional_chat_templates/tool_use.jinja", bytes: 3, sha256: HASH },
    ],
    source: { name: "tiny", revision: "abc" },
    compression: "nf4",
    files: [
      { name: "layer-0000.safetensors", bytes: 4096 * 5, headerBytes: 8192, headerSha256: HASH },
      { name: "layer-0001.safetensors", bytes: 4096 * 2, headerBytes: 4096, headerSha256: HASH },
    ],
    tensors: [
      {
        name: "norm",
        file: 0,
        format: "f32",
        rows: 1,
        cols: 24,
        extents: [{ offset: 8192, bytes: 96, rows: 1, outliers: 0, sha256: HASH }],
        snrDb: null,
      },
      {
        name: "matrix",
        file: 0,
        format: "nf4",
        rows: 11,
        cols: 24,
        extents: [
          { offset: 12288, bytes: extentBytes("nf4", 8, 24, 0), rows: 8, outliers: 0, sha256: HASH },
          { offset: 16384, bytes: extentBytes("nf4", 3, 24, 0), rows: 3, outliers: 0, sha256: HASH },
        ],
        snrDb: 20.5,
      },
      {
        name: "other",
        file: 1,
        format: "q4o",
        rows: 3,
        cols: 40,
        extents: [{ offset: 4096, bytes: extentBytes("q4o", 3, 40, 2), rows: 3, outliers: 2, sha256: HASH }],
        snrDb: 22.5,
      },
    ],
    ignoredTensors: [{ name: "inv_freq", reason: "recomputed" }],
  };
}

Deno.test("parseManifest() gives back what serializeManifest() was given", () => {
  assert.deepEqual(parseManifest(serializeManifest(sample()), "airkern.json"), sample());
});

Deno.test("parseManifest() finds every flipped bit of the file", () => {
  const bytes = new TextEncoder().encode(serializeManifest(sample()));
  for (let i = 0; i < bytes.length - 1; i++) {
    const damaged = bytes.slice();
    damaged[i] ^= 1 << (i % 8);
    assert.throws(() => parseManifest(new TextDecoder().decode(damaged), "airkern.json"), FormatError, `byte ${i}`);
  }
  for (const cut of [0, 1, 100, bytes.length - 3]) {
    assert.throws(() => parseManifest(new TextDecoder().decode(bytes.subarray(0, cut)), "airkern.json"), FormatError);
  }
});

// deno-lint-ignore no-explicit-any -- the edits break the type on purpose
const BAD: [string, (manifest: any) => void, RegExp][] = [
  ["another format", (m) => m.format = "x", /format is "x", required "airkern-shards"/],
  ["a later version", (m) => m.formatVersion = 2, /formatVersion is 2, required 1/],
  ["an unknown field", (m) => m.extra = 1, /unknown field "extra"/],
  ["an unknown field of an extent", (m) => m.tensors[1].extents[0].extra = 1, /tensors\[1\], extents\[0\]: unknown field/],
  ["a missing field", (m) => delete m.tensors, /tensors is missing, required a list/],
  ["an unknown compression", (m) => m.compression = "q3", /compression is "q3"/],
  ["an unknown weight format", (m) => m.tensors[0].format = "f64", /format is "f64", required .*"q4o"/],
  ["a file outside of the directory", (m) => m.files[0].name = "../x", /name is "..\/x", required a plain file name/],
  ["a hidden file", (m) => m.files[0].name = ".x", /required a plain file name/],
  [
    "a tokenizer file of another folder",
    (m) => m.tokenizerFiles[0].name = "other/x.jinja",
    /name is "other\/x.jinja", required a plain/,
  ],
  [
    "a chat template outside of its folder",
    (m) => m.tokenizerFiles[0].name = "additional_chat_templates/../x.jinja",
    /required a plain file name/,
  ],
  ["two files of one name", (m) => m.files[1].name = m.files[0].name, /file "layer-0000.safetensors" is listed twice/],
  ["a tokenizer file that is a shard", (m) => m.tokenizerFiles[0].name = m.files[0].name, /is listed twice/],
  ["two tensors of one name", (m) => m.tensors[1].name = "norm", /tensor "norm" is listed twice/],
  ["a file index out of range", (m) => m.tensors[0].file = 2, /file is 2, required an integer from 0 to 1/],
  ["a negative offset", (m) => m.tensors[0].extents[0].offset = -4096, /offset is -4096/],
  ["an offset that is not aligned", (m) => m.tensors[0].extents[0].offset = 8200, /offset is 8200, required a multiple of 4096/],
  [
    "an offset within the header",
    (m) => m.tensors[0].extents[0].offset = 4096,
    /overlaps what is before it; required offset 8192/,
  ],
  ["overlapping extents", (m) => m.tensors[1].extents[1].offset = 12288, /overlaps/],
  ["a gap", (m) => m.tensors[1].extents[1].offset = 20480, /leaves a gap/],
  ["an extent beyond the end", (m) => m.files[0].bytes = 4096 * 4, /end at byte 20480, but its size is 16384/],
  ["bytes beyond the last extent", (m) => m.files[0].bytes = 4096 * 6, /end at byte 20480, but its size is 24576/],
  ["a size that is not the layout's", (m) => m.tensors[2].extents[0].bytes++, /bytes is \d+, required \d+ for q4o \[3, 40\]/],
  ["outliers that are not in the size", (m) => m.tensors[2].extents[0].outliers = 200, /required \d+ for q4o/],
  [
    "outliers of a format without them",
    (m) => m.tensors[0].extents[0].outliers = 1,
    /outliers is 1, required an integer from 0 to 0/,
  ],
  [
    "an extent that is too large",
    (m) => m.tensors[0].extents[0].bytes = MAX_EXTENT_BYTES + 1,
    /bytes is 4194305, required an integer from 1 to 4194304/,
  ],
  ["rows that do not sum up", (m) => m.tensors[1].rows = 12, /rows is 12, required 11, the sum/],
  ["no rows", (m) => m.tensors[1].extents[0].rows = 0, /rows is 0/],
  ["fractional rows", (m) => m.tensors[1].extents[0].rows = 7.5, /rows is 7.5/],
  ["nf4 extents within a block", (m) => {
    const [a, b] = m.tensors[1].extents;
    [a.rows, b.rows] = [7, 4];
    [a.bytes, b.bytes] = [extentBytes("nf4", 7, 24, 0), extentBytes("nf4", 4, 24, 0)];
  }, /nf4 extents must start on a multiple of 8 rows/],
  ["q4o columns beyond 16 bits", (m) => m.tensors[2].cols = 65537, /cols is 65537/],
  ["a hash that is none", (m) => m.tensors[0].extents[0].sha256 = "x", /sha256 is "x", required 64 hex digits/],
  ["a header without room", (m) => m.files[0].headerBytes = 0, /headerBytes is 0/],
  ["a config that is no object", (m) => m.config = [], /config is \[\], required an object/],
];
for (const [what, edit, expected] of BAD) {
  Deno.test(`parseManifest() refuses ${what}, under a valid hash`, () => {
    const manifest = sample();
    edit(manifest);
    assert.throws(() => parseManifest(sealJson(manifest), "airkern.json"), (error: Error) => {
      assert(error instanceof FormatError, error.stack);
      assert.match(error.message, expected);
      assert(error.message.startsWith("Cannot read airkern.json") && !error.message.includes("\n"), error.message);
      return true;
    });
  });
}

Deno.test("GENERATOR has the version of deno.json", () => {
  const { version } = JSON.parse(fs.readFileSync(fileURLToPath(new URL("../../deno.json", import.meta.url)), "utf8"));
  assert.equal(GENERATOR, `airkern ${version}`);
});
