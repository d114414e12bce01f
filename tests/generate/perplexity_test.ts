import assert from "node:assert/strict";
import { AirkernError, UsageError } from "../../lib/errors.ts";
import { comparePerplexity, perplexity, type PerplexityOptions } from "../../lib/generate/perplexity.ts";
import { Random } from "../../lib/generate/random.ts";
import { ToyEngine } from "./toy_engine.ts";

const BOS = 3;

function text(length: number): number[] {
  const random = new Random(5);
  return Array.from({ length }, () => random.uint32() % 64);
}

function options(tokenIds: number[], windowTokens: number, change: Partial<PerplexityOptions> = {}): PerplexityOptions {
  return { tokenIds, bosTokenId: BOS, windowTokens, logitRows: 100, ...change };
}

/** Log-probabilities after some tokens. */
function logProbabilities(engine: ToyEngine, tokens: readonly number[]): number[] {
  const logits = [...engine.logits(tokens)];
  const total = logits.reduce((sum, logit) => sum + Math.exp(logit), 0);
  return logits.map((logit) => logit - Math.log(total));
}

/** Contexts in which each token of a text is predicted, by the definition. */
function* contexts(tokenIds: number[], windowTokens: number): Generator<[context: number[], tokenId: number]> {
  for (let i = 0; i < tokenIds.length; i++) {
    const start = i - i % (windowTokens - 1);
    yield [[BOS, ...tokenIds.slice(start, i)], tokenIds[i]];
  }
}

function mean(values: number[]): number {
  return values.reduce((a, b) => a + b, 0) / values.length;
}

Deno.test("perplexity() follows its definition at several windows, lengths and pass sizes, within 1e-9", async () => {
  for (const [length, windowTokens] of [[1, 2], [7, 2], [30, 8], [21, 8], [22, 8], [50, 51], [50, 100]]) {
    for (const [passTokens, logitRows] of [[16, 100], [5, 100], [16, 3], [100, 1]]) {
      const engine = new ToyEngine({ passTokens, maxSequences: 1 });
      const tokenIds = text(length);
      const result = await perplexity(engine, options(tokenIds, windowTokens, { logitRows }));
      const nll = mean([...contexts(tokenIds, windowTokens)].map(([context, id]) => -logProbabilities(engine, context)[id]));
      assert.ok(Math.abs(result.meanNll - nll) < 1e-9, `${length} tokens, window ${windowTokens}`);
      assert.ok(Math.abs(result.perplexity - Math.exp(nll)) < 1e-7);
      assert.equal(result.predictedTokens, length);
      assert.equal(result.windowTokens, windowTokens);
      assert.equal(engine.open, 0);
      assert.deepEqual(engine.passes.map(({ expectAnother }) => expectAnother).lastIndexOf(true), engine.passes.length - 2);
    }
  }
});

Deno.test("comparePerplexity() gives KL divergence and top-1 agreement by their definitions, within 1e-9", async () => {
  const model = new ToyEngine({ weights: 2, vocabSize: 4, passTokens: 5 });
  const reference = new ToyEngine({ weights: 1, vocabSize: 4, passTokens: 7 });
  const tokenIds = text(40).map((id) => id % 4);
  const result = await comparePerplexity(model, reference, options(tokenIds, 9));
  const divergences: number[] = [], agreements: number[] = [];
  for (const [context] of contexts(tokenIds, 9)) {
    const p = logProbabilities(model, context), q = logProbabilities(reference, context);
    divergences.push(q.reduce((sum, log, i) => sum + Math.exp(log) * (log - p[i]), 0));
    agreements.push(p.indexOf(Math.max(...p)) === q.indexOf(Math.max(...q)) ? 1 : 0);
  }
  assert.ok(Math.abs(result.klDivergence - mean(divergences)) < 1e-9 && result.klDivergence > 0.01);
  assert.equal(result.topOneAgreement, mean(agreements));
  assert.ok(result.topOneAgreement > 0 && result.topOneAgreement < 1);
  assert.deepEqual(result.reference, await perplexity(new ToyEngine({ weights: 1, vocabSize: 4 }), options(tokenIds, 9)));
});

Deno.test("comparePerplexity() finds no difference between a model and itself", async () => {
  const engine = () => new ToyEngine({ maxSequences: 1 });
  const result = await comparePerplexity(engine(), engine(), options(text(30), 8));
  assert.ok(Math.abs(result.klDivergence) < 1e-12);
  assert.equal(result.topOneAgreement, 1);
  assert.equal(result.perplexity, result.reference.perplexity);
});

Deno.test("perplexity() reports its progress to the end", async () => {
  const done: number[] = [];
  await perplexity(
    new ToyEngine(),
    options(text(20), 8, { onProgress: ({ doneTokens, totalTokens }) => done.push(doneTokens, totalTokens) }),
  );
  assert.deepEqual(done, [7, 20, 14, 20, 20, 20]);
});

Deno.test("perplexity() refuses an empty text, windows that do not fit, vocabularies that differ, and logits that are no numbers", async () => {
  const engine = new ToyEngine({ contextTokens: 32 });
  await assert.rejects(perplexity(engine, options([], 8)), /the text is empty/);
  for (const windowTokens of [1, 33, 2.5]) {
    await assert.rejects(
      perplexity(engine, options(text(5), windowTokens)),
      (error: Error) =>
        error instanceof UsageError &&
        error.message === `Cannot measure perplexity with a window of ${windowTokens} tokens: required 2 to 32, the context`,
    );
  }
  await assert.rejects(comparePerplexity(engine, new ToyEngine({ vocabSize: 65 }), options(text(5), 8)), /64 and 65 tokens/);
  engine.logits = () => new Float32Array(64).fill(NaN);
  await assert.rejects(perplexity(engine, options(text(5), 8)), AirkernError);
  assert.equal(engine.open, 0);
});
