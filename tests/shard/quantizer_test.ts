import assert from "node:assert/strict";
import fs from "node:fs";
import { join } from "node:path";
import { BudgetError, CancelledError, FormatError, UnsupportedError, UsageError } from "../../lib/errors.ts";
import { Context } from "../../lib/ffi/context.ts";
import { Ops } from "../../lib/ffi/ops.ts";
import type { Compression, TensorEntry } from "../../lib/shard/manifest.ts";
import { quantizeCheckpoint, type QuantizeOptions } from "../../lib/shard/quantizer.ts";
import { openShards, type ShardDirectory } from "../../lib/shard/reader.ts";
import { verifyShards } from "../../lib/shard/verify.ts";
import { TINY_CONFIG, type TinyTensor, tinyTensors, writeCheckpoint } from "../checkpoint/tiny_checkpoint.ts";
import { withTemporaryDirectory } from "../temporary_directory.ts";

/** Returns all weights of a stored tensor, dequantized by the native library. */
async function dequantized(context: Context, shards: ShardDirectory, tensor: TensorEntry): Promise<Float32Array> {
  const weights = new Float32Array(tensor.rows * tensor.cols);
  const file = fs.readFileSync(shards.filePaths[tensor.file]);
  using stream = context.stream();
  const ops = new Ops(stream);
  let at = 0;
  for (const { offset, bytes, rows, outliers } of tensor.extents) {
    using from = context.hostBuffer(bytes);
    using to = context.hostBuffer(rows * tensor.cols * 4);
    from.view().set(file.subarray(offset, offset + bytes));
    ops.dequantize(to.address, {
      format: context.formatId(tensor.format),
      address: from.address,
      bytes: BigInt(bytes),
      rows: BigInt(rows),
      cols: BigInt(tensor.cols),
      outliers: BigInt(outliers),
    });
    await stream.synchronize();
    weights.set(new Float32Array(to.buffer), at);
    at += rows * tensor.cols;
  }
  return weights;
}

function snrDb(weights: Float32Array, approximated: Float32Array): number {
  let signal = 0, noise = 0;
  weights.forEach((w, i) => {
    signal += w * w;
    noise += (w - approximated[i]) ** 2;
  });
  return 10 * Math.log10(signal / noise);
}

/** Returns every file of a directory with its content. */
function contents(directory: string): Map<string, string> {
  return new Map(fs.readdirSync(directory).sort().map((name) => [name, fs.readFileSync(join(directory, name), "latin1")]));
}

/** Returns name, inode and modification time of the shard files that are finished. */
function identities(directory: string): string[] {
  return fs.readdirSync(directory).filter((name) => name.endsWith(".safetensors")).map((name) => {
    const { ino, mtimeMs } = fs.statSync(join(directory, name));
    return `${name} ${ino} ${mtimeMs}`;
  });
}

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
  await refuses(() => {}, UnsupportedError, /architecture "gpt2": supported: llama/, { ...TINY_CONFIG, model_type: "gpt2" });
  await refuses(() => {}, UnsupportedError, /rope/, { ...TINY_CONFIG, rope_scaling: { type: "yarn", factor: 2 } });
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

/** Starts a child that stands still at an event of progress, and kills it there. */
async function killedAt(stopAt: number, source: string, out: string, compression: Compression): Promise<void> {
  const child = new Deno.Command(Deno.execPath(), {
    args: [
      "run",
      "-A",
      "--no-check",
      new URL("quantize_child.ts", import.meta.url).pathname,
      source,
      out,
      compression,
      String(stopAt),
    ],
    stdout: "piped",
  }).spawn();
  const reader = child.stdout.getReader();
  const { value } = await reader.read();
  child.kill("SIGKILL");
  await reader.cancel();
  assert.equal(new TextDecoder().decode(value), "standing still\n");
  assert.equal((await child.status).signal, "SIGKILL");
}

Deno.test("quantizeCheckpoint() killed anywhere goes on without redoing finished files, and ends with the same bytes", () =>
  withTemporaryDirectory(async (directory) => {
    const source = join(directory, "tiny"), out = join(directory, "out"), whole = join(directory, "whole");
    writeCheckpoint(source, tinyTensors(TINY_CONFIG, "F16"), TINY_CONFIG, 2);
    await quantizeCheckpoint({ source, out: whole, compression: "q4o" });
    // Events: the first, 1 of the embedding, 9 a layer, 2 of the head; those of files that are finished do not come again.
    for (const [stopAt, finished] of [[1, 0], [5, 1], [12, 2], [7, 2]]) {
      const before = fs.existsSync(out) ? identities(out) : [];
      await killedAt(stopAt, source, out, "q4o");
      assert(fs.readdirSync(out).includes("quantize-journal.json"));
      await assert.rejects(openShards(out), /no \(finished\) shard directory/);
      const after = identities(out);
      assert(before.every((identity) => after.includes(identity)), `${before} -> ${after}`);
      assert.equal(after.length, finished);
    }
    const before = identities(out);
    const report = await quantizeCheckpoint({ source, out, compression: "q4o" });
    assert.equal(report.resumedFiles, before.length);
    const after = identities(out);
    assert(before.every((identity) => after.includes(identity)));
    assert.deepEqual(contents(out), contents(whole));
  }));

