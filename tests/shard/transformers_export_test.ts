import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import fs from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { openCheckpoint } from "../../lib/checkpoint/checkpoint.ts";
import { UnsupportedError, UsageError } from "../../lib/errors.ts";
import { openShards } from "../../lib/shard/reader.ts";
import { quantizeCheckpoint } from "../../lib/shard/quantizer.ts";
import { exportTransformersNf4 } from "../../lib/shard/transformers_export.ts";
import { withTemporaryDirectory } from "../temporary_directory.ts";

const FIXTURES = fileURLToPath(new URL("../fixtures/", import.meta.url));

const EXPECTED: Record<string, Record<string, string>> =
  JSON.parse(fs.readFileSync(join(FIXTURES, "transformers_export.json"), "utf8")).sha256;

for (const [name, sha256] of Object.entries(EXPECTED)) {
  Deno.test(`exportTransformersNf4() of ${name} writes the tensors that transformers and bitsandbytes have after loading it, byte for byte`, () =>
    withTemporaryDirectory(async (directory) => {
      const out = join(directory, "nf4"), source = join(FIXTURES, name);
      const report = await exportTransformersNf4({ source, out });
      const quantized = Object.keys(sha256).filter((key) => key.endsWith(".quant_state.bitsandbytes__nf4")).length;
      assert.ok(quantized > 0);
      assert.deepEqual([report.quantizedTensors, report.files], [quantized, 1]);
      using checkpoint = await openCheckpoint(out);
      using original = await openCheckpoint(source);
      assert.equal(checkpoint.tensors.size, report.copiedTensors + 4 * quantized);
      for (const key of Object.keys(sha256)) assert.ok(checkpoint.tensors.has(key), key);
      for (const tensor of checkpoint.tensors.values()) {
        const bytes = new Uint8Array(tensor.bytes);
        await checkpoint.read(tensor, 0, bytes);
        const expected = sha256[tensor.name];
        if (expected !== undefined) assert.equal(createHash("sha256").update(bytes).digest("hex"), expected, tensor.name);
        else {
          // Experts and routers, which transformers names otherwise.
          const plain = new Uint8Array(tensor.bytes);
          await original.read(original.tensors.get(tensor.name)!, 0, plain);
          assert.deepEqual(bytes, plain, tensor.name);
        }
      }
      // transformers tells 0.0 from 0.
      const text = (path: string) => fs.readFileSync(join(path, "config.json"), "utf8");
      assert.ok(text(out).startsWith(text(source).replace(/\s*\}\s*$/, "")));
    }));
}

Deno.test("exportTransformersNf4() writes a checkpoint that is opened again, kept packed", () =>
  withTemporaryDirectory(async (directory) => {
    await exportTransformersNf4({ source: join(FIXTURES, "llama/biases"), out: join(directory, "nf4") });
    await quantizeCheckpoint({ source: join(directory, "nf4"), out: join(directory, "shards"), compression: "none" });
    const shards = await openShards(join(directory, "shards"));
    assert.equal(shards.tensor("model.layers.0.mlp.down_proj.weight").format, "bnb4-64-bf16");
  }));

Deno.test("exportTransformersNf4() takes Llama 4's experts apart, which are read again, each packed", () =>
  withTemporaryDirectory(async (directory) => {
    await exportTransformersNf4({ source: join(FIXTURES, "architectures/llama4/base"), out: join(directory, "nf4") });
    await quantizeCheckpoint({ source: join(directory, "nf4"), out: join(directory, "shards"), compression: "none" });
    const shards = await openShards(join(directory, "shards"));
    const experts = shards.manifest.tensors.filter(({ name }) => /\.experts\.\d+\.\w+\.weight$/.test(name));
    assert.equal(experts.length, 4 * 8 * 3);
    for (const { name, format } of experts) assert.match(format, /^bnb4-\d+-bf16$/, name);
  }));

Deno.test("exportTransformersNf4() refuses a model that is quantized, one that is not of transformers, and a directory that is not empty", () =>
  withTemporaryDirectory(async (directory) => {
    await assert.rejects(
      exportTransformersNf4({ source: join(FIXTURES, "encodings/bnb_nf4"), out: join(directory, "x") }),
      UnsupportedError,
    );
    await assert.rejects(
      exportTransformersNf4({ source: join(FIXTURES, "architectures/baichuan/rope"), out: join(directory, "x") }),
      /only by code that comes with the checkpoint/,
    );
    await assert.rejects(
      exportTransformersNf4({ source: join(FIXTURES, "architectures/falcon/new"), out: join(directory, "x") }),
      /linear layers, which are of a class of its own/,
    );
    fs.writeFileSync(join(directory, "file"), "");
    await assert.rejects(exportTransformersNf4({ source: join(FIXTURES, "llama/tied"), out: directory }), UsageError);
  }));
