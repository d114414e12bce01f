/**
 * Models whose layers keep a state a sequence: it is carried through chunks and company, and never mixed up.
 */
import assert from "node:assert/strict";
import { fileURLToPath } from "node:url";
import { CancelledError, UsageError } from "../../lib/errors.ts";
import type { Engine, Sequence } from "../../lib/engine/engine.ts";
import { planModel } from "../../lib/engine/model_plan.ts";
import { openShards } from "../../lib/shard/reader.ts";
import { random } from "../random.ts";
import { casesOf, greedy, logitRows, openExact, relativeError, shardCheckpoint } from "./tiny_models.ts";

const FIXTURES = fileURLToPath(new URL("../fixtures/architectures/", import.meta.url));
const DENSE = `${FIXTURES}qwen3_5_text/base`, EXPERTS = `${FIXTURES}qwen3_next/base`;
/** Kernels may round otherwise for another number of tokens, and 70 tokens add up what they round. */
const TOLERANCE = 5e-5;

/** Returns the logits after each of the tokens, brought in passes of so many. */
async function run(engine: Engine, sequence: Sequence, tokens: readonly number[], chunks: number): Promise<Float32Array[]> {
  const rows: Float32Array[] = [];
  for (let start = 0; start < tokens.length; start += chunks) {
    const [{ logits }] = await engine.pass([{ sequence, tokens: tokens.slice(start, start + chunks), logits: "all" }]);
    rows.push(...logitRows(engine, logits));
  }
  return rows;
}

for (const fixture of [DENSE, EXPERTS]) {
  const name = fixture.slice(FIXTURES.length), { promptIds } = casesOf(fixture).at(-1)!;

  Deno.test(`${name}: a prompt in chunks of any size gives what the whole prompt gives`, async () => {
    using shards = await shardCheckpoint(fixture);
    await using engine = await openExact(shards.path, { passTokens: 96, logitRows: 96, maxSequences: 2 });
    using together = engine.openSequence();
    const whole = await run(engine, together, promptIds, promptIds.length);
    for (const chunks of [1, 2, 3, 4, 7, promptIds.length - 1]) {
      using sequence = engine.openSequence();
      const error = relativeError(await run(engine, sequence, promptIds, chunks), whole);
      assert.ok(error < TOLERANCE, `chunks of ${chunks}: relative error ${error}`);
    }
  });

  Deno.test(`${name}: sequences that join, leave and bring unequal numbers of tokens give what each gives alone`, async () => {
    using shards = await shardCheckpoint(fixture);
    const next = random(7), limits = { passTokens: 64, logitRows: 64 };
    const texts = Array.from(
      { length: 9 },
      () => Array.from({ length: 3 + Math.floor(next() * 30) }, () => 3 + Math.floor(next() * 90)),
    );
    const alone: Float32Array[][] = [];
    {
      await using engine = await openExact(shards.path, limits);
      for (const text of texts) {
        using sequence = engine.openSequence();
        alone.push(await run(engine, sequence, text, text.length));
      }
    }
    await using engine = await openExact(shards.path, { ...limits, maxSequences: 3 });
    const waiting = texts.map((text, index) => ({ text, index, rows: [] as Float32Array[] }));
    const open: (typeof waiting[number] & { sequence: Sequence })[] = [];
    while (waiting.length + open.length > 0) {
      while (open.length < 3 && waiting.length > 0 && (open.length === 0 || next() < 0.7)) {
        open.push({ ...waiting.shift()!, sequence: engine.openSequence() });
      }
      // Some sit a pass out; the order of the others changes.
      const items = open.filter(() => next() < 0.8).sort(() => next() - 0.5);
      if (items.length === 0) continue;
      const outputs = await engine.pass(items.map(({ sequence, text }) => {
        const { cachedTokens } = sequence, count = 1 + Math.floor(next() * 8);
        return { sequence, tokens: text.slice(cachedTokens, cachedTokens + count), logits: "all" as const };
      }));
      items.forEach(({ rows }, i) => rows.push(...logitRows(engine, outputs[i].logits)));
      for (const item of items.filter(({ sequence, text }) => sequence.cachedTokens === text.length)) {
        assert.ok(relativeError(item.rows, alone[item.index]) < TOLERANCE, `text ${item.index}`);
        item.sequence[Symbol.dispose]();
        open.splice(open.indexOf(item), 1);
      }
    }
  });
}