/** Runs until `chunks` extents are done, then aborts. */
async function abortedAfter(chunks: number, options: QuantizeOptions): Promise<void> {
  const controller = new AbortController();
  const onProgress = () => void (chunks-- === 0 && controller.abort());
  await assert.rejects(quantizeCheckpoint({ ...options, onProgress, signal: controller.signal }), CancelledError);
}

Deno.test("quantizeCheckpoint() stops at its signal, and refuses to mix another format or model into what is unfinished", () =>
  withTemporaryDirectory(async (directory) => {
    const source = join(directory, "tiny"), other = join(directory, "other"), out = join(directory, "out");
    writeCheckpoint(source, tinyTensors(TINY_CONFIG, "F16"));
    writeCheckpoint(other, tinyTensors(TINY_CONFIG, "F16", 2));
    await abortedAfter(0, { source, out, compression: "nf4" });
    await abortedAfter(14, { source, out, compression: "nf4" });
    const before = identities(out);
    assert.equal(before.length, 2);
    assert(!fs.readdirSync(out).some((name) => name.endsWith(".partial")));
    await assert.rejects(
      quantizeCheckpoint({ source, out, compression: "q4o" }),
      /unfinished quantization with compression nf4, asked for q4o/,
    );
    await assert.rejects(
      quantizeCheckpoint({ source: other, out, compression: "nf4" }),
      /unfinished quantization with fingerprint/,
    );
    assert.deepEqual(identities(out), before);
    // Written to since: what was made from it may be of something else.
    const later = new Date(Date.now() + 5000);
    fs.utimesSync(join(source, "model.safetensors"), later, later);
    assert.equal((await quantizeCheckpoint({ source, out, compression: "nf4" })).resumedFiles, 0);
    assert.deepEqual((await verifyShards(out)).damages, []);
  }));

Deno.test("quantizeCheckpoint() redoes a finished file whose header was damaged meanwhile", () =>
  withTemporaryDirectory(async (directory) => {
    const source = join(directory, "tiny"), out = join(directory, "out");
    writeCheckpoint(source, tinyTensors(TINY_CONFIG, "F16"));
    await abortedAfter(14, { source, out, compression: "q8" });
    fs.truncateSync(join(out, "layer-0000.safetensors"), 5000);
    assert.equal((await quantizeCheckpoint({ source, out, compression: "q8" })).resumedFiles, 1);
    assert.deepEqual((await verifyShards(out)).damages, []);
  }));

Deno.test("quantizeCheckpoint() recognises its whole output, and refuses that of another model or format", () =>
  withTemporaryDirectory(async (directory) => {
    const source = join(directory, "tiny"), other = join(directory, "other"), out = join(directory, "out");
    writeCheckpoint(source, tinyTensors(TINY_CONFIG, "F16"));
    writeCheckpoint(other, tinyTensors(TINY_CONFIG, "F16", 2));
    const first = await quantizeCheckpoint({ source, out, compression: "q8" });
    const before = identities(out);
    const again = await quantizeCheckpoint({ source, out, compression: "q8" });
    assert(again.alreadyComplete && !first.alreadyComplete);
    assert.deepEqual({ ...again, seconds: 0, alreadyComplete: false }, { ...first, seconds: 0 });
    await assert.rejects(
      quantizeCheckpoint({ source, out, compression: "none" }),
      /it holds tiny \(.*\) as q8, asked for tiny \(.*\) as none/,
    );
    await assert.rejects(quantizeCheckpoint({ source: other, out, compression: "q8" }), UsageError);
    assert.deepEqual(identities(out), before);
  }));

Deno.test("two runs into one directory: the second waits and finds all done", () =>
  withTemporaryDirectory(async (directory) => {
    const source = join(directory, "tiny"), out = join(directory, "out");
    writeCheckpoint(source, tinyTensors(TINY_CONFIG, "F16"));
    const phases: string[] = [];
    const reports = await Promise.all(
      [0, 1].map(() => quantizeCheckpoint({ source, out, compression: "q8", onProgress: ({ phase }) => phases.push(phase) })),
    );
    assert.deepEqual(reports.map(({ alreadyComplete }) => alreadyComplete).sort(), [false, true]);
    assert(phases.includes("wait"));
  }));

