import assert from "node:assert/strict";
import { Engine, type EngineOptions } from "../../lib/engine/engine.ts";
import { planModel } from "../../lib/engine/model_plan.ts";
import { BudgetError } from "../../lib/errors.ts";
import { parseBytes } from "../../lib/memory/bytes.ts";
import { openShards } from "../../lib/shard/reader.ts";
import { quantizeShippedModel } from "../shipped_model.ts";
import { withTemporaryDirectory } from "../temporary_directory.ts";
import { expectedOf, greedy, logitRows, relativeError, shardFixture } from "../engine/tiny_models.ts";
import { DEVICE_LIBRARY, emulatedTest, emulator } from "./emulated_device.ts";
import { vramBounds } from "./vram_bounds.ts";

const MiB = 2 ** 20;
const [ONE, SHORT, LONG] = expectedOf("base");
const OPTIONS: EngineOptions = {
  ...{ device: "cuda", contextTokens: 128, kvCacheType: "f32", precision: "exact", passTokens: 32, ramBytes: 1024 * MiB },
};

/** Checks a model's logits and greedy tokens against what transformers computes. */
async function matchesTransformers(engine: Engine): Promise<void> {
  for (const { promptIds, promptLogits, greedyIds } of [ONE, SHORT, LONG]) {
    using sequence = engine.openSequence();
    const [output] = await engine.pass([{ sequence, tokens: promptIds, logits: [promptIds.length - 1] }]);
    const error = relativeError(logitRows(engine, output.logits), promptLogits.slice(-1));
    assert.ok(error < 1e-4, `logits are off by ${error}`);
    assert.deepEqual(await greedy(engine, sequence, greedyIds[0], 6), greedyIds.slice(0, 6));
  }
}

Deno.test(`an engine on ${emulator ? "the emulated device" : DEVICE_LIBRARY} matches transformers: resident, and from every tier`, async () => {
  emulator?.configure("");
  using shards = await shardFixture("base");
  const { least, all } = await vramBounds(shards.path, OPTIONS);
  for (const share of [1, 0.6, 0]) {
    const vramBytes = Math.ceil(least + share * (all - least));
    await using engine = await Engine.open(shards.path, { ...OPTIONS, vramBytes });
    const { plan } = engine;
    assert.ok(plan.device!.totalBytes <= vramBytes);
    assert.equal(plan.pinnedBytes > 0, share < 1, `${share}`);
    const { peakVramBytes } = engine.statistics;
    assert.ok(peakVramBytes <= vramBytes && peakVramBytes >= plan.device!.totalBytes);
    if (emulator) assert.equal(emulator.counts.deviceBytes, peakVramBytes);
    await matchesTransformers(engine);
  }
  emulator?.assertClean("after closing");
});

for (const streams of ["lazy", "random,seed=1", "random,seed=2"]) {
  emulatedTest(
    `an engine copies weights to the device in any order of the device's streams, streams=${streams}`,
    async (emulated) => {
      using shards = await shardFixture("base");
      const { least, all } = await vramBounds(shards.path, OPTIONS);
      for (const vramBytes of [least, Math.ceil((least + all) / 2)]) {
        emulated.configure(`streams=${streams}`);
        {
          await using engine = await Engine.open(shards.path, { ...OPTIONS, vramBytes });
          assert.ok(engine.plan.pinnedBytes > 0);
          await matchesTransformers(engine);
          const { devicePeakBytes } = emulated.counts;
          assert.ok(devicePeakBytes <= vramBytes, `${devicePeakBytes} bytes of device memory, the budget is ${vramBytes}`);
        }
        emulated.assertClean(streams);
      }
    },
  );
}

emulatedTest(
  "several prompts in one pass give each what it gives alone, and a chunk of a prompt what the whole gives",
  async (emulated) => {
    emulated.configure("streams=random,seed=5,order=random");
    using shards = await shardFixture("base");
    await using engine = await Engine.open(shards.path, { ...OPTIONS, maxSequences: 3, logitRows: 3 });
    const cases = [ONE, SHORT, LONG];
    const sequences = cases.map(() => engine.openSequence());
    let items = cases.map(({ promptIds }, i) => ({
      ...{ sequence: sequences[i], tokens: promptIds as ArrayLike<number>, logits: "last" as const, output: "argmax" as const },
    }));
    for (let step = 0; step < 4; step++) {
      const outputs = await engine.pass(items);
      outputs.forEach(({ argmax }, i) => assert.equal(argmax![0], cases[i].greedyIds[step]));
      items = items.map((item, i) => ({ ...item, tokens: outputs[i].argmax! }));
    }
    for (const sequence of sequences) sequence.truncate(0);
    await engine.pass([{ sequence: sequences[0], tokens: LONG.promptIds.slice(0, 13), logits: "none" }]);
    const [output] = await engine.pass([{ sequence: sequences[0], tokens: LONG.promptIds.slice(13), logits: "last" }]);
    assert.ok(relativeError(logitRows(engine, output.logits), LONG.promptLogits.slice(-1)) < 1e-4);
  },
);