Deno.test("a pass that is cancelled leaves states as they were", async () => {
  using shards = await shardCheckpoint(DENSE);
  await using engine = await openExact(shards.path, { logitRows: 32 });
  const { promptIds, promptLogits } = casesOf(DENSE).at(-1)!;
  using sequence = engine.openSequence();
  await run(engine, sequence, promptIds.slice(0, 6), 3);
  const item = { sequence, tokens: promptIds.slice(6), logits: "all" as const };
  // Later and later, until a pass is faster.
  for (let turns = 0, done = false; !done; turns++) {
    const controller = new AbortController();
    const pass = engine.pass([item], { signal: controller.signal }).then(() => true, (error) => {
      assert.ok(error instanceof CancelledError);
      return false;
    });
    for (let i = 0; i < turns % 40; i++) await Promise.resolve();
    for (let i = 0; i < Math.floor(turns / 40); i++) await new Promise((resolve) => setImmediate(resolve));
    controller.abort();
    done = await pass;
    if (done) assert.ok(turns > 40);
    else assert.equal(sequence.cachedTokens, 6);
  }
  sequence.truncate(6);
  const [{ logits }] = await engine.pass([item]);
  assert.ok(relativeError(logitRows(engine, logits), promptLogits.slice(6)) < TOLERANCE);
});

Deno.test("a sequence goes back by one pass, as a rejected draft needs, and refuses lengths that it has no state of", async () => {
  using shards = await shardCheckpoint(DENSE);
  await using engine = await openExact(shards.path, { logitRows: 32 });
  const { promptIds, promptLogits, greedyIds } = casesOf(DENSE).at(-1)!, length = promptIds.length;
  using sequence = engine.openSequence();
  await run(engine, sequence, promptIds, length);
  // The first of the draft is right, the others are not.
  const draft = [greedyIds[0], 3, 4, 5];
  await engine.pass([{ sequence, tokens: draft, logits: "all" }]);
  assert.throws(() => sequence.truncate(length + 1), (error) => {
    assert.ok(error instanceof UsageError);
    assert.match(error.message, new RegExp(`to ${length + 1} tokens: .* those after 0 and ${length} and ${length + 4} tokens`));
    return true;
  });
  assert.equal(sequence.cachedTokens, length + 4);
  sequence.truncate(length);
  assert.deepEqual(await greedy(engine, sequence, greedyIds[0], greedyIds.length), greedyIds);
  sequence.truncate(0);
  assert.ok(relativeError(await run(engine, sequence, promptIds, 5), promptLogits) < TOLERANCE);
});

Deno.test("a mask is refused: a state takes tokens one after the other", async () => {
  using shards = await shardCheckpoint(DENSE);
  await using engine = await openExact(shards.path);
  using sequence = engine.openSequence();
  await engine.pass([{ sequence, tokens: [3, 4], logits: "none" }]);
  const item = { sequence, tokens: [5, 6], mask: Uint8Array.of(1, 0, 1, 1), logits: "last" as const };
  await assert.rejects(engine.pass([item]), /mask of 2 tokens with this model: its layers keep a state/);
  assert.equal(sequence.cachedTokens, 2);
  // Nothing was computed: it can still go back.
  sequence.truncate(0);
});

Deno.test("a plan counts states by sequences and keys and values by the layers that have some", async () => {
  using shards = await shardCheckpoint(DENSE);
  const directory = await openShards(shards.path);
  const planOf = (contextTokens: number, maxSequences: number) =>
    planModel(directory, { ramBytes: 2 ** 30, contextTokens, maxSequences }).plan;
  const plan = planOf(128, 2);
  // Of each of 3 layers: 3 inputs of 16 + 16 + 48 columns and 4 heads' 8 x 12, float32, two for each of 2 sequences.
  assert.equal(plan.stateBytes, 3 * (3 * 80 + 4 * 96) * 4 * 4);
  // One layer: keys and values of 2 heads of 16, float16.
  assert.equal(plan.kvCacheBytes, 2 * 128 * 2 * 2 * 16 * 2);
  assert.equal(planOf(64, 2).stateBytes, plan.stateBytes);
  assert.equal(planOf(128, 8).stateBytes, 4 * plan.stateBytes);
});
