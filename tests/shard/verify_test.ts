import assert from "node:assert/strict";
import fs from "node:fs";
import { join } from "node:path";
import { CancelledError, FormatError } from "../../lib/errors.ts";
import { inspectCheckpoint, inspectShards } from "../../lib/shard/inspect.ts";
import { quantizeCheckpoint } from "../../lib/shard/quantizer.ts";
import { openShards } from "../../lib/shard/reader.ts";
import { verifyShards } from "../../lib/shard/verify.ts";
import { TINY_CONFIG, tinyTensors, writeCheckpoint } from "../checkpoint/tiny_checkpoint.ts";
import { withTemporaryDirectory } from "../temporary_directory.ts";

/** Runs a test with a quantized tiny model. */
function withShards(body: (shards: string, source: string) => Promise<void>): Promise<void> {
  return withTemporaryDirectory(async (directory) => {
    const source = join(directory, "tiny"), out = join(directory, "out");
    writeCheckpoint(source, tinyTensors(TINY_CONFIG, "F16"));
    await quantizeCheckpoint({ source, out, compression: "q8" });
    await body(out, source);
  });
}

function flip(path: string, at: number): void {
  const bytes = fs.readFileSync(path);
  bytes[at] ^= 0x10;
  fs.writeFileSync(path, bytes);
}

Deno.test("verifyShards() finds a flipped bit in any extent, its padding included, and names tensor, file and offset", () =>
  withShards(async (out) => {
    const { manifest } = await openShards(out);
    for (const tensor of manifest.tensors) {
      const { offset, bytes } = tensor.extents[0], file = manifest.files[tensor.file].name;
      const padded = Math.ceil(bytes / 4096) * 4096;
      for (const at of [offset, offset + bytes - 1, offset + padded - 1]) {
        flip(join(out, file), at);
        const { damages } = await verifyShards(out);
        assert.deepEqual(damages.map(({ message: _, ...rest }) => rest), [{ file, tensor: tensor.name, extent: 0, offset }]);
        assert.match(
          damages[0].message,
          new RegExp(`^${tensor.name}, extent 0, at byte ${offset} of ${file} is damaged: its SHA-256`),
        );
        flip(join(out, file), at);
      }
    }
    const whole = await verifyShards(out);
    assert.deepEqual(whole.damages, []);
    assert.equal(whole.extents, manifest.tensors.length);
    assert.equal(whole.bytes, manifest.files.reduce((sum, { bytes, headerBytes }) => sum + bytes - headerBytes, 0));
  }));

Deno.test("verifyShards() reports all that is damaged at once: headers, sizes, missing and tokenizer files", () =>
  withShards(async (out) => {
    flip(join(out, "layer-0000.safetensors"), 100);
    fs.truncateSync(join(out, "layer-0001.safetensors"), fs.statSync(join(out, "layer-0001.safetensors")).size - 1);
    fs.rmSync(join(out, "layer-0002.safetensors"));
    flip(join(out, "tokenizer.json"), 3);
    fs.rmSync(join(out, "tokenizer_config.json"));
    const { damages } = await verifyShards(out);
    const of = (file: string) => damages.filter((damage) => damage.file === file).map(({ message }) => message);
    assert.match(of("layer-0000.safetensors")[0], /its header is damaged/);
    assert.equal(of("layer-0000.safetensors").length, 1);
    assert.match(of("layer-0001.safetensors")[0], /it has \d+ bytes, required \d+/);
    assert.match(of("layer-0001.safetensors")[1], /mlp.down_proj.weight, extent 0, .*: the file ends within it/);
    assert.deepEqual(of("layer-0002.safetensors"), ["layer-0002.safetensors: the file is missing"]);
    assert.match(of("tokenizer.json")[0], /tokenizer.json is damaged/);
    assert.match(of("tokenizer_config.json")[0], /tokenizer_config.json is missing/);
    assert.equal(damages.length, 6);
    flip(join(out, "airkern.json"), 500);
    await assert.rejects(verifyShards(out), FormatError);
  }));

Deno.test("verifyShards() shows its progress and stops at its signal", () =>
  withShards(async (out) => {
    const done: number[] = [];
    const controller = new AbortController();
    const { bytes } = await verifyShards(out, { onProgress: ({ doneBytes }) => done.push(doneBytes) });
    assert.equal(done.at(-1), bytes);
    const stopping = verifyShards(out, { onProgress: () => controller.abort(), signal: controller.signal });
    await assert.rejects(stopping, CancelledError);
  }));

Deno.test("inspectShards() and inspectCheckpoint() describe the same model", () =>
  withShards(async (out, source) => {
    const shards = await inspectShards(out), checkpoint = await inspectCheckpoint(source);
    assert.deepEqual(shards.config, checkpoint.config);
    assert.deepEqual(shards.source, checkpoint.source);
    assert.equal(shards.total.weights, checkpoint.total.weights);
    assert.equal(checkpoint.total.bitsPerWeight, 16);
    const name = "model.layers.2.mlp.gate_proj.weight";
    const { snrDb, ...tensor } = shards.tensors.find((tensor) => tensor.name === name)!;
    // 72 columns are 3 blocks of 32 codes and a 16-bit scale, which start on a multiple of 64 bytes.
    const bytes = Math.ceil(100 * 3 * 2 / 64) * 64 + 100 * 3 * 32;
    assert.deepEqual(tensor, {
      name,
      file: "layer-0002.safetensors",
      format: "q8",
      rows: 100,
      cols: 72,
      bytes,
      bitsPerWeight: bytes * 8 / 7200,
      outliers: 0,
      extents: 1,
    });
    assert(snrDb! > 38);
    assert.deepEqual(checkpoint.tensors.find((tensor) => tensor.name === name), {
      name,
      file: "model.safetensors",
      dtype: "F16",
      shape: [100, 72],
      bytes: 14400,
      bitsPerWeight: 16,
    });
    assert.equal(shards.fileBytes, shards.files.reduce((sum, file) => sum + file.bytes, 0));
  }));
