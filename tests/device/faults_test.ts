import assert from "node:assert/strict";
import { AirkernError } from "../../lib/errors.ts";
import { Engine, type EngineOptions } from "../../lib/engine/engine.ts";
import { planModel } from "../../lib/engine/model_plan.ts";
import { openShards } from "../../lib/shard/reader.ts";
import { airkern } from "../cli/airkern.ts";
import { expectedOf, greedy, shardFixture } from "../engine/tiny_models.ts";
import { quantizeShippedModel } from "../shipped_model.ts";
import { withTemporaryDirectory } from "../temporary_directory.ts";
import { DEVICE_LIBRARY, emulatedTest } from "./emulated_device.ts";

const [, SHORT] = expectedOf("base");
const OPTIONS: EngineOptions = { device: "cuda", contextTokens: 64, kvCacheType: "f32", passTokens: 32, ramBytes: 2 ** 30 };

/** Opens a model, part of it streamed, and generates; every step of what an engine does with a device is in it. */
async function loadAndGenerate(path: string, vramBytes: number): Promise<number[]> {
  await using engine = await Engine.open(path, { ...OPTIONS, vramBytes });
  using sequence = engine.openSequence();
  const [{ argmax }] = await engine.pass([{ sequence, tokens: SHORT.promptIds, logits: "last", output: "argmax" }]);
  return await greedy(engine, sequence, argmax![0], 3);
}

/** A budget with which about half of the weights stay in device memory. */
async function halfResident(path: string): Promise<number> {
  const { plan } = planModel(await openShards(path), { ...OPTIONS, vramBytes: 2 ** 40 }, { freeBytes: 2 ** 40 });
  return plan.device!.totalBytes - plan.residentBytes / 4;
}

for (const fault of ["fail_malloc", "fail_host_alloc", "fail_launch", "fail_sync"]) {
  emulatedTest(
    `${fault} at every step of loading and generating ends in one clear error, and nothing is left`,
    async (emulated) => {
      using shards = await shardFixture("base");
      const vramBytes = await halfResident(shards.path);
      let failed = 0;
      for (let step = 1;; step++) {
        const settings = `${fault}=${step},streams=${["eager", "lazy", `random,seed=${step}`][step % 3]}`;
        emulated.configure(settings);
        let outcome: number[] | unknown;
        try {
          outcome = await loadAndGenerate(shards.path, vramBytes);
        } catch (error) {
          outcome = error;
        }
        const { deviceAllocations, hostAllocations, streams, events, pendingOperations } = emulated.counts;
        assert.deepEqual([deviceAllocations, hostAllocations, streams, events, pendingOperations], [0, 0, 0, 0, 0], settings);
        if (Array.isArray(outcome)) {
          assert.deepEqual(outcome, SHORT.greedyIds.slice(0, 3));
          break;
        }
        failed++;
        assert.ok(outcome instanceof AirkernError, `${settings}: ${(outcome as Error).stack}`);
        assert.match(outcome.message, /^Cannot [^\n]+$/, settings);
        assert.match(
          outcome.message,
          fault.endsWith("alloc") ? /memory|cudaErrorMemoryAllocation/i : /cudaErrorLaunchFailure/,
          settings,
        );
      }
      // Each step failed once.
      assert.ok(failed >= { fail_malloc: 1, fail_host_alloc: 4, fail_launch: 60, fail_sync: 5 }[fault]!, `${failed} steps`);
    },
  );
}

emulatedTest("a device that fails ends the command line with exit code 1 and one line", async () => {
  await withTemporaryDirectory(async (directory) => {
    const path = await quantizeShippedModel(`${directory}/q4o`, "q4o");
    for (
      const [settings, message] of [
        ["fail_malloc=1", /^airkern: Cannot reserve device memory: need [^\n]+\n$/],
        ["fail_host_alloc=3", /^airkern: Cannot reserve \d+ bytes of host memory: [^\n]+\n$/],
        ["fail_launch=1", /^airkern: Cannot [^\n]+cudaErrorLaunchFailure[^\n]+\n$/],
        ["fail_launch=90", /^airkern: Cannot [^\n]+cudaErrorLaunchFailure[^\n]+\n$/],
        ["fail_sync=3", /^airkern: Cannot [^\n]+cudaErrorLaunchFailure[^\n]+\n$/],
        ["vram=1MiB", /^airkern: Cannot plan \d+ tokens of context: need at least [^\n]+ of device memory[^\n]+\n$/],
      ] as const
    ) {
      const { code, stderr } = await airkern(["run", path, "And", "--max-tokens", "2", "--device", "cuda", "--vram", "64MiB"], {
        env: { AIRKERN_LIBRARY_PATH: DEVICE_LIBRARY, CUDA_EMU: `quiet=1,${settings}` },
      });
      assert.equal(code, 1, settings);
      assert.match(stderr, message, settings);
    }
  });
});