emulatedTest(
  "the shipped model gives the CPU's greedy tokens on the device, resident, and streamed into 8 MiB of it",
  async (emulated) => {
    await withTemporaryDirectory(async (directory) => {
      const path = await quantizeShippedModel(`${directory}/none`, "none");
      const shards = await openShards(path);
      const options: EngineOptions = { contextTokens: 64, passTokens: 16, threads: 2 };
      const prompt = [1, 5, 9, 20, 33, 60], count = 5;
      const tokens = async (engine: Engine): Promise<number[]> => {
        using sequence = engine.openSequence();
        const [{ argmax }] = await engine.pass([{ sequence, tokens: prompt, logits: "last", output: "argmax" }]);
        return await greedy(engine, sequence, argmax![0], count);
      };
      let expected: number[];
      {
        await using cpu = await Engine.open(path, { ...options, device: "cpu" });
        assert.equal(cpu.description.kind, "cpu");
        expected = await tokens(cpu);
      }
      assert.equal(new Set(expected).size > 1, true);
      for (const vram of ["64MiB", "8MiB"]) {
        const settings = `vram=${vram},streams=lazy`;
        emulated.configure(settings);
        {
          await using engine = vram === "8MiB"
            ? await openOnThreeTiers()
            : await Engine.open(path, { ...options, device: "cuda" });
          assert.equal(engine.description.kind, "cuda");
          const { pinnedBytes, streamedBytesPerPass } = engine.plan;
          assert.deepEqual([pinnedBytes > 0, streamedBytesPerPass > 0], vram === "8MiB" ? [true, true] : [false, false]);
          assert.deepEqual(await tokens(engine), expected, settings);
          assert.ok(emulated.counts.devicePeakBytes <= parseBytes(vram));
        }
        emulated.assertClean(settings);
      }

      /** Looks for a budget of host memory that keeps a part of what the device cannot; what the process itself takes varies by some MiB. */
      async function openOnThreeTiers(): Promise<Engine> {
        const { plan } = planModel(shards, options, { freeBytes: 7 * MiB });
        let ramBytes = plan.totalBytes - plan.pinnedBytes / 2;
        for (let attempt = 0; attempt < 20; attempt++) {
          try {
            const engine = await Engine.open(path, { ...options, device: "cuda", ramBytes: Math.floor(ramBytes) });
            const { pinnedBytes, streamedBytesPerPass } = engine.plan;
            if (pinnedBytes > 0 && streamedBytesPerPass > 0) return engine;
            ramBytes += pinnedBytes > 0 ? -MiB : MiB;
            await engine[Symbol.asyncDispose]();
          } catch (error) {
            assert.ok(error instanceof BudgetError, `${error}`);
            ramBytes += MiB;
          }
        }
        throw new Error("no budget gives three tiers");
      }
    });
  },
);

emulatedTest(
  "pass() brings back the likeliest tokens alone where asked, all logits after all, and argmax, of several rows",
  async (emulated) => {
    emulated.configure("streams=lazy");
    using shards = await shardFixture("base");
    await using engine = await Engine.open(shards.path, { ...OPTIONS, maxSequences: 3, logitRows: 8 });
    assert.equal(engine.prefersTopK, true);
    const sequences = [engine.openSequence(), engine.openSequence(), engine.openSequence()];
    const tokens = LONG.promptIds;
    const [few, all, best] = await engine.pass([
      { sequence: sequences[0], tokens: tokens.slice(0, 10), logits: [9, 3], output: { topK: 7 } },
      { sequence: sequences[1], tokens: tokens.slice(0, 10), logits: [9, 3] },
      { sequence: sequences[2], tokens: tokens.slice(0, 10), logits: [9, 3], output: "argmax" },
    ]);
    const rows = logitRows(engine, all.logits);
    rows.forEach((row, r) => {
      const ids = [...row.keys()].sort((a, b) => row[b] - row[a] || a - b).slice(0, 7);
      assert.deepEqual([...few.topK!.ids.subarray(7 * r, 7 * r + 7)], ids);
      assert.deepEqual([...few.topK!.values.subarray(7 * r, 7 * r + 7)], ids.map((id) => row[id]));
      assert.equal(best.argmax![r], ids[0]);
    });
    assert.deepEqual(logitRows(engine, await few.topK!.logits()), rows);
    for (const topK of [0, 1.5, 129]) {
      const item = { sequence: sequences[0], tokens: [1], logits: "last" as const, output: { topK } };
      await assert.rejects(engine.pass([item]), {
        message: new RegExp(`the ${topK} likeliest tokens: required is a whole number from 1 to 128`),
      });
    }
  },
);

