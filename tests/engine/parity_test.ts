import assert from "node:assert/strict";
import { expectedOf, greedy, logitRows, openExact, relativeError, shardFixture } from "./tiny_models.ts";

const TOLERANCE = 2e-5;
const CHECKPOINTS = ["base", "tied", "mha_odd", "rope_linear", "rope_dynamic", "rope_llama3", "biases", "sharded", "rms_eps"];

for (const name of CHECKPOINTS) {
  Deno.test(`Engine matches transformers on ${name}: prompt logits, cached steps, 32 greedy tokens, relative error < ${TOLERANCE}`, async (t) => {
    using shards = await shardFixture(name);
    await using engine = await openExact(shards.path, { logitRows: 64 });
    for (const expected of expectedOf(name)) {
      await t.step(`prompt of ${expected.promptIds.length} tokens`, async () => {
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
      });
    }
  });

  Deno.test(`Engine gives prompts of different lengths on ${name} the same in one pass as alone`, async () => {
    using shards = await shardFixture(name);
    const cases = expectedOf(name);
    await using engine = await openExact(shards.path, { maxSequences: cases.length, logitRows: 64 });
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

  Deno.test(`Engine gives a prompt on ${name} brought in chunks the logits of the prompt at once`, async () => {
    using shards = await shardFixture(name);
    const expected = expectedOf(name).at(-1)!;
    await using engine = await openExact(shards.path, { logitRows: 64 });
    for (const chunkTokens of [1, 5, 16]) {
      using sequence = engine.openSequence();
      const rows: Float32Array[] = [];
      for (let start = 0; start < expected.promptIds.length; start += chunkTokens) {
        const tokens = expected.promptIds.slice(start, start + chunkTokens);
        const [chunk] = await engine.pass([
          { sequence, tokens, logits: "all", ropeSpanTokens: expected.promptIds.length },
        ]);
        rows.push(...logitRows(engine, chunk.logits));
      }
      assert.ok(relativeError(rows, expected.promptLogits) < TOLERANCE);
    }
  });
}
