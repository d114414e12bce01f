import assert from "node:assert/strict";
import { readdirSync, truncateSync } from "node:fs";
import { join } from "node:path";
import { CancelledError } from "../../lib/errors.ts";
import { Engine } from "../../lib/engine/engine.ts";
import type { EngineOptions } from "../../lib/engine/model_plan.ts";
import { logitRows } from "./tiny_models.ts";
import { syntheticModel } from "./synthetic_model.ts";

const LAYERS = 10;
const OPTIONS: EngineOptions = { contextTokens: 128, passTokens: 64, threads: 2 };
const PROMPT = Array.from({ length: 40 }, (_, i) => (i * 37) % 256);

/** Opens a model of which at most `residentBytes` of weights stay in memory. Not by a budget: other tests share this process and its memory. */
async function openStreamed(path: string, residentBytes: number): Promise<Engine> {
  return await Engine.open(path, { ...OPTIONS, residentBytes });
}

/** The logits of a prompt and of 6 tokens after it. */
async function transcript(engine: Engine): Promise<Float32Array[]> {
  using sequence = engine.openSequence();
  const rows: Float32Array[] = [];
  for (const tokens of [PROMPT, [1], [2], [3], [4], [5], [6]]) {
    const [{ logits }] = await engine.pass([{ sequence, tokens, logits: "last" }]);
    rows.push(...logitRows(engine, logits));
  }
  return rows;
}

Deno.test("a streamed model gives the resident one's logits to the last bit, for three budgets", async () => {
  using model = await syntheticModel(LAYERS, false);
  let expected: Float32Array[];
  let weightBytes: number;
  {
    await using resident = await Engine.open(model.path, OPTIONS);
    assert.equal(resident.plan.streamedBytesPerPass, 0);
    weightBytes = resident.plan.residentBytes;
    expected = await transcript(resident);
    assert.equal(new Set(expected.map((row) => row[0])).size, expected.length);
    assert.ok(expected.every((row) => row.every(Number.isFinite)));
  }
  for (const share of [0, 0.35, 0.7]) {
    await using engine = await openStreamed(model.path, share * weightBytes);
    const { plan } = engine;
    assert.ok(plan.streamedBytesPerPass > 0.1 * weightBytes, `${share}: ${plan.streamedBytesPerPass} of ${weightBytes} stream`);
    assert.equal(plan.residentBytes + plan.streamedBytesPerPass, weightBytes);
    assert.deepEqual(await transcript(engine), expected);
    const { bytesRead } = engine.statistics;
    assert.ok(bytesRead >= plan.residentBytes + 7 * plan.streamedBytesPerPass, `${bytesRead} bytes read`);
    assert.ok(bytesRead <= plan.residentBytes + 7 * plan.streamedBytesPerPass + plan.slotBytes + (2 << 20));
  }
});

Deno.test("a streamed pass cancelled at any time rolls back, and the next gives the right logits", async () => {
  using model = await syntheticModel(LAYERS, false);
  await using engine = await openStreamed(model.path, 0);
  const expected = await transcript(engine);
  using sequence = engine.openSequence();
  for (const delayMs of [0, 1, 3, 6, 10, 15]) {
    const pass = engine.pass([{ sequence, tokens: PROMPT, logits: "last" }], { signal: AbortSignal.timeout(delayMs) });
    await pass.then(() => sequence.truncate(0), (error) => assert.ok(error instanceof CancelledError, `${error}`));
    assert.equal(sequence.cachedTokens, 0);
  }
  await assert.rejects(
    engine.pass([{ sequence, tokens: PROMPT, logits: "last" }], { signal: AbortSignal.timeout(1) }),
    CancelledError,
  );
  sequence[Symbol.dispose]();
  assert.deepEqual(await transcript(engine), expected);
});

Deno.test("a read that fails in a pass names the file, rolls the sequence back, and closes the engine to further passes", async () => {
  using model = await syntheticModel(LAYERS, false);
  await using engine = await openStreamed(model.path, 0);
  using sequence = engine.openSequence();
  await engine.pass([{ sequence, tokens: PROMPT, logits: "none" }], { expectAnother: false });
  for (const name of readdirSync(model.path).filter((name) => name.startsWith("layer-"))) {
    truncateSync(join(model.path, name), 4096);
  }
  const item = { sequence, tokens: [1], logits: "last" as const };
  await assert.rejects(async () => {
    // What was read ahead may serve a pass in part, not two.
    for (let i = 0; i < 2; i++) await engine.pass([item], { expectAnother: false });
  }, /layer-\d{4}\.safetensors/);
  assert.equal(sequence.cachedTokens, PROMPT.length);
  await assert.rejects(engine.pass([item]), /Cannot run a pass: the engine stopped after an error: .*layer-\d{4}/);
});
