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

Deno.test("exportTransformersNf4() writes the tensors that transformers and bitsandbytes have after loading it, byte for byte", () =>
  withTemporaryDirectory(async (directory) => {
    const out = join(directory, "nf4");
    const { sha256 } = JSON.parse(fs.readFileSync(join(FIXTURES, "transformers_export.json"), "utf8"));
    const report = await exportTransformersNf4({ source: join(FIXTURES, "llama/tied"), out });
    assert.deepEqual([report.quantizedTensors, report.copiedTensors, report.files], [14, 6, 1]);
    using checkpoint = await openCheckpoint(out);
    assert.deepEqual([...checkpoint.tensors.keys()].sort(), Object.keys(sha256).sort());
    for (const tensor of checkpoint.tensors.values()) {
      const bytes = new Uint8Array(tensor.bytes);
      await checkpoint.read(tensor, 0, bytes);
      assert.equal(createHash("sha256").update(bytes).digest("hex"), sha256[tensor.name], tensor.name);
    }
  }));

Deno.test("exportTransformersNf4() writes a checkpoint that is opened again, kept packed", () =>
  withTemporaryDirectory(async (directory) => {
    await exportTransformersNf4({ source: join(FIXTURES, "llama/biases"), out: join(directory, "nf4") });
    await quantizeCheckpoint({ source: join(directory, "nf4"), out: join(directory, "shards"), compression: "none" });
    const shards = await openShards(join(directory, "shards"));
    assert.equal(shards.tensor("model.layers.0.mlp.down_proj.weight").format, "bnb4-64-bf16");
  }));

Deno.test("exportTransformersNf4() refuses a model that is quantized, and a directory that is not empty", () =>
  withTemporaryDirectory(async (directory) => {
    await assert.rejects(
      exportTransformersNf4({ source: join(FIXTURES, "encodings/bnb_nf4"), out: join(directory, "x") }),
      UnsupportedError,
    );
    fs.writeFileSync(join(directory, "file"), "");
    await assert.rejects(exportTransformersNf4({ source: join(FIXTURES, "llama/tied"), out: directory }), UsageError);
  }));
