import assert from "node:assert/strict";
import fs from "node:fs";
import { join } from "node:path";
import { FormatError, UnsupportedError, UsageError } from "../../lib/errors.ts";
import { Context } from "../../lib/ffi/context.ts";
import type { Compression } from "../../lib/shard/manifest.ts";
import { quantizeCheckpoint } from "../../lib/shard/quantizer.ts";
import { openShards } from "../../lib/shard/reader.ts";
import { verifyShards } from "../../lib/shard/verify.ts";
import { TINY_CONFIG, type TinyTensor, tinyTensors, writeCheckpoint } from "../checkpoint/tiny_checkpoint.ts";
import { withTemporaryDirectory } from "../temporary_directory.ts";
import { dequantized, snrDb } from "./dequantized.ts";

const kept: Record<string, string> = { F32: "f32", F16: "f16", BF16: "bf16" };
/** Least SNR in dB expected of normally distributed weights. */
const LEAST_SNR: Record<Compression, number> = { q4o: 19, nf4: 19, q8: 38, none: Infinity };

for (const compression of ["none", "q8", "nf4", "q4o"] as const) {
  for (const [dtype, fileCount] of [["F32", 1], ["F16", 2], ["BF16", 3]] as const) {
    Deno.test(`quantizeCheckpoint() as ${compression} keeps ${dtype} weights of ${fileCount} file(s) within its SNR, which it reports`, () =>
      withTemporaryDirectory(async (directory) => {
        const source = join(directory, "tiny"), out = join(directory, "out");
        const tensors = tinyTensors(TINY_CONFIG, dtype);
        writeCheckpoint(source, tensors, TINY_CONFIG, fileCount);
        const report = await quantizeCheckpoint({ source, out, compression });
        const shards = await openShards(out);
        assert.deepEqual((await verifyShards(out)).damages, []);
        assert.deepEqual(shards.manifest.config, TINY_CONFIG);
        assert.deepEqual(fs.readdirSync(out).filter((name) => !name.endsWith("safetensors")).sort(), [
          "airkern.json",
          "tokenizer.json",
          "tokenizer_config.json",
        ]);
        assert.equal(shards.manifest.tensors.length, tensors.length);
        using context = Context.open();
        for (const { name, shape, values } of tensors) {
          const entry = shards.tensor(name);
          const weights = await dequantized(context, shards, entry);
          const lossless = shape.length === 1 || compression === "none";
          const narrow = /embed|lm_head/.test(name);
          const format = shape.length === 1 ? "f32" : compression === "none" ? kept[dtype] : narrow ? "q8" : compression;
          assert.equal(entry.format, format, name);
          if (lossless) {
            assert.deepEqual(weights, values, name);
            assert.equal(entry.snrDb, null);
          } else {
            const measured = snrDb(values, weights);
            assert(measured > LEAST_SNR[narrow ? "q8" : compression], `${name}: ${measured} dB`);
            assert(Math.abs(measured - entry.snrDb!) < 0.05, `${name}: measured ${measured} dB, reported ${entry.snrDb}`);
          }
        }
        const { kinds, total } = report;
        assert.equal(total.weights, tensors.reduce((sum, { values }) => sum + values.length, 0));
        assert.equal(kinds.find(({ kind }) => kind === "mlp.down_proj.weight")!.tensors, 3);
        assert.equal(total.bytes, kinds.reduce((sum, { bytes }) => sum + bytes, 0));
        const stored = shards.manifest.tensors.flatMap(({ extents }) => extents).reduce((sum, { bytes }) => sum + bytes, 0);
        assert.equal(total.bitsPerWeight, stored * 8 / total.weights);
      }));
  }
}

Deno.test("quantizeCheckpoint() puts a layer's vectors before its matrices and names extents relative to the layer", () =>
  withTemporaryDirectory(async (directory) => {
    const config = { ...TINY_CONFIG, attention_bias: true, tie_word_embeddings: true };
    const tensors = tinyTensors(config, "F16");
    const extra: TinyTensor = {
      name: "model.layers.0.self_attn.rotary_emb.inv_freq",
      dtype: "F32",
      shape: [9],
      values: new Float32Array(9),
    };
    const tied: TinyTensor = { ...tensors[0], name: "lm_head.weight" };
    writeCheckpoint(join(directory, "tiny"), [...tensors, extra, tied], config);
    const report = await quantizeCheckpoint({ source: join(directory, "tiny"), out: join(directory, "out"), compression: "q8" });
    assert.deepEqual(report.ignoredTensors.map(({ name }) => name), [extra.name, tied.name]);
    const { manifest } = await openShards(join(directory, "out"));
    assert.deepEqual(manifest.ignoredTensors, report.ignoredTensors);
    assert.deepEqual(manifest.files.map(({ name }) => name), [
      "embedding.safetensors",
      "layer-0000.safetensors",
      "layer-0001.safetensors",
      "layer-0002.safetensors",
      "head.safetensors",
    ]);
    const layer = manifest.tensors.filter(({ file }) => file === 2);
    assert.deepEqual(layer.map(({ format }) => format), [...Array(6).fill("f32"), ...Array(7).fill("q8")].slice(-layer.length));
    assert(layer.every(({ name }) => name.startsWith("model.layers.1.")));
    const header = fs.readFileSync(join(directory, "out", "layer-0001.safetensors"), "latin1").slice(8, 4096);
    assert.deepEqual(Object.keys(JSON.parse(header)), layer.map(({ name }) => `${name.slice("model.layers.1.".length)}#0`));
  }));

