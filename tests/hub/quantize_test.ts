import assert from "node:assert/strict";
import fs from "node:fs";
import { join } from "node:path";
import { openModelShards, predictModelShards, type ShardOptions } from "../../lib/auto_model.ts";
import { openCheckpoint } from "../../lib/checkpoint/checkpoint.ts";
import { BudgetError } from "../../lib/errors.ts";
import { openSnapshot } from "../../lib/hub/snapshot.ts";
import { quantizeCheckpoint } from "../../lib/shard/quantizer.ts";
import { openShards } from "../../lib/shard/reader.ts";
import { verifyShards } from "../../lib/shard/verify.ts";
import { dequantized } from "../shard/dequantized.ts";
import { Context } from "../../lib/ffi/context.ts";
import { filesOf, type HubTest, ID, withHub } from "./models.ts";
import { TINY_CONFIG, type TinyTensor, tinyTensors, writeSafetensors } from "../checkpoint/tiny_checkpoint.ts";

/** Lays the model's tensors out as released models have them: in order, cut by size, so that layers lie in two files or three. */
function cutBySize(files: HubTest["files"], directory: string, fileCount: number): TinyTensor[] {
  for (const name of [...files.keys()]) if (name.includes("safetensors")) files.delete(name);
  const tensors = tinyTensors(TINY_CONFIG, "F16");
  const total = tensors.reduce((sum, { values }) => sum + values.length, 0);
  const weightMap: Record<string, string> = {};
  const parts: TinyTensor[][] = Array.from({ length: fileCount }, () => []);
  let before = 0;
  for (const tensor of tensors) {
    parts[Math.min(fileCount - 1, Math.floor(before / total * fileCount))].push(tensor);
    before += tensor.values.length;
  }
  parts.forEach((part, i) => {
    const name = `model-${String(i + 1).padStart(5, "0")}-of-${String(fileCount).padStart(5, "0")}.safetensors`;
    writeSafetensors(join(directory, name), part);
    files.set(name, new Uint8Array(fs.readFileSync(join(directory, name))));
    for (const { name: tensor } of part) weightMap[tensor] = name;
  });
  files.set("model.safetensors.index.json", new TextEncoder().encode(JSON.stringify({ weight_map: weightMap })));
  return tensors;
}

/** Returns options that hold the test's retries too, which are not for callers. */
function quick(options: HubTest["options"]): ShardOptions {
  return options() as ShardOptions;
}

/** Returns the weight files that are on disk, whole or in part. */
function weightFiles(cache: string): string[] {
  const blobs = join(cache, "models--tiny--llama", "blobs");
  return fs.existsSync(blobs) ? fs.readdirSync(blobs).filter((name) => name.length >= 64) : [];
}

/** Checks that a shard directory holds the tensors, each whole, within the 8-bit format's error. */
async function assertHolds(out: string, tensors: TinyTensor[]): Promise<void> {
  const shards = await openShards(out);
  assert.deepEqual((await verifyShards(out)).damages, []);
  using context = Context.open();
  for (const { name, values } of tensors) {
    const weights = await dequantized(context, shards, shards.tensor(name));
    const largest = values.reduce((max, value) => Math.max(max, Math.abs(value)), 0);
    for (let i = 0; i < values.length; i++) assert(Math.abs(weights[i] - values[i]) <= largest / 100, `${name}[${i}]`);
  }
}

Deno.test(
  "openModelShards() quantizes a model while it is downloaded, one file on disk at a time with deleteOriginal, layers in three files included",
  withHub(async ({ server, files, cache, directory, options, commit }) => {
    const tensors = cutBySize(files, directory, 7);
    const most: number[] = [];
    const phases = new Set<string>();
    const shards = await openModelShards(ID, {
      ...quick(options),
      compression: "q8",
      deleteOriginal: true,
      onProgress: ({ phase }) => {
        phases.add(phase);
        most.push(weightFiles(cache).length);
      },
    });
    assert.equal(Math.max(...most), 1);
    assert.deepEqual(weightFiles(cache), []);
    assert(phases.has("download") && phases.has("quantize"));
    assert.equal(shards.path, join(cache, "models--tiny--llama", "snapshots", commit(), "airkern-q8"));
    assert.deepEqual(shards.manifest.source, { name: ID, revision: commit() });
    await assertHolds(shards.path, tensors);
    // Each file came once for its header, which a file as small as these is read whole for, and once for its weights.
    assert.equal(server.requests.filter(({ host }) => host === "content").length, 14);
    // Used again, without the originals and without a network too.
    server.requests.length = 0;
    assert.equal((await openModelShards(ID, { ...quick(options), compression: "q8" })).path, shards.path);
    assert.equal((await openModelShards(ID, { compression: "q8", localFilesOnly: true })).path, shards.path);
    assert.equal(server.downloads.length, 0);
  }),
);

