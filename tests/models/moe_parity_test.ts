import assert from "node:assert/strict";
import type { Engine } from "../../lib/engine/engine.ts";
import { planModel } from "../../lib/engine/model_plan.ts";
import { openShards } from "../../lib/shard/reader.ts";
import { expectedOf, greedy, logitRows, openExact, type ParityCase, relativeError, shardFixture } from "../engine/tiny_models.ts";

const TOLERANCE = 2e-5;
const FAMILIES = ["mixtral/base", "qwen2_moe/base", "qwen3_moe/base"];

/** Checks a prompt's logits, those of cached steps, and greedy tokens. */
async function checkCase(engine: Engine, expected: ParityCase): Promise<void> {
  using sequence = engine.openSequence();
  const [prompt] = await engine.pass([{ sequence, tokens: expected.promptIds, logits: "all" }]);
  assert.ok(relativeError(logitRows(engine, prompt.logits), expected.promptLogits) < TOLERANCE);
  const steps: Float32Array[] = [];
  for (const token of expected.greedyIds.slice(0, expected.decodeLogits.length)) {
    const [step] = await engine.pass([{ sequence, tokens: [token], logits: "last" }]);
    steps.push(...logitRows(engine, step.logits));
  }
  assert.ok(relativeError(steps, expected.decodeLogits) < TOLERANCE);
  sequence.truncate(expected.promptIds.length);
  assert.deepEqual(await greedy(engine, sequence, expected.greedyIds[0], 32), expected.greedyIds);
}

/** Opens an engine whose memory holds so many of the experts' extents. */
async function openWithSlots(path: string, slots: number, maxSequences = 1): Promise<Engine> {
  const options = { contextTokens: 128, kvCacheType: "f32", threads: 2, logitRows: 64, maxSequences } as const;
  const shards = await openShards(path);
  const { plan } = planModel(shards, options);
  const slotBytes = plan.experts!.cacheBytes / plan.experts!.slots;
  const engine = await openExact(path, { ...options, expertCacheBytes: slots * slotBytes });
  assert.equal(engine.plan.experts!.slots, slots);
  return engine;
}

for (const family of FAMILIES) {
  const name = `../architectures/${family}`;

  Deno.test(`Engine matches transformers on ${family}: prompt logits, cached steps, 32 greedy tokens, relative error < ${TOLERANCE}`, async () => {
    using shards = await shardFixture(name);
    await using engine = await openExact(shards.path, { logitRows: 64 });
    for (const expected of expectedOf(name)) await checkCase(engine, expected);
    const { plan, statistics } = engine;
    assert.equal(plan.experts!.cacheBytes >= plan.experts!.totalBytes, true);
    assert.ok(statistics.decode.experts.hits > 0.5 * statistics.decode.experts.used);
  });

  Deno.test(`Engine matches transformers on ${family} with a few experts in memory, evicted again and again`, async () => {
    using shards = await shardFixture(name);
    for (const slots of [2, 7]) {
      await using engine = await openWithSlots(shards.path, slots);
      for (const expected of expectedOf(name)) await checkCase(engine, expected);
      const { used, hits, predictable, predicted } = engine.statistics.decode.experts;
      assert.ok(hits < 0.6 * used && predicted > 0 && predicted < predictable);
    }
  });

  Deno.test(`Engine gives prompts of different lengths on ${family} the same in one pass as alone, experts evicted`, async () => {
    using shards = await shardFixture(name);
    const cases = expectedOf(name);
    await using engine = await openWithSlots(shards.path, 5, cases.length);
    const sequences = cases.map(() => engine.openSequence());
    const outputs = await engine.pass(
      cases.map(({ promptIds }, i) => ({ sequence: sequences[i], tokens: promptIds, logits: "all" as const })),
    );
    cases.forEach(({ promptLogits }, i) => {
      assert.ok(relativeError(logitRows(engine, outputs[i].logits), promptLogits) < TOLERANCE);
    });
    const texts = cases.map(({ greedyIds }) => [greedyIds[0]]);
    while (texts[0].length < 32) {
      const next = await engine.pass(
        texts.map((text, i) => ({
          sequence: sequences[i],
          tokens: text.slice(-1),
          logits: "last" as const,
          output: "argmax" as const,
        })),
      );
      next.forEach(({ argmax }, i) => texts[i].push(argmax![0]));
    }
    assert.deepEqual(texts, cases.map(({ greedyIds }) => greedyIds));
  });
}
