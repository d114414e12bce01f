import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { greedy, logitRows, openExact, relativeError, rowsOf, shardCheckpoint, type TensorJson } from "./tiny_models.ts";

interface GoldenPrompt {
  name: string;
  ids: number[];
  logits: TensorJson;
  greedy_ids: number[];
}

const golden = JSON.parse(readFileSync(new URL("../fixtures/golden/kjv-5m.json", import.meta.url), "utf8"));
const prompts = golden.prompts as GoldenPrompt[];

Deno.test("Engine matches transformers on the shipped model: logits within 2e-5, 64 greedy tokens of every prompt, alone and together", async () => {
  using shards = await shardCheckpoint(fileURLToPath(new URL(`../../${golden.model}`, import.meta.url)));
  await using engine = await openExact(shards.path, { contextTokens: 512, maxSequences: prompts.length, passTokens: 512 });
  const sequences = prompts.map(() => engine.openSequence());
  for (const [i, { name, ids, logits, greedy_ids: expected }] of prompts.entries()) {
    const [output] = await engine.pass([{ sequence: sequences[i], tokens: ids, logits: "last" }]);
    const rows = logitRows(engine, output.logits);
    assert.ok(relativeError(rows, rowsOf(logits)) < 2e-5, name);
    assert.equal(rows[0].indexOf(Math.max(...rows[0])), expected[0], name);
    assert.deepEqual(await greedy(engine, sequences[i], expected[0], expected.length), expected, name);
    sequences[i].truncate(0);
  }
  // All prompts in one pass, then a token of each a pass.
  let items = prompts.map(({ ids }, i) => ({
    sequence: sequences[i],
    tokens: ids,
    logits: "last" as const,
    output: "argmax" as const,
  }));
  for (let step = 0; step < 64; step++) {
    const outputs = await engine.pass(items);
    outputs.forEach(({ argmax }, i) =>
      assert.equal(argmax![0], prompts[i].greedy_ids[step], `${prompts[i].name}, token ${step}`)
    );
    items = items.map((item, i) => ({ ...item, tokens: [outputs[i].argmax![0]] }));
  }
});
