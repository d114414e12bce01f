import assert from "node:assert/strict";
import { fileURLToPath } from "node:url";
import { PAGE_TOKENS } from "../../lib/cache/kv_cache.ts";
import { UsageError } from "../../lib/errors.ts";
import { casesOf, greedy, logitRows, openExact, relativeError, shardCheckpoint } from "./tiny_models.ts";

const FIXTURES = fileURLToPath(new URL("../fixtures/architectures/", import.meta.url));

/** u8 [tokens, tokens], causal order written out. */
function causalMask(tokens: number): Uint8Array {
  return Uint8Array.from({ length: tokens * tokens }, (_, i) => i % tokens <= Math.floor(i / tokens) ? 1 : 0);
}

Deno.test("a mask goes with a window of as many tokens: written-out causal order gives the logits of none", async () => {
  using shards = await shardCheckpoint(`${FIXTURES}mistral/sliding`);
  const { promptIds, promptLogits } = casesOf(`${FIXTURES}mistral/sliding`).at(-1)!;
  await using engine = await openExact(shards.path, { logitRows: 32 });
  using sequence = engine.openSequence();
  const rows: Float32Array[] = [];
  for (let start = 0; start < promptIds.length; start += 8) {
    const tokens = promptIds.slice(start, start + 8);
    const [{ logits }] = await engine.pass([{ sequence, tokens, logits: "all", mask: causalMask(tokens.length) }]);
    rows.push(...logitRows(engine, logits));
  }
  assert.ok(relativeError(rows, promptLogits) < 1e-4);
});

Deno.test("a draft in a window sees what its depth sees: two branches give the logits of each alone", async () => {
  using shards = await shardCheckpoint(`${FIXTURES}mistral/sliding`);
  const { promptIds } = casesOf(`${FIXTURES}mistral/sliding`).at(-1)!;
  await using engine = await openExact(shards.path, { logitRows: 8, maxSequences: 2 });
  const after = async (tokens: number[]): Promise<Float32Array> => {
    using sequence = engine.openSequence();
    await engine.pass([{ sequence, tokens: promptIds, logits: "none" }]);
    const [{ logits }] = await engine.pass([{ sequence, tokens, logits: "last" }]);
    return logitRows(engine, logits)[0];
  };
  const expected = [await after([5, 6]), await after([5, 7])];
  using sequence = engine.openSequence();
  await engine.pass([{ sequence, tokens: promptIds, logits: "none" }]);
  const mask = Uint8Array.of(1, 0, 0, 1, 1, 0, 1, 0, 1);
  const [{ logits }] = await engine.pass([{ sequence, tokens: [5, 6, 7], logits: [1, 2], mask }]);
  assert.ok(relativeError(logitRows(engine, logits), expected) < 1e-5);
});

Deno.test("a mask of more tokens than a window, or with ALiBi, is refused and leaves the sequence as it was", async () => {
  for (
    const [name, tokens, pattern] of [
      ["mistral/sliding", 9, /mask of 9 tokens with this model: its layers see a window of 8/],
      ["baichuan/alibi", 2, /ALiBi/],
    ] as const
  ) {
    using shards = await shardCheckpoint(FIXTURES + name);
    await using engine = await openExact(shards.path);
    using sequence = engine.openSequence();
    await engine.pass([{ sequence, tokens: [3, 4], logits: "last" }]);
    const item = { sequence, tokens: Array(tokens).fill(5), logits: "last" as const, mask: causalMask(tokens) };
    await assert.rejects(engine.pass([item]), (error) => error instanceof UsageError && pattern.test(error.message));
    assert.equal(sequence.cachedTokens, 2);
    await engine.pass([{ sequence, tokens: [5], logits: "last" }]);
  }
});

Deno.test("of a window no more is kept than the next tokens see: a long text in small passes gives the logits of one pass", async () => {
  const name = `${FIXTURES}gemma3_text/v5`, contextTokens = 128;
  using shards = await shardCheckpoint(name);
  const tokens = Array.from({ length: 120 }, (_, i) => (i * 37 + 11) % 60), { promptIds, greedyIds } = casesOf(name).at(-1)!;
  const expected: Float32Array[] = [];
  {
    await using engine = await openExact(shards.path, { contextTokens, passTokens: tokens.length, logitRows: tokens.length });
    using sequence = engine.openSequence();
    const [{ logits }] = await engine.pass([{ sequence, tokens, logits: "all" }]);
    expected.push(...logitRows(engine, logits).map((row) => row.slice()));
  }
  await using engine = await openExact(shards.path, { contextTokens, passTokens: 16, logitRows: 16, maxSequences: 2 });
  const { layers, numKvHeads, headDim } = engine.config;
  // Window and pass fit one page; they may begin anywhere in it.
  const kept = layers.map(({ attention: { windowTokens } }) => windowTokens === 8 ? 2 * PAGE_TOKENS : contextTokens);
  const kvBytes = engine.plan.kvCacheBytes + (engine.plan.device?.kvCacheBytes ?? 0);
  assert.equal(kvBytes, kept.reduce((sum, rows) => sum + 2 * rows * 2 * numKvHeads * headDim * 4, 0));
  assert.ok(kept.includes(2 * PAGE_TOKENS));

  // Two sequences in turn, so that each takes pages that the other gave back.
  const sequences = [engine.openSequence(), engine.openSequence()], rows: Float32Array[][] = [[], []];
  for (let start = 0, step = 1; start < tokens.length; start += step, step = step % 16 + 3) {
    step = Math.min(step, 16);
    for (const [i, sequence] of sequences.entries()) {
      const [{ logits }] = await engine.pass([{ sequence, tokens: tokens.slice(start, start + step), logits: "all" }]);
      rows[i].push(...logitRows(engine, logits).map((row) => row.slice()));
    }
  }
  for (const own of rows) assert.ok(relativeError(own, expected) < 1e-5);

  const [sequence] = sequences;
  assert.throws(() => sequence.truncate(50), {
    name: "UsageError",
    message: /^Cannot truncate a sequence to 50 tokens: layers that/,
  });
  assert.equal(sequence.cachedTokens, tokens.length);
  sequence.truncate(0);
  await engine.pass([{ sequence, tokens: promptIds, logits: "none" }]);
  assert.deepEqual(await greedy(engine, sequence, greedyIds[0], greedyIds.length), greedyIds);
});