emulatedTest("a cancelled pass on the device rolls back, and the next is right", async (emulated) => {
  using shards = await shardFixture("base");
  const { least } = await vramBounds(shards.path, OPTIONS);
  for (const streams of ["eager", "lazy", "random,seed=1"]) {
    emulated.configure(`streams=${streams}`);
    {
      await using engine = await Engine.open(shards.path, { ...OPTIONS, vramBytes: least });
      using sequence = engine.openSequence();
      for (let microtasks = 0; microtasks < 60; microtasks += 7) {
        const controller = new AbortController();
        const pass = engine.pass([{ sequence, tokens: LONG.promptIds, logits: "last" }], { signal: controller.signal });
        for (let i = 0; i < microtasks; i++) await Promise.resolve();
        controller.abort();
        await assert.rejects(pass, { name: "CancelledError" });
        assert.equal(sequence.cachedTokens, 0);
      }
      sequence[Symbol.dispose]();
      await matchesTransformers(engine);
    }
    emulated.assertClean(streams);
  }
});

emulatedTest(
  "without a budget a refused reservation is tried smaller, with one it is an error that says what is needed and free",
  async (emulated) => {
    using shards = await shardFixture("base");
    emulated.configure("vram=2MiB,fail_malloc=1");
    {
      await using engine = await Engine.open(shards.path, OPTIONS);
      await matchesTransformers(engine);
    }
    emulated.assertClean("a smaller plan");
    emulated.configure("vram=2MiB,fail_malloc=1");
    await assert.rejects(Engine.open(shards.path, { ...OPTIONS, vramBytes: MiB }), {
      name: "BudgetError",
      message: /^Cannot reserve device memory: need \d+ KiB, CUDA emulator has 2\.00 MiB free and refused$/,
    });
    emulated.assertClean("a refused budget");
    emulated.configure("vram=64KiB");
    await assert.rejects(Engine.open(shards.path, OPTIONS), {
      name: "BudgetError",
      message: /need at least \d+ KiB of device memory, what the device has to give is 60\.0 KiB; most is for/,
    });
    emulated.assertClean("too small a device");
  },
);

Deno.test("devices are refused by name where they cannot be, and options that mean nothing on them", async () => {
  emulator?.configure("");
  using shards = await shardFixture("base");
  const refused: [EngineOptions, RegExp][] = [
    [{ device: "cuda:x" as "cuda" }, /device "cuda:x": known are auto, cpu, cuda and cuda:N/],
    [{ device: "cuda:99" }, /Cannot open device 99: this machine has \d+, required is 0 to/],
    [{ device: "cuda", isa: "avx2" }, /instruction set avx2 on cuda/],
    [{ device: "cpu", vramBytes: MiB }, /budget of 1048576 bytes of device memory: the device computes from the host's memory/],
    [{ device: "cpu", kvCacheLocation: "vram" }, /kvCacheLocation vram/],
    [{ device: "cuda", vramBytes: -1 }, /vramBytes -1/],
    [{ device: "cuda", residentBytes: 5 }, /residentBytes 5: the device has memory of its own/],
  ];
  for (const [options, message] of refused) await assert.rejects(Engine.open(shards.path, options), { message });
});

emulatedTest("device auto takes the device where there is one, else the CPU, and says so once", async (emulated) => {
  using shards = await shardFixture("base");
  const notices: string[] = [];
  const open = async (settings: string): Promise<string> => {
    emulated.configure(settings);
    await using engine = await Engine.open(shards.path, { onNotice: (message) => notices.push(message), contextTokens: 32 });
    return engine.description.kind;
  };
  assert.deepEqual([await open(""), notices], ["cuda", []]);
  assert.equal(await open("driver=0"), "cpu");
  assert.equal(await open("devices=0"), "cpu");
  assert.equal(notices.length, 2);
  assert.match(notices[0], /^Computing on the CPU: .*this machine has no NVIDIA driver$/);
  assert.match(notices[1], /^Computing on the CPU: .*this machine has no NVIDIA GPU, or none is visible to this process$/);
});