Deno.test(
  "quantizing from the hub gives the bytes that quantizing the downloaded checkpoint gives, and keeps the originals unless asked",
  withHub(async ({ files, directory, cache, options }) => {
    cutBySize(files, directory, 5);
    const snapshot = await openSnapshot(ID, options());
    const out = join(directory, "streamed"), again = join(directory, "again");
    await quantizeCheckpoint({ source: snapshot.path, supply: snapshot.weights, out, compression: "q4o" });
    assert.equal(weightFiles(cache).length, 5);
    const cached = await openSnapshot(ID, options({ localFilesOnly: true }));
    await quantizeCheckpoint({ source: cached.path, supply: cached.weights, out: again, compression: "q4o" });
    for (const name of fs.readdirSync(out)) {
      assert.deepEqual(fs.readFileSync(join(out, name)), fs.readFileSync(join(again, name)), name);
    }
  }),
);

Deno.test(
  "quantizing from the hub killed anywhere goes on without fetching again what is done",
  withHub(async ({ server, files, directory, cache }) => {
    const tensors = cutBySize(files, directory, 6);
    const out = join(directory, "out");
    const fetched: number[] = [];
    for (let kills = 0;; kills++) {
      server.requests.length = 0;
      const child = new Deno.Command(Deno.execPath(), {
        args: ["run", "-A", "--no-check", new URL("pull_child.ts", import.meta.url).pathname, "quantize", ID, out],
        stdout: "piped",
      }).spawn();
      let text = "", downloads = 0;
      for await (const piece of child.stdout.pipeThrough(new TextDecoderStream())) {
        text += piece;
        downloads += piece.split("\n").filter((line) => line.startsWith("download")).length;
        if (kills < 3 && downloads > 12) child.kill("SIGKILL");
      }
      await child.status;
      fetched.push(server.requests.filter(({ host, range }) => host === "content" && range === undefined).length);
      assert(weightFiles(cache).length <= 2);
      if (text.endsWith("done\n")) break;
      assert(kills < 4, text);
    }
    await assertHolds(out, tensors);
    assert.deepEqual(weightFiles(cache), []);
  }),
);

Deno.test(
  "quantizing from the hub checks the disk for the shards and, with deleteOriginal, for one file; else for all",
  withHub(async ({ files, directory, options }) => {
    cutBySize(files, directory, 4);
    const sizes = [...files].filter(([name]) => name.endsWith(".safetensors")).map(([, content]) => content.length);
    const required = async (deleteOriginal: boolean) => {
      const snapshot = await openSnapshot(ID, options());
      const quantizing = quantizeCheckpoint({
        ...{ source: snapshot.path, supply: snapshot.weights, out: join(directory, "out"), compression: "q8", deleteOriginal },
        freeBytes: () => 1,
      });
      const error: Error = await quantizing.then(() => assert.fail(), (error) => error);
      assert(error instanceof BudgetError, error.stack);
      return Number(/required ([\d.]+) MiB/.exec(error.message)![1]) * 2 ** 20;
    };
    const one = await required(true), all = await required(false);
    const difference = sizes.reduce((a, b) => a + b) - Math.max(...sizes);
    assert(Math.abs(all - one - difference) < 0.11 * 2 ** 20, `${all} ${one} ${difference}`);
  }),
);

Deno.test(
  "openModelShards() uses shards of an earlier commit where the weights are the same, and says where the tokenizer is not",
  withHub(async ({ server, files, directory, options, commit }) => {
    cutBySize(files, directory, 3);
    const first = await openModelShards(ID, { ...quick(options), compression: "q8", deleteOriginal: true });
    const other = { ...quick(options), compression: "q8", layerShardsPath: join(directory, "elsewhere") } as const;
    const elsewhere = await openModelShards(ID, other);
    const notices: string[] = [];
    const open = async (more: ShardOptions = {}) => {
      server.requests.length = 0;
      const shards = await openModelShards(ID, {
        ...quick(options),
        compression: "q8",
        onNotice: (text) => void notices.push(text),
        ...more,
      });
      return { path: shards.path, weights: server.requests.filter(({ host }) => host === "content").length };
    };
    const before = commit();
    files.set("README.md", new TextEncoder().encode("Said otherwise"));
    assert.notEqual(commit(), before);
    assert.deepEqual(await open({ deleteOriginal: true }), { path: first.path, weights: 0 });
    assert.deepEqual(await open(other), { path: elsewhere.path, weights: 0 });
    assert.equal((await predictModelShards(ID, { ...quick(options), compression: "q8" })).filesExist, true);
    assert.deepEqual(notices, []);
    files.set("tokenizer_config.json", new TextEncoder().encode(`{"chat_template":"x"}`));
    assert.deepEqual(await open(), { path: first.path, weights: 0 });
    assert.match(
      notices[0],
      /^Using the shards of tiny\/llama at [0-9a-f]{12}: the weights are the same now, but its tokenizer or chat template/,
    );
    // Another format has no shards yet, and other weights are another model.
    assert.notEqual((await open({ compression: "none" })).weights, 0);
    const name = [...files.keys()].find((name) => name.endsWith("00002-of-00003.safetensors"))!;
    const changed = files.get(name)!.slice();
    changed[changed.length - 1] ^= 1;
    files.set(name, changed);
    const again = await open();
    assert.equal(again.path.split("/").at(-2), commit());
    assert.ok(again.weights > 0);
  }),
);

