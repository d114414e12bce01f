/**
 * Every family against transformers: the fixtures of scripts/model/make_architecture_fixtures.py, resident and streamed, alone and together.
 */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import type { Engine, Sequence } from "../../lib/engine/engine.ts";
import { recurrentStates } from "../../lib/layers/recurrent.ts";
import { architectures } from "../../lib/models/registry.ts";
import {
  architectureNames,
  ARCHITECTURES as FIXTURES,
  casesOf,
  greedy,
  logitRows,
  openExact,
  openStreamed,
  type ParityCase,
  relativeError,
  shardCheckpoint,
} from "../engine/tiny_models.ts";

const TOLERANCE = 1e-4;
const GREEDY_TOKENS = 32;
const NAMES = architectureNames();

/** Returns the logits of a prompt that is brought in chunks of `chunkTokens`. */
async function prefill(engine: Engine, sequence: Sequence, ids: number[], chunkTokens: number): Promise<Float32Array[]> {
  const rows: Float32Array[] = [];
  for (let start = 0; start < ids.length; start += chunkTokens) {
    const tokens = ids.slice(start, start + chunkTokens);
    const [chunk] = await engine.pass([{ sequence, tokens, logits: "all", ropeSpanTokens: ids.length }]);
    rows.push(...logitRows(engine, chunk.logits));
  }
  return rows;
}

/** Runs one prompt as the reference did: at once, then a token a pass, then greedily from the prompt's end. */
async function checkAlone(engine: Engine, { promptIds, promptLogits, greedyIds, decodeLogits }: ParityCase): Promise<void> {
  using sequence = engine.openSequence();
  const promptError = relativeError(await prefill(engine, sequence, promptIds, engine.plan.passTokens), promptLogits);
  assert.ok(promptError < TOLERANCE, `prompt of ${promptIds.length}: relative error ${promptError}`);
  const steps: Float32Array[] = [];
  for (const token of greedyIds.slice(0, decodeLogits.length)) {
    const [step] = await engine.pass([{ sequence, tokens: [token], logits: "last" }]);
    steps.push(...logitRows(engine, step.logits));
  }
  const stepError = relativeError(steps, decodeLogits);
  assert.ok(stepError < TOLERANCE, `steps after a prompt of ${promptIds.length}: relative error ${stepError}`);
  assert.equal(greedyIds.length, GREEDY_TOKENS);
  // States go back by one pass alone, windows as far as they are kept.
  const forgets = engine.config.layers.some(({ attention }) =>
    recurrentStates(attention) || attention.windowTokens || attention.chunkTokens
  );
  sequence.truncate(forgets ? 0 : promptIds.length);
  if (forgets) await prefill(engine, sequence, promptIds, engine.plan.passTokens);
  assert.deepEqual(await greedy(engine, sequence, greedyIds[0], GREEDY_TOKENS), greedyIds);
}

/** Runs all prompts in one pass where the plan has room for them, then a token of each a pass. */
async function checkTogether(engine: Engine, cases: readonly ParityCase[]): Promise<void> {
  const sequences = cases.map(() => engine.openSequence());
  const tokens = cases.reduce((sum, { promptIds }) => sum + promptIds.length, 0);
  if (tokens <= engine.plan.passTokens) {
    const outputs = await engine.pass(
      cases.map(({ promptIds }, i) => ({ sequence: sequences[i], tokens: promptIds, logits: "all" as const })),
    );
    cases.forEach(({ promptLogits }, i) => {
      const error = relativeError(logitRows(engine, outputs[i].logits), promptLogits);
      assert.ok(error < TOLERANCE, `prompt ${i} beside others: relative error ${error}`);
    });
  } else {
    for (const [i, { promptIds }] of cases.entries()) await prefill(engine, sequences[i], promptIds, engine.plan.passTokens);
  }
  const texts = cases.map(({ greedyIds }) => [greedyIds[0]]);
  while (texts[0].length < GREEDY_TOKENS) {
    const next = await engine.pass(
      texts.map((text, i) => ({
        ...{ sequence: sequences[i], tokens: text.slice(-1), logits: "last" as const, output: "argmax" as const },
      })),
    );
    next.forEach(({ argmax }, i) => texts[i].push(argmax![0]));
  }
  assert.deepEqual(texts, cases.map(({ greedyIds }) => greedyIds));
  for (const sequence of sequences) sequence[Symbol.dispose]();
}

for (const name of NAMES) {
  const cases = casesOf(FIXTURES + name);
  const options = { maxSequences: cases.length, logitRows: 96, passTokens: 96 };

  Deno.test(`${name} matches transformers: prompts, cached steps, ${GREEDY_TOKENS} greedy tokens, in chunks, alone and together`, async () => {
    using shards = await shardCheckpoint(FIXTURES + name);
    await using engine = await openExact(shards.path, options);
    assert.equal(engine.plan.streamedBytesPerPass, 0);
    for (const expected of cases) await checkAlone(engine, expected);
    await checkTogether(engine, cases);

    const { promptIds, promptLogits } = cases.at(-1)!;
    using sequence = engine.openSequence();
    const chunks = prefill(engine, sequence, promptIds, 5);
    if (engine.config.blankFilling) {
      await assert.rejects(chunks, { name: "UsageError", message: /reads a prompt's text as a whole/ });
    } else assert.ok(relativeError(await chunks, promptLogits) < TOLERANCE);
  });

  Deno.test(`${name} gives the same streamed`, async () => {
    using shards = await shardCheckpoint(FIXTURES + name);
    await using engine = await openStreamed(shards.path, options);
    await checkTogether(engine, cases);
    await checkAlone(engine, cases[0]);
  });
}

Deno.test("every model_type that is served has a parity fixture", () => {
  const tested = new Set(NAMES.map((name) => name.split("/")[0]));
  const elsewhere = ["llama"];
  for (const { modelTypes } of architectures()) {
    for (const modelType of modelTypes) assert.ok(tested.has(modelType) || elsewhere.includes(modelType), modelType);
  }
});

Deno.test("the README's table lists every model_type that is served, and no other", () => {
  const readme = readFileSync(new URL("../../README.md", import.meta.url), "utf8");
  const rows = readme.split("\n## Models\n")[1].split("\n## ")[0].split("\n").filter((line) => line.startsWith("|"));
  const listed = rows.slice(2).flatMap((row) => [...row.split("|")[2].matchAll(/`([^`]+)`/g)].map(([, name]) => name));
  assert.deepEqual(listed.sort(), architectures().flatMap(({ modelTypes }) => modelTypes).sort());
});
