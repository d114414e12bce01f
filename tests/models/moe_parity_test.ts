/**
 * Families with routed experts against transformers while few of their experts fit into memory.
 */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import type { Engine } from "../../lib/engine/engine.ts";
import { planModel } from "../../lib/engine/model_plan.ts";
import { architectureFor } from "../../lib/models/registry.ts";
import { openShards } from "../../lib/shard/reader.ts";
import {
  architectureNames,
  ARCHITECTURES as FIXTURES,
  casesOf,
  greedy,
  logitRows,
  openExact,
  relativeError,
  shardCheckpoint,
} from "../engine/tiny_models.ts";

const TOLERANCE = 1e-4;

/** Whether the fixture's model has routed experts. */
function hasExperts(name: string): boolean {
  const config = JSON.parse(readFileSync(`${FIXTURES}${name}/config.json`, "utf8"));
  return architectureFor(config).parseConfig(config).layers.some(({ feedForward }) => feedForward.kind === "moe");
}

const NAMES = architectureNames().filter(hasExperts);

/** Opens an engine whose memory holds so many of the experts' extents. */
async function openWithSlots(path: string, slots: number, maxSequences: number): Promise<Engine> {
  const options = { maxSequences, logitRows: 96, passTokens: 96 };
  const { plan } = planModel(await openShards(path), options);
  const slotBytes = plan.experts!.cacheBytes / plan.experts!.slots;
  const engine = await openExact(path, { ...options, expertCacheBytes: slots * slotBytes });
  assert.equal(engine.plan.experts!.slots, slots);
  return engine;
}

Deno.test("there are families with routed experts to test", () => assert.ok(NAMES.length > 5));

for (const name of NAMES) {
  Deno.test(`${name} matches transformers with a few experts in memory, evicted again and again, alone and together`, async () => {
    using shards = await shardCheckpoint(FIXTURES + name);
    const cases = casesOf(FIXTURES + name);
    for (const slots of [2, 7]) {
      await using engine = await openWithSlots(shards.path, slots, cases.length);
      const sequences = cases.map(() => engine.openSequence());
      const outputs = await engine.pass(
        cases.map(({ promptIds }, i) => ({ sequence: sequences[i], tokens: promptIds, logits: "all" as const })),
      );
      const errors = cases.map(({ promptLogits }, i) => relativeError(logitRows(engine, outputs[i].logits), promptLogits));
      assert.ok(errors.every((error) => error < TOLERANCE), `${errors}`);
      for (const [i, { greedyIds }] of cases.entries()) {
        assert.deepEqual(await greedy(engine, sequences[i], greedyIds[0], greedyIds.length), greedyIds);
      }
      const { experts } = engine.statistics.decode;
      assert.ok(experts.hits < 0.6 * experts.used, `${experts.hits} hits of ${experts.used}`);
      assert.ok(experts.predicted > 0.2 * experts.predictable && experts.predicted <= experts.predictable);
    }
  });

  Deno.test(`${name} reads each expert once while all fit, and only those that tokens go to`, async () => {
    using shards = await shardCheckpoint(FIXTURES + name);
    await using engine = await openExact(shards.path, { maxSequences: 1 });
    const { totalBytes, cacheBytes } = engine.plan.experts!;
    assert.ok(cacheBytes >= totalBytes);
    using sequence = engine.openSequence();
    await engine.pass([{ sequence, tokens: [5], logits: "none" }]);
    const { experts, bytesRead } = engine.statistics.decode;
    assert.ok(experts.usedBytes < totalBytes && experts.hits === 0);
    // Those foreseen wrongly are read ahead, where the disk had time; embedding rows come on top.
    const foreseenWrongly = experts.predictable - experts.predicted;
    assert.ok(bytesRead >= experts.usedBytes);
    assert.ok(
      bytesRead <= experts.usedBytes * (1 + foreseenWrongly / experts.used) + 4096,
      `${bytesRead} read, ${experts.usedBytes} used`,
    );
    await engine.pass([{ sequence, tokens: [7, 8, 9], logits: "none" }]);
    await greedy(engine, sequence, 10, 20);
    const after = engine.statistics;
    assert.ok(after.prefill.bytesRead + after.decode.bytesRead < totalBytes + 64 * 4096);
    assert.ok(after.decode.experts.hits > 0.6 * after.decode.experts.used);
  });
}