Deno.test(
  "a model that the hub has as PyTorch files alone is planned from their directories, and gives what the files give",
  withHub(async ({ server, files, directory, options, cache }) => {
    const twin = new URL("../fixtures/pytorch/sharded/", import.meta.url).pathname;
    files.clear();
    for (const [name, content] of filesOf(twin)) {
      if (!name.endsWith(".safetensors") && !name.includes("safetensors")) files.set(name, content);
    }
    files.set("tokenizer.json", new TextEncoder().encode("{}"));
    server.requests.length = 0;
    const predicted = await predictModelShards(ID, { ...quick(options), compression: "q8" });
    assert.equal(predicted.filesExist, false);
    assert.deepEqual(weightFiles(cache), []);
    const shards = await openModelShards(ID, { ...quick(options), compression: "q8", deleteOriginal: true });
    assert.deepEqual(weightFiles(cache), []);
    assert.deepEqual((await verifyShards(shards.path)).damages, []);
    const local = join(directory, "local");
    await quantizeCheckpoint({ source: twin, out: local, compression: "q8" });
    const own = (await openShards(local)).manifest.tensors;
    assert.deepEqual(
      shards.manifest.tensors.map(({ name, snrDb }) => [name, snrDb]),
      own.map(({ name, snrDb }) => [name, snrDb]),
    );
  }),
);

Deno.test(
  "Checkpoint.peek() reads a range of a file that is not there, and the file where it is",
  withHub(async ({ server, files, directory, options, cache }) => {
    const [tensor] = cutBySize(files, directory, 2);
    const snapshot = await openSnapshot(ID, options());
    using checkpoint = await openCheckpoint(snapshot.path, snapshot.weights);
    const stored = checkpoint.tensors.get(tensor.name)!;
    const peeked = new Uint8Array(64), read = new Uint8Array(64);
    server.requests.length = 0;
    await checkpoint.peek(stored, 128, peeked);
    const first = stored.offset + 128;
    assert.deepEqual(server.downloads.filter(({ host }) => host === "content").map(({ range }) => range), [
      `bytes=${first}-${first + 63}`,
    ]);
    assert.deepEqual(weightFiles(cache), []);
    await checkpoint.read(stored, 128, read);
    assert.deepEqual(peeked, read);
    assert.equal(weightFiles(cache).length, 1);
    server.requests.length = 0;
    await checkpoint.peek(stored, 128, peeked);
    assert.equal(server.requests.length, 0);
    await assert.rejects(checkpoint.peek(checkpoint.tensors.get("lm_head.weight")!, 2 ** 40, read), RangeError);
  }),
);

Deno.test(
  "predictModelShards() knows what quantizing will give from headers alone, before any weights are there",
  withHub(async ({ server, files, directory, options }) => {
    cutBySize(files, directory, 3);
    const predicted = await predictModelShards(ID, { ...quick(options), compression: "q8" });
    assert.equal(predicted.filesExist, false);
    const ranges = server.requests.filter(({ host }) => host === "content").map(({ range }) => range);
    assert(ranges.length === 3 && ranges.every((range) => range === "bytes=0-65535" || range === undefined));
    const made = await openModelShards(ID, { ...quick(options), compression: "q8" });
    assert.equal(made.path, predicted.directory);
    const extents = ({ manifest }: typeof made) =>
      manifest.tensors.map(({ name, rows, cols, format, extents }) => ({
        name,
        rows,
        cols,
        format,
        bytes: extents.map(({ bytes }) => bytes),
      }));
    assert.deepEqual(extents(predicted.shards), extents(made));
    const known = await predictModelShards(ID, { ...quick(options), compression: "q8" });
    assert.equal(known.filesExist, true);
  }),
);
