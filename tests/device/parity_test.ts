/**
 * Every family on the device against transformers: all prompts of its fixture in one pass, and a few cached steps, resident and streamed. The whole of
 * tests/models runs on the device in scripts/test_emulated.ts and scripts/test_gpu.ts.
 */
import assert from "node:assert/strict";
import type { Engine } from "../../lib/engine/engine.ts";
import {
  architectureNames,
  ARCHITECTURES,
  casesOf,
  logitRows,
  openExact,
  openStreamed,
  type ParityCase,
  relativeError,
  shardCheckpoint,
} from "../engine/tiny_models.ts";
import { emulator } from "./emulated_device.ts";

const TOLERANCE = 1e-4;

/** Checks the logits of all prompts, and of cached steps of all of them together. */
async function matches(engine: Engine, cases: readonly ParityCase[]): Promise<void> {
  const sequences = cases.map(() => engine.openSequence());
  const whole = cases.reduce((sum, { promptIds }) => sum + promptIds.length, 0) <= engine.plan.passTokens;
  // What does not fit a pass together comes one after the other.
  const outputs = [];
  for (const group of whole ? [cases] : cases.map((one) => [one])) {
    const items = group.map((one) => ({
      ...{ sequence: sequences[cases.indexOf(one)], tokens: one.promptIds, logits: [one.promptIds.length - 1] },
    }));
    outputs.push(...(await engine.pass(items)).map(({ logits }) => logitRows(engine, logits)[0]));
  }
  const errors = [relativeError(outputs, cases.map(({ promptLogits }) => promptLogits.at(-1)!))];
  for (let step = 0; step < 2; step++) {
    const items = cases.map(({ greedyIds }, i) => ({
      ...{ sequence: sequences[i], tokens: [greedyIds[step]], logits: "last" as const },
    }));
    const rows = (await engine.pass(items)).map(({ logits }) => logitRows(engine, logits)[0]);
    errors.push(relativeError(rows, cases.map(({ decodeLogits }) => decodeLogits[step])));
  }
  assert.ok(errors.every((error) => error < TOLERANCE), `${errors}`);
  for (const sequence of sequences) sequence[Symbol.dispose]();
}

for (const name of architectureNames()) {
  Deno.test(`${name} on the device matches transformers, resident and streamed`, async () => {
    emulator?.configure("");
    using shards = await shardCheckpoint(ARCHITECTURES + name);
    // Longer prompts than a streamed pass takes are of no use here.
    const cases = casesOf(ARCHITECTURES + name).filter(({ promptIds }) => promptIds.length <= 32);
    const options = { device: "cuda" as const, maxSequences: cases.length, logitRows: 32, passTokens: 96 };
    for (const open of [openExact, openStreamed]) {
      await using engine = await open(shards.path, options);
      await matches(engine, cases);
    }
    emulator?.assertClean("after closing");
  });
}