Deno.test("deleteOriginal removes the source's weights only when the output was reread whole and the source is what it was", () =>
  withTemporaryDirectory(async (directory) => {
    const source = join(directory, "tiny"), out = join(directory, "out");
    writeCheckpoint(source, tinyTensors(TINY_CONFIG, "F16"), TINY_CONFIG, 3);
    const sources = fs.readdirSync(source).filter((name) => name.endsWith(".safetensors"));
    const options: QuantizeOptions = { source, out, compression: "q8", deleteOriginal: true };
    await quantizeCheckpoint({ ...options, deleteOriginal: false });
    const file = join(out, "layer-0002.safetensors");
    const bytes = fs.readFileSync(file);
    bytes[bytes.length - 5000] ^= 4;
    fs.writeFileSync(file, bytes);
    await assert.rejects(
      quantizeCheckpoint(options),
      /the output is damaged, the source is kept: model.layers.2.mlp.down_proj.weight, extent 0/,
    );
    bytes[bytes.length - 5000] ^= 4;
    fs.writeFileSync(file, bytes);
    const path = join(source, sources[1]), { mtime } = fs.statSync(path);
    fs.utimesSync(path, new Date(Date.now() + 5000), new Date(Date.now() + 5000));
    await assert.rejects(quantizeCheckpoint(options), /it was changed after it was quantized, so it is kept/);
    assert(sources.every((name) => fs.existsSync(join(source, name))));
    fs.utimesSync(path, mtime, mtime);
    const report = await quantizeCheckpoint(options);
    assert.deepEqual(report.deletedFiles, sources.map((name) => join(source, name)));
    assert(sources.every((name) => !fs.existsSync(join(source, name))));
    assert(fs.existsSync(join(source, "config.json")));
    assert.deepEqual((await verifyShards(out)).damages, []);
  }));

Deno.test("progress never goes back and ends at the total", () =>
  withTemporaryDirectory(async (directory) => {
    const source = join(directory, "tiny"), out = join(directory, "out");
    writeCheckpoint(source, tinyTensors(TINY_CONFIG, "F16"));
    await abortedAfter(14, { source, out, compression: "q8" });
    const done: number[] = [];
    let total = 0;
    await quantizeCheckpoint({
      source,
      out,
      compression: "q8",
      onProgress: ({ doneBytes, totalBytes }) => {
        done.push(doneBytes);
        total = totalBytes;
      },
    });
    assert(done[0] > 0, "what an earlier run did counts");
    assert(done.every((bytes, i) => i === 0 || bytes > done[i - 1]));
    assert.equal(done.at(-1), total);
  }));

/** Mounts a small file system, or returns why it cannot. */
function mountTmpfs(path: string, bytes: number): string | undefined {
  fs.mkdirSync(path);
  const { success, stderr } = new Deno.Command("mount", { args: ["-t", "tmpfs", "-o", `size=${bytes}`, "tmpfs", path] })
    .outputSync();
  return success ? undefined : new TextDecoder().decode(stderr);
}

Deno.test({
  name: "a disk too small is found before the start; a disk that gets full in the middle loses no finished layer" +
    (Deno.uid() === 0 ? "" : " (skipped: only root can mount a small file system)"),
  ignore: Deno.uid() !== 0,
  fn: () =>
    withTemporaryDirectory(async (directory) => {
      const source = join(directory, "tiny"), disk = join(directory, "disk"), out = join(disk, "out");
      writeCheckpoint(source, tinyTensors(TINY_CONFIG, "F16"));
      const failure = mountTmpfs(disk, 9 * 2 ** 20);
      if (failure !== undefined) return console.log(`skipped: cannot mount a small file system: ${failure}`);
      try {
        const filler = join(disk, "filler");
        fs.writeFileSync(filler, new Uint8Array(4 * 2 ** 20));
        await assert.rejects(quantizeCheckpoint({ source, out, compression: "none" }), (error: Error) => {
          assert(error instanceof BudgetError, error.stack);
          assert.match(error.message, /5.0 MiB are free on its disk, required \d+\.\d MiB/);
          return true;
        });
        assert(!fs.existsSync(out));
        fs.rmSync(filler);
        let events = 0;
        const fill = () => {
          if (++events !== 14) return;
          // Within layer 1, after two files are whole.
          try {
            fs.writeFileSync(filler, new Uint8Array(16 * 2 ** 20));
          } catch {
            // Full, as intended.
          }
        };
        await assert.rejects(quantizeCheckpoint({ source, out, compression: "none", onProgress: fill }), (error: Error) => {
          assert(error instanceof BudgetError, error.stack);
          assert.match(
            error.message,
            /^Cannot write .*: the disk is full; finished layers are kept, so free some space and run it again$/,
          );
          return true;
        });
        assert(!fs.existsSync(join(out, "airkern.json")));
        const before = identities(out);
        assert.equal(before.length, 2);
        fs.rmSync(filler);
        const report = await quantizeCheckpoint({ source, out, compression: "none" });
        assert.equal(report.resumedFiles, 2);
        assert(before.every((identity) => identities(out).includes(identity)));
        assert.deepEqual((await verifyShards(out)).damages, []);
      } finally {
        new Deno.Command("umount", { args: [disk] }).outputSync();
      }
    }),
});
