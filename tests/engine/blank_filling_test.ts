/**
 * Sequences of a model that reads a prompt's text in both directions and fills a blank of it: what they refuse, and what they keep.
 */
import assert from "node:assert/strict";
import { fileURLToPath } from "node:url";
import { blankPositions, findBlank, textMask } from "../../lib/engine/blank_filling.ts";
import { BudgetError, UsageError } from "../../lib/errors.ts";
import { casesOf, greedy, logitRows, openExact, relativeError, shardCheckpoint } from "./tiny_models.ts";

const FIXTURE = fileURLToPath(new URL("../fixtures/architectures/chatglm/first", import.meta.url));
const MASK = 92, GMASK = 93, START = 94;
const GLM = { startTokenId: START, blankTokenIds: [GMASK, MASK] };

Deno.test("findBlank() takes the first [gMASK], without one the first [MASK], and the text up to the start token", () => {
  assert.deepEqual(findBlank(GLM, [5, GMASK, START]), { textTokens: 2, position: 1 });
  assert.deepEqual(findBlank(GLM, [5, MASK, 6, MASK, START, 7, START]), { textTokens: 4, position: 1 });
  assert.deepEqual(findBlank(GLM, [5, MASK, 6, GMASK, START]), { textTokens: 4, position: 3 });
  assert.throws(() => findBlank(GLM, [5, GMASK]), /required in its first pass is token 94, which ends its text/);
  assert.throws(() => findBlank(GLM, [5, START]), /a blank \(token 93 or 92\)/);
  const blank = { textTokens: 2, position: 1 };
  assert.deepEqual([0, 1, 2, 3].map((place) => blankPositions(blank, place)), [
    ...[{ text: 0, span: 0 }, { text: 1, span: 0 }, { text: 1, span: 1 }, { text: 1, span: 2 }],
  ]);
  assert.deepEqual([...textMask(blank, 4)], [1, 1, 0, 0, 1, 1, 0, 0, 1, 1, 1, 0, 1, 1, 1, 1]);
});

Deno.test("a sequence that fills a blank goes on where it was truncated to, refuses to lose a part of its text, and starts anew", async () => {
  using shards = await shardCheckpoint(FIXTURE);
  await using engine = await openExact(shards.path, { logitRows: 32 });
  // Prompts may be as long as the context.
  assert.equal(engine.plan.passTokens, 128);
  using sequence = engine.openSequence();
  for (const { promptIds, promptLogits, greedyIds } of casesOf(FIXTURE)) {
    const run = async () => (await engine.pass([{ sequence, tokens: promptIds, logits: "all" }]))[0].logits;
    assert.ok(relativeError(logitRows(engine, await run()), promptLogits) < 1e-4);
    assert.deepEqual(await greedy(engine, sequence, greedyIds[0], 5), greedyIds.slice(0, 5));
    sequence.truncate(promptIds.length);
    assert.deepEqual(await greedy(engine, sequence, greedyIds[0], 9), greedyIds.slice(0, 9));
    assert.throws(
      () => sequence.truncate(2),
      (error) => error instanceof UsageError && /read in both directions/.test(error.message),
    );
    sequence.truncate(0);
  }
});

Deno.test("a first pass without a whole text, or with a mask, is refused and leaves the sequence empty; a draft's mask is not", async () => {
  using shards = await shardCheckpoint(FIXTURE);
  await using engine = await openExact(shards.path, { logitRows: 32 });
  using sequence = engine.openSequence();
  const { promptIds, greedyIds, decodeLogits } = casesOf(FIXTURE)[0];
  const refused = async (tokens: number[], mask: Uint8Array | undefined, message: RegExp) => {
    await assert.rejects(engine.pass([{ sequence, tokens, logits: "last", mask }]), { name: "UsageError", message });
    assert.equal(sequence.cachedTokens, 0);
  };
  await refused(promptIds.slice(0, -1), undefined, /required in its first pass is token 94/);
  await refused(
    promptIds,
    textMask({ textTokens: 0, position: 0 }, promptIds.length),
    /Cannot use a mask in a sequence's first pass/,
  );
  await engine.pass([{ sequence, tokens: promptIds, logits: "none" }]);
  // Two branches of a draft, of which the second is the text.
  const mask = Uint8Array.of(1, 0, 0, 1, 1, 0, 1, 0, 1);
  const tokens = [greedyIds[0], 5, greedyIds[1]];
  const [{ logits }] = await engine.pass([{ sequence, tokens, logits: [0, 2], mask }]);
  assert.ok(relativeError(logitRows(engine, logits), decodeLogits.slice(0, 2)) < 1e-4);
});

Deno.test("a plan for prompts that are read as a whole has room for as long ones as asked for", async () => {
  using shards = await shardCheckpoint(FIXTURE);
  {
    await using engine = await openExact(shards.path, { passTokens: 40 });
    assert.equal(engine.plan.passTokens, 40);
    using sequence = engine.openSequence();
    const tokens = [...Array(40).fill(5), GMASK, START];
    await assert.rejects(engine.pass([{ sequence, tokens, logits: "last" }]), (error) => error instanceof BudgetError);
  }
});
