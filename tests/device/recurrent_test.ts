import assert from "node:assert/strict";
import { fileURLToPath } from "node:url";
import { Engine, type EngineOptions } from "../../lib/engine/engine.ts";
import { casesOf, greedy, logitRows, relativeError, shardCheckpoint } from "../engine/tiny_models.ts";
import { emulatedTest } from "./emulated_device.ts";

const FIXTURE = fileURLToPath(new URL("../fixtures/architectures/qwen3_5_text/base", import.meta.url));
const MIB = 2 ** 20;

emulatedTest(
  "states stay on the device wherever keys and values are, within the budget: chunks, company, cancelled passes and rejected drafts match transformers",
  async (emulated) => {
    const [short, long] = casesOf(FIXTURE);
    const options: EngineOptions = {
      ...{ device: "cuda", contextTokens: 128, kvCacheType: "f32", precision: "exact", passTokens: 32, ramBytes: 1024 * MIB },
      ...{ maxSequences: 2, logitRows: 32, vramBytes: 8 * MIB },
    };
    using shards = await shardCheckpoint(FIXTURE);
    for (const streams of ["eager", "lazy", "random,seed=4"]) {
      for (const kvCacheLocation of ["vram", "ram"] as const) {
        emulated.configure(`streams=${streams}`);
        {
          await using engine = await Engine.open(shards.path, { ...options, kvCacheLocation });
          const { stateBytes, device, kvCacheBytes } = engine.plan;
          // As tests/engine/recurrent_test.ts counts them.
          assert.deepEqual([stateBytes, device!.stateBytes], [0, 3 * (3 * 80 + 4 * 96) * 4 * 4]);
          assert.equal(kvCacheBytes > 0, kvCacheLocation === "ram");
          assert.ok(emulated.counts.devicePeakBytes <= device!.totalBytes + 4096 && device!.totalBytes <= 8 * MIB);
          using a = engine.openSequence();
          const first = long.promptIds.slice(0, 5), rest = long.promptIds.slice(5);
          await engine.pass([{ sequence: a, tokens: first, logits: "none" }]);
          for (const microtasks of [3, 30]) {
            const controller = new AbortController();
            const pass = engine.pass([{ sequence: a, tokens: [3, 4, 5], logits: "last" }], { signal: controller.signal });
            for (let i = 0; i < microtasks; i++) await Promise.resolve();
            controller.abort();
            await assert.rejects(pass, { name: "CancelledError" });
          }
          await engine.pass([{ sequence: a, tokens: [90, 3], logits: "none" }]);
          a.truncate(5);
          using b = engine.openSequence();
          const outputs = await engine.pass([
            { sequence: b, tokens: short.promptIds, logits: "all" },
            { sequence: a, tokens: rest, logits: "all" },
          ]);
          assert.ok(relativeError(logitRows(engine, outputs[0].logits), short.promptLogits) < 1e-4);
          assert.ok(relativeError(logitRows(engine, outputs[1].logits), long.promptLogits.slice(5)) < 1e-4);
          assert.deepEqual(await greedy(engine, a, long.greedyIds[0], 12), long.greedyIds.slice(0, 12));
          assert.deepEqual(await greedy(engine, b, short.greedyIds[0], 4), short.greedyIds.slice(0, 4));
        }
        emulated.assertClean(`streams=${streams}, kvCacheLocation ${kvCacheLocation}`);
      }
    }
  },
);
