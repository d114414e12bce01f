import assert from "node:assert/strict";
import fs from "node:fs";
import { join } from "node:path";
import { UnsupportedError } from "../../lib/errors.ts";
import { Context } from "../../lib/ffi/context.ts";
import { quantizedBytesBound } from "../../lib/ffi/quantize.ts";
import { PLAIN_FORMATS, rowGranularity } from "../../lib/shard/formats.ts";
import { MAX_EXTENT_BYTES, type WeightFormatName } from "../../lib/shard/manifest.ts";
import { cutIntoExtents, MAX_SOURCE_CHUNK_BYTES } from "../../lib/shard/quantize_plan.ts";
import { quantizeCheckpoint } from "../../lib/shard/quantizer.ts";
import { openShards } from "../../lib/shard/reader.ts";
import { gaussian, TINY_CONFIG, tinyTensors, writeCheckpoint } from "../checkpoint/tiny_checkpoint.ts";
import { withTemporaryDirectory } from "../temporary_directory.ts";
import { dequantized, snrDb } from "./dequantized.ts";

Deno.test("cutIntoExtents() keeps both limits and the format's granularity, in nearly equal extents, for shapes up to a 405B's", () => {
  using context = Context.open();
  const bound = (format: WeightFormatName, rows: number, cols: number) =>
    quantizedBytesBound(context, context.formatId(format), rows, cols);
  const shapes = [[1, 1], [7, 53_248], [131, 72], [11_008, 4096], [12_000, 1000], [128_256, 16_384], [53_248, 16_384], [
    16_384,
    53_248,
  ]];
  for (const format of PLAIN_FORMATS) {
    for (const [rows, cols] of shapes) {
      for (const elementBytes of [2, 4]) {
        const cut = cutIntoExtents("x", format, rows, cols, cols * elementBytes, bound);
        const what = `${format} [${rows}, ${cols}]`;
        assert.equal(cut.reduce((sum, n) => sum + n, 0), rows, what);
        for (const n of cut) {
          assert(bound(format, n, cols) <= MAX_EXTENT_BYTES && n * cols * elementBytes <= MAX_SOURCE_CHUNK_BYTES, what);
        }
        assert(cut.slice(0, -1).every((n) => n === cut[0] && n % rowGranularity(format, cols) === 0), what);
        if (cut.length < 2) continue;
        // No more extents than needed: one row granule more than twice an extent would not fit one.
        const doubled = 2 * cut[0] + rowGranularity(format, cols);
        assert(bound(format, doubled, cols) > MAX_EXTENT_BYTES || doubled * cols * elementBytes > MAX_SOURCE_CHUNK_BYTES, what);
      }
    }
  }
});

Deno.test("cutIntoExtents() refuses rows that no extent can hold", () => {
  assert.throws(
    () => cutIntoExtents("wide", "f32", 2, 1, 4, () => MAX_EXTENT_BYTES + 1),
    (error: Error) =>
      error instanceof UnsupportedError && /tensor "wide" as f32: 1 rows of 1 exceed an extent/.test(error.message),
  );
});

Deno.test("matrices of several extents come back with every row in its place, q4o and nf4", () =>
  withTemporaryDirectory(async (directory) => {
    // 1000 columns: an nf4 extent starts on a block at each 8th row only.
    const config = { ...TINY_CONFIG, num_hidden_layers: 1, hidden_size: 1000, intermediate_size: 8800, vocab_size: 50 };
    const source = join(directory, "source");
    const tensors = tinyTensors({ ...config, intermediate_size: 8 }, "F32");
    const random = gaussian(5);
    const block = Float32Array.from({ length: 1_000_003 }, () => 0.02 * random());
    for (const tensor of tensors.filter(({ name }) => name.includes(".mlp."))) {
      tensor.shape = tensor.shape.map((n) => n === 8 ? 8800 : n);
      tensor.values = new Float32Array(tensor.shape[0] * tensor.shape[1]);
      for (let at = 0; at < tensor.values.length; at += block.length) {
        tensor.values.set(block.subarray(0, Math.min(block.length, tensor.values.length - at)), at);
      }
    }
    writeCheckpoint(source, tensors, config);
    using context = Context.open();
    for (const compression of ["q4o", "nf4"] as const) {
      const out = join(directory, compression);
      await quantizeCheckpoint({ source, out, compression });
      const shards = await openShards(out);
      for (const { name, values } of tensors.filter(({ name }) => name.includes(".mlp."))) {
        const entry = shards.tensor(name);
        assert(entry.extents.length >= 2, name);
        const weights = await dequantized(context, shards, entry);
        let at = 0;
        for (const { rows } of entry.extents) {
          const end = at + rows * entry.cols;
          const snr = snrDb(values.subarray(at, end), weights.subarray(at, end));
          assert(snr > 20 && Math.abs(snr - entry.snrDb!) < 0.2, `${name}: ${snr} dB of ${entry.snrDb}`);
          at = end;
        }
      }
      fs.rmSync(out, { recursive: true });
    }
  }));