/** Writes a checkpoint, lets `edit` change its tensors, and expects that quantizing it fails without leaving a model or, at first, anything. */
async function refuses(
  edit: (tensors: TinyTensor[]) => TinyTensor[] | void,
  kind: new (message: string) => Error,
  expected: RegExp,
  config: Record<string, unknown> = TINY_CONFIG,
): Promise<void> {
  await withTemporaryDirectory(async (directory) => {
    const tensors = tinyTensors(TINY_CONFIG, "F16");
    const source = join(directory, "tiny"), out = join(directory, "deep", "out");
    writeCheckpoint(source, edit(tensors) ?? tensors, config);
    await assert.rejects(quantizeCheckpoint({ source, out, compression: "q4o" }), (error: Error) => {
      assert(error instanceof kind, error.stack);
      assert.match(error.message, expected);
      assert(!error.message.includes("\n"), error.message);
      return true;
    });
    assert(!fs.existsSync(join(directory, "deep")), "nothing is left behind");
  });
}

Deno.test("quantizeCheckpoint() refuses what it cannot use, naming tensor, current and required, and leaves nothing behind", async () => {
  const name = "model.layers.1.mlp.up_proj.weight";
  const of = (tensors: TinyTensor[]) => tensors.find((tensor) => tensor.name === name)!;
  await refuses(
    (all) => all.filter((tensor) => tensor.name !== name),
    FormatError,
    /up_proj.weight" is missing; required .*\[100, 72\]/,
  );
  await refuses(
    (all) => void (of(all).shape = [72, 100]),
    FormatError,
    /up_proj.weight" has shape \[72, 100\], required \[100, 72\]/,
  );
  await refuses(
    (all) => void Object.assign(of(all), { dtype: "F32", shape: [50, 72], values: new Float32Array(3600) }),
    FormatError,
    /has shape \[50, 72\]/,
  );
  await refuses(
    (all) => [...all, { ...of(all), name: "extra.weight" }],
    FormatError,
    /tensor "extra.weight" is not one of a llama/,
  );
  await refuses(() => {}, UnsupportedError, /architecture "xlnet": supported: llama/, { ...TINY_CONFIG, model_type: "xlnet" });
  await refuses(() => {}, UnsupportedError, /rope/, { ...TINY_CONFIG, rope_scaling: { type: "twisted", factor: 2 } });
  await withTemporaryDirectory(async (directory) => {
    const source = join(directory, "none");
    await assert.rejects(quantizeCheckpoint({ source, out: join(directory, "o"), compression: "q8" }), /none: no such directory/);
    writeCheckpoint(source, tinyTensors(TINY_CONFIG, "F16"));
    await assert.rejects(quantizeCheckpoint({ source, out: source, compression: "q8" }), UsageError);
    fs.mkdirSync(join(directory, "other"));
    fs.writeFileSync(join(directory, "other", "thesis.txt"), "x");
    await assert.rejects(
      quantizeCheckpoint({ source, out: join(directory, "other"), compression: "q8" }),
      /it holds thesis.txt and no unfinished quantization/,
    );
    assert.deepEqual(fs.readdirSync(join(directory, "other")), ["thesis.txt"]);
  });
});

Deno.test("quantizeCheckpoint() refuses an element type it cannot quantize", () =>
  withTemporaryDirectory(async (directory) => {
    const path = join(directory, "tiny");
    const tensors = tinyTensors(TINY_CONFIG, "F16");
    writeCheckpoint(path, tensors);
    const file = join(path, "model.safetensors");
    fs.writeFileSync(file, fs.readFileSync(file, "latin1").replaceAll('"F16"', '"I16"'), "latin1");
    await assert.rejects(
      quantizeCheckpoint({ source: path, out: join(directory, "out"), compression: "q8" }),
      /tensor "model.embed_tokens.weight" has dtype I16, supported: F32, F16, BF16/,
    );
  }));

for (const compression of ["q4o", "nf4", "q8", "none"] as const) {
  for (const value of [NaN, -Infinity]) {
    Deno.test(`quantizeCheckpoint() as ${compression} refuses a weight that is ${value} and keeps finished layers`, () =>
      withTemporaryDirectory(async (directory) => {
        const source = join(directory, "tiny"), out = join(directory, "out");
        const tensors = tinyTensors(TINY_CONFIG, "BF16");
        const bad = tensors.find(({ name }) => name === "model.layers.1.self_attn.k_proj.weight")!;
        bad.values[1234] = value;
        writeCheckpoint(source, tensors);
        await assert.rejects(quantizeCheckpoint({ source, out, compression }), (error: Error) => {
          assert(error instanceof FormatError, error.stack);
          assert.match(error.message, /tensor "model.layers.1.self_attn.k_proj.weight" holds NaN or infinity in rows 0 to 35/);
          return true;
        });
        assert.deepEqual(fs.readdirSync(out).sort(), [
          "embedding.safetensors",
          "layer-0000.safetensors",
          "quantize-journal.json",
        ]);
        await assert.rejects(openShards(out), /holds no airkern.json/);
      }));
  }
}
