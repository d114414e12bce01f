/**
 * Checkpoints of every encoding on the device, where their weights are kept and computed from packed: resident, and streamed into little memory.
 */
import assert from "node:assert/strict";
import { existsSync, readdirSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { Engine, type EngineOptions } from "../../lib/engine/engine.ts";
import { parsePacking } from "../../lib/shard/packed_formats.ts";
import { openShards } from "../../lib/shard/reader.ts";
import { casesOf, greedy, logitRows, relativeError, shardCheckpoint } from "../engine/tiny_models.ts";
import { emulatedTest } from "./emulated_device.ts";
import { vramBounds } from "./vram_bounds.ts";

const FIXTURES = fileURLToPath(new URL("../fixtures/", import.meta.url));
const OPTIONS: EngineOptions = {
  ...{ device: "cuda", contextTokens: 64, kvCacheType: "f32", precision: "exact", passTokens: 32 },
  ...{ logitRows: 32, ramBytes: 1024 * 2 ** 20 },
};
const GREEDY_TOKENS = 8;

/** Those of the folders that hold whole models. */
const modelsIn = (folder: string) =>
  readdirSync(FIXTURES + folder).sort().map((name) => `${folder}/${name}`).filter((path) => {
    return existsSync(`${FIXTURES}${path}/expected.json`) && !path.endsWith("_experts");
  });
const NAMES = [
  ...modelsIn("encodings"),
  ...modelsIn("gguf"),
  "architectures/gpt_oss/mxfp4",
  "architectures/deepseek_v3/fp8",
  "architectures/kimi_k2/int4",
];

for (const name of NAMES) {
  emulatedTest(`${name} matches transformers on the device, packed, resident and streamed`, async (emulated) => {
    using shards = await shardCheckpoint(FIXTURES + name);
    const { manifest } = await openShards(shards.path);
    assert.ok(manifest.tensors.some(({ format }) => parsePacking(format) !== undefined), "nothing is packed");
    const { least, all } = await vramBounds(shards.path, OPTIONS);
    assert.ok(least < all);
    const [{ promptIds, promptLogits, greedyIds }] = casesOf(FIXTURES + name);
    for (const vramBytes of [all, least]) {
      emulated.configure("streams=random,seed=3");
      {
        await using engine = await Engine.open(shards.path, { ...OPTIONS, vramBytes });
        using sequence = engine.openSequence();
        const [{ logits }] = await engine.pass([{ sequence, tokens: promptIds, logits: "all" }]);
        const error = relativeError(logitRows(engine, logits), promptLogits);
        assert.ok(error < 2e-5, `logits are off by ${error}`);
        assert.deepEqual(await greedy(engine, sequence, greedyIds[0], GREEDY_TOKENS), greedyIds.slice(0, GREEDY_TOKENS));
      }
      emulated.assertClean(name);
    }
  });
}
