import assert from "node:assert/strict";
import { BudgetError, CancelledError, UsageError } from "../../lib/errors.ts";
import { Engine, type PassItem } from "../../lib/engine/engine.ts";
import { planModel } from "../../lib/engine/model_plan.ts";
import { openShards } from "../../lib/shard/reader.ts";
import { expectedOf, greedy, logitRows, openExact, relativeError, shardFixture } from "./tiny_models.ts";

const [, SHORT, LONG] = expectedOf("base");

Deno.test("truncate() then continuing gives exactly what a fresh sequence gives", async () => {
  using shards = await shardFixture("base");
  await using engine = await openExact(shards.path, { maxSequences: 2 });
  using used = engine.openSequence();
  // The same four tokens in one pass for both: kernels may round differently for another number of tokens.
  await engine.pass([{ sequence: used, tokens: LONG.promptIds.slice(0, 4), logits: "none" }]);
  await engine.pass([{ sequence: used, tokens: LONG.promptIds.slice(4), logits: "none" }]);
  assert.equal(used.cachedTokens, 21);
  used.truncate(4);
  using fresh = engine.openSequence();
  await engine.pass([{ sequence: fresh, tokens: LONG.promptIds.slice(0, 4), logits: "none" }]);
  const logits = [];
  for (const sequence of [used, fresh]) {
    const [output] = await engine.pass([{ sequence, tokens: SHORT.promptIds, logits: "last" }]);
    logits.push(...logitRows(engine, output.logits));
  }
  assert.deepEqual(logits[0], logits[1]);
});

Deno.test("pass() returns rows in the order asked, argmax as the logits have it, and nothing where nothing was asked", async () => {
  using shards = await shardFixture("base");
  await using engine = await openExact(shards.path, { maxSequences: 3, logitRows: 8 });
  const [a, b, c] = [engine.openSequence(), engine.openSequence(), engine.openSequence()];
  const tokens = LONG.promptIds;
  const outputs = await engine.pass([
    { sequence: a, tokens, logits: [20, 0, 5] },
    { sequence: b, tokens, logits: "none" },
    { sequence: c, tokens, logits: [20, 0, 5], output: "argmax" },
  ]);
  const rows = logitRows(engine, outputs[0].logits);
  assert.ok(relativeError(rows, [20, 0, 5].map((row) => LONG.promptLogits[row])) < 1e-4);
  assert.deepEqual(outputs[1], {});
  assert.equal(outputs[2].logits, undefined);
  assert.deepEqual([...outputs[2].argmax!], rows.map((row) => row.indexOf(Math.max(...row))));
});

Deno.test("pass() with a causal mask equals one without, and a tree of drafts equals each branch alone", async () => {
  using shards = await shardFixture("base");
  await using engine = await openExact(shards.path, { maxSequences: 3, logitRows: 16 });
  const prompt = LONG.promptIds;
  const open = async () => {
    const sequence = engine.openSequence();
    await engine.pass([{ sequence, tokens: prompt, logits: "none" }]);
    return sequence;
  };
  using tree = await open();
  using left = await open();
  using right = await open();
  // Token 0 has the children 1 and 2; 3 follows 1, 4 follows 2.
  const parents = [-1, 0, 0, 1, 2], tokens = [7, 8, 9, 10, 11];
  const mask = new Uint8Array(25);
  parents.forEach((_, i) => {
    for (let at = i; at >= 0; at = parents[at]) mask[i * 5 + at] = 1;
  });
  const [drafted, one, other] = await engine.pass([
    { sequence: tree, tokens, mask, logits: "all" },
    { sequence: left, tokens: [7, 8, 10], logits: "all" },
    { sequence: right, tokens: [7, 9, 11], logits: "all", mask: Uint8Array.of(1, 0, 0, 1, 1, 0, 1, 1, 1) },
  ]);
  const treeRows = logitRows(engine, drafted.logits);
  const leftRows = logitRows(engine, one.logits), rightRows = logitRows(engine, other.logits);
  assert.ok(relativeError([treeRows[0], treeRows[1], treeRows[3]], leftRows) < 1e-5);
  assert.ok(relativeError([treeRows[0], treeRows[2], treeRows[4]], rightRows) < 1e-5);
  assert.ok(relativeError([treeRows[4]], [leftRows[2]]) > 1e-3, "the branches must differ for this to prove anything");
});

Deno.test("pass() refuses items that mean nothing, and leaves engine and sequences as they were", async () => {
  using shards = await shardFixture("base");
  await using engine = await openExact(shards.path, { maxSequences: 2, passTokens: 40, contextTokens: 48, logitRows: 3 });
  await using other = await openExact(shards.path);
  using sequence = engine.openSequence();
  using foreign = other.openSequence();
  await engine.pass([{ sequence, tokens: [1, 2, 3], logits: "none" }]);
  const item = (changes: Partial<PassItem>): PassItem => ({ sequence, tokens: [4, 5], logits: "last", ...changes });
  const refused: [PassItem[], new (message: string) => Error, RegExp][] = [
    [[], UsageError, /it has no items/],
    [[item({ tokens: [] })], UsageError, /no tokens/],
    [[item({ tokens: [128] })], UsageError, /token 128: the vocabulary has ids 0 to 127/],
    [[item({ tokens: [-1] })], UsageError, /token -1/],
    [[item({ tokens: [1.5] })], UsageError, /token 1.5/],
    [[item({}), item({})], UsageError, /two of its items/],
    [[item({ sequence: foreign })], UsageError, /another engine/],
    [[item({ logits: [2] })], UsageError, /token 2 of an item: it has 2 tokens/],
    [[item({ mask: new Uint8Array(3) })], UsageError, /mask of 3 entries: 2 tokens require 4/],
    [[item({ mask: new Uint8Array(4) })], UsageError, /token 0 does not see itself/],
    [[item({ ropeSpanTokens: 4 })], UsageError, /ropeSpanTokens 4: the sequence has 5 tokens/],
    [[item({ tokens: new Array(41).fill(1) })], BudgetError, /41 tokens in one pass: the plan has room for 40/],
    [[item({ tokens: [1, 2, 3, 4], logits: "all" })], BudgetError, /4 rows of logits.*room for 3/],
  ];
  for (const [items, kind, pattern] of refused) {
    await assert.rejects(engine.pass(items), (error) => {
      assert.ok(error instanceof kind, `${error}`);
      assert.match((error as Error).message, pattern);
      return true;
    });
  }
  assert.equal(sequence.cachedTokens, 3);
  await engine.pass([item({ tokens: new Array(40).fill(1) })]);
  await assert.rejects(engine.pass([item({ tokens: new Array(6).fill(1) })]), (error) => {
    assert.ok(error instanceof BudgetError);
    assert.match(error.message, /49 tokens in a sequence \(43 cached, 6 new\): the context is 48 tokens/);
    return true;
  });
  assert.equal(sequence.cachedTokens, 43);
  await engine.pass([item({ tokens: new Array(5).fill(1) })]);
});

Deno.test("a pass that one sequence's context refuses leaves the others' caches as they were", async () => {
  using shards = await shardFixture("base");
  await using engine = await openExact(shards.path, { maxSequences: 2, contextTokens: 32 });
  using empty = engine.openSequence();
  using full = engine.openSequence();
  await engine.pass([{ sequence: full, tokens: new Array(32).fill(1), logits: "none" }]);
  const items = [empty, full].map((sequence) => ({ sequence, tokens: [1], logits: "none" as const }));
  await assert.rejects(engine.pass(items), BudgetError);
  assert.deepEqual([empty.cachedTokens, full.cachedTokens], [0, 32]);
});

Deno.test("a cancelled pass throws CancelledError, rolls back, and the next pass is right", async () => {
  using shards = await shardFixture("base");
  await using engine = await openExact(shards.path, { logitRows: 32 });
  using sequence = engine.openSequence();
  const item = { sequence, tokens: LONG.promptIds, logits: "all" as const };
  await assert.rejects(engine.pass([item], { signal: AbortSignal.abort() }), CancelledError);
  for (let microtasks = 0; microtasks < 40; microtasks++) {
    const controller = new AbortController();
    const pass = engine.pass([item], { signal: controller.signal });
    for (let i = 0; i < microtasks; i++) await Promise.resolve();
    controller.abort();
    await assert.rejects(pass, CancelledError);
    assert.equal(sequence.cachedTokens, 0);
  }
  const [output] = await engine.pass([item], { signal: new AbortController().signal });
  assert.ok(relativeError(logitRows(engine, output.logits), LONG.promptLogits) < 1e-4);
  assert.equal(engine.statistics.passes, 1);
});

Deno.test("pass() refuses a second one under way; a sequence in a pass cannot be truncated, and closes when the pass ends", async () => {
  using shards = await shardFixture("base");
  await using engine = await openExact(shards.path);
  const sequence = engine.openSequence();
  const pass = engine.pass([{ sequence, tokens: [1, 2], logits: "last" }]);
  await assert.rejects(engine.pass([{ sequence, tokens: [3], logits: "last" }]), /another is under way/);
  assert.throws(() => sequence.truncate(0), /a pass is using it/);
  sequence[Symbol.dispose]();
  assert.throws(() => engine.openSequence(), BudgetError);
  await pass;
  using next = engine.openSequence();
  await assert.rejects(engine.pass([{ sequence, tokens: [3], logits: "last" }]), /a sequence is closed/);
  assert.deepEqual(await greedy(engine, next, LONG.greedyIds[0], 1), [LONG.greedyIds[0]]);
});

Deno.test("openSequence() refuses more sequences than planned and names the limit", async () => {
  using shards = await shardFixture("base");
  await using engine = await openExact(shards.path, { maxSequences: 2 });
  using _a = engine.openSequence();
  const b = engine.openSequence();
  assert.throws(() => engine.openSequence(), /2 are open, the plan has room for 2/);
  b[Symbol.dispose]();
  using _c = engine.openSequence();
});

Deno.test("closing an engine during a pass ends the pass with CancelledError; afterwards it refuses work", async () => {
  using shards = await shardFixture("base");
  const engine = await openExact(shards.path);
  const sequence = engine.openSequence();
  const ended = assert.rejects(engine.pass([{ sequence, tokens: LONG.promptIds, logits: "last" }]), CancelledError);
  await engine[Symbol.asyncDispose]();
  await ended;
  await engine[Symbol.asyncDispose]();
  await assert.rejects(engine.pass([{ sequence, tokens: [1], logits: "last" }]), /the engine is closed/);
  assert.throws(() => engine.openSequence(), /the engine is closed/);
});

Deno.test("open() refuses options that mean nothing, each by name", async () => {
  using shards = await shardFixture("base");
  const refused: [Record<string, unknown>, RegExp][] = [
    [{ contextTokens: 0 }, /contextTokens 0/],
    [{ contextTokens: 129 }, /contextTokens 129: the model was made for 128/],
    [{ maxSequences: 1.5 }, /maxSequences 1.5/],
    [{ passTokens: -1 }, /passTokens -1/],
    [{ logitRows: NaN }, /logitRows NaN/],
    [{ ramBytes: -5 }, /ramBytes -5/],
    [{ precision: "double" }, /precision "double": known are exact, fast/],
    [{ kvCacheType: "i4" }, /kvCacheType "i4": known are f16, f32, q8/],
  ];
  for (const [options, pattern] of refused) {
    await assert.rejects(Engine.open(shards.path, options), (error) => {
      assert.ok(error instanceof UsageError, `${error}`);
      assert.match(error.message, pattern);
      return true;
    });
  }
  await assert.rejects(Engine.open(shards.path, { ramBytes: 1 << 20 }), (error) => {
    assert.ok(error instanceof BudgetError);
    assert.match(error.message, /need at least .* the budget is 1/);
    return true;
  });
});

Deno.test("planModel() plans without loading; the engine takes the memory planned, and its f16 cache half of f32's", async () => {
  using shards = await shardFixture("tied");
  const directory = await openShards(shards.path);
  const options = { contextTokens: 100, maxSequences: 2, passTokens: 64, logitRows: 5 };
  const { plan } = planModel(directory, options);
  // 100 tokens are four pages of 32; 2 layers, keys and values, 2 heads of 8, 2 bytes.
  assert.equal(plan.kvCacheBytes, 2 * 128 * 2 * 2 * 2 * 8 * 2);
  assert.equal(plan.contextTokens, 100);
  assert.equal(plan.streamedBytesPerPass, 0);
  assert.equal(planModel(directory, { ...options, kvCacheType: "f32" }).plan.kvCacheBytes, 2 * plan.kvCacheBytes);
  // A head of 8 is padded to one block of 32 codes and a scale.
  const q8 = planModel(directory, { ...options, kvCacheType: "q8" }).plan;
  assert.equal(q8.kvCacheBytes, 2 * 128 * 2 * 2 * 2 * 34);
  await using narrow = await Engine.open(directory, { ...options, kvCacheType: "q8" });
  assert.equal(narrow.plan.kvCacheBytes, q8.kvCacheBytes);
  await using engine = await Engine.open(directory, options);
  assert.deepEqual({ ...engine.plan, baselineBytes: 0, totalBytes: 0 }, { ...plan, baselineBytes: 0, totalBytes: 0 });
  using _a = engine.openSequence();
  using sequence = engine.openSequence();
  assert.equal(sequence.capacityTokens, 100);
});

Deno.test("statistics tell prefill from decode and count tokens, passes and bytes", async () => {
  using shards = await shardFixture("base");
  const progress: number[] = [];
  await using engine = await openExact(shards.path, { onProgress: ({ doneBytes }) => progress.push(doneBytes) });
  assert.equal(progress.at(-1), engine.plan.residentBytes);
  using sequence = engine.openSequence();
  await engine.pass([{ sequence, tokens: SHORT.promptIds, logits: "last" }]);
  const loaded = engine.statistics.bytesRead;
  assert.ok(loaded > engine.plan.residentBytes);
  await engine.pass([{ sequence, tokens: [5], logits: "last" }]);
  await engine.pass([{ sequence, tokens: [5], logits: "last" }]);
  const { prefill, decode, passes, tokens, bytesRead, readBytesPerSecond, peakRssBytes } = engine.statistics;
  assert.deepEqual([prefill.passes, prefill.tokens, decode.passes, decode.tokens], [1, 7, 2, 2]);
  assert.deepEqual([passes, tokens], [3, 9]);
  // All weights are resident: a decode pass reads one embedding row of 32 f32.
  assert.equal(decode.bytesRead, 2 * 32 * 4);
  assert.equal(bytesRead, loaded + decode.bytesRead);
  assert.ok(decode.seconds > 0 && Math.abs(readBytesPerSecond - decode.bytesRead / decode.seconds) < 1e-6);
  assert.ok(peakRssBytes > 10 << 20);
});
