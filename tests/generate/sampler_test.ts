import assert from "node:assert/strict";
import { AirkernError, UsageError } from "../../lib/errors.ts";
import { type Processing, processLogits } from "../../lib/generate/processors.ts";
import { Random, randomSeed } from "../../lib/generate/random.ts";
import { argmax, Sampler, type SamplingOptions } from "../../lib/generate/sampler.ts";

function fixture<T>(name: string): T {
  return JSON.parse(Deno.readTextFileSync(new URL(`../fixtures/generate/${name}.json`, import.meta.url)));
}

Deno.test("processLogits() keeps the tokens and scores that transformers keeps, every combination of options, within 1e-4", () => {
  interface Case {
    options: Processing;
    prompt: number[];
    logits: number[];
    kept: number[];
    scores: number[];
  }
  const { cases } = fixture<{ cases: Case[] }>("processors");
  assert.ok(cases.length > 90, `only ${cases.length} cases`);
  for (const { options, prompt, logits, kept, scores } of cases) {
    const result = processLogits(Float32Array.from(logits), new Set(prompt), options);
    const byId = new Map([...result.ids].map((id, i) => [id, result.scores[i]]));
    assert.deepEqual([...byId.keys()].sort((a, b) => a - b), kept, JSON.stringify(options));
    // transformers' scores are not relative to the likeliest token's.
    const max = Math.max(...scores);
    kept.forEach((id, i) => assert.ok(Math.abs(byId.get(id)! - (scores[i] - max)) < 1e-4, JSON.stringify(options)));
  }
});

Deno.test("processLogits() keeps what a full sort keeps, top-k and top-p over a large vocabulary", () => {
  const random = new Random(3);
  for (const [topK, topP, spread] of [[0, 0.999999, 40], [0, 0.5, 1], [300, 1, 8], [256, 0.8, 8], [40, 0.95, 4], [0, 1e-9, 8]]) {
    const logits = Float32Array.from({ length: 5000 }, () => spread * (random.uniform() + random.uniform() - 1));
    const sorted = [...logits.keys()].sort((a, b) => logits[b] - logits[a]);
    const afterTopK = topK > 0 ? sorted.slice(0, topK) : sorted;
    const mass = afterTopK.map((id) => Math.exp(logits[id]));
    const total = mass.reduce((a, b) => a + b);
    let above = 0, count = 0;
    while (count < mass.length && (count === 0 || above < topP * total)) above += mass[count++];
    const { ids } = processLogits(logits.slice(), [], { repetitionPenalty: 1, temperature: 1, topK, topP, minP: 0 });
    assert.deepEqual(new Set(ids), new Set(topP < 1 ? afterTopK.slice(0, count) : afterTopK), `top-k ${topK}, top-p ${topP}`);
  }
});

Deno.test("Random gives the numbers of an independent xoshiro128** 1.1 seeded by SplitMix64", () => {
  const { cases } = fixture<{ cases: { seed: number; uint32: number[] }[] }>("random");
  assert.equal(cases.length, 4);
  for (const { seed, uint32 } of cases) {
    const random = new Random(seed);
    assert.deepEqual(uint32.map(() => random.uint32()), uint32, `seed ${seed}`);
  }
});

Deno.test("Random.uniform() stays in [0, 1) and fills it evenly, mean within 5 standard errors", () => {
  const random = new Random(7), count = 20000;
  let sum = 0;
  for (let i = 0; i < count; i++) {
    const value = random.uniform();
    assert.ok(value >= 0 && value < 1);
    sum += value;
  }
  assert.ok(Math.abs(sum / count - 0.5) < 5 * Math.sqrt(1 / 12 / count));
});

Deno.test("Random refuses seeds that are not whole numbers from 0; randomSeed() gives only good ones, and different ones", () => {
  for (const seed of [-1, 0.5, NaN, 2 ** 53]) assert.throws(() => new Random(seed), UsageError);
  const seeds = Array.from({ length: 100 }, randomSeed);
  for (const seed of seeds) new Random(seed);
  assert.ok(new Set(seeds).size > 90);
});

const LOGITS = [0.5, 2, -1, 1.5, 0, 2.25, -3, 1];

/** Draws many tokens and returns how often each came. */
function counts(options: SamplingOptions, draws: number): number[] {
  const sampler = new Sampler(options, []);
  const drawn = LOGITS.map(() => 0);
  for (let i = 0; i < draws; i++) drawn[sampler.sample(Float32Array.from(LOGITS))]++;
  return drawn;
}

Deno.test("Sampler draws by the softmax of the logits, chi-square with 7 degrees of freedom below its 99.9% quantile", () => {
  for (const temperature of [1, 0.6, 3]) {
    const draws = 20000;
    const mass = LOGITS.map((logit) => Math.exp(logit / temperature));
    const total = mass.reduce((a, b) => a + b);
    const drawn = counts({ temperature, seed: 11 }, draws);
    const chiSquare = drawn.reduce((sum, count, id) => {
      const expected = draws * mass[id] / total;
      return sum + (count - expected) ** 2 / expected;
    }, 0);
    assert.ok(chiSquare < 24.32, `chi-square ${chiSquare} at temperature ${temperature}`);
  }
});

Deno.test("Sampler draws only what top-k, top-p and min-p leave, and all of it", () => {
  const drawnIds = (options: SamplingOptions) =>
    counts({ ...options, seed: 5 }, 3000).flatMap((count, id) => count > 0 ? [id] : []);
  assert.deepEqual(drawnIds({ topK: 3 }), [1, 3, 5]);
  assert.deepEqual(drawnIds({ topK: 3, temperature: 0 }), [5]);
  assert.deepEqual(drawnIds({ minP: Math.exp(-0.3) }), [1, 5]);
  assert.deepEqual(drawnIds({ topP: 0.01 }), [5]);
  assert.deepEqual(drawnIds({ topP: 0 }), [5]);
  assert.deepEqual(drawnIds({ temperature: 1e-300 }), [5]);
});

Deno.test("Sampler repeats itself with the same seed, and does not with another", () => {
  const draw = (seed: number | undefined) => {
    const sampler = new Sampler({ temperature: 2, seed }, []);
    return Array.from({ length: 40 }, () => sampler.sample(Float32Array.from(LOGITS))).join();
  };
  assert.equal(draw(9), draw(9));
  assert.notEqual(draw(9), draw(10));
  assert.notEqual(draw(undefined), draw(undefined));
});

Deno.test("Sampler takes the likeliest token without options, and penalises tokens of prompt and text", () => {
  const greedy = new Sampler({}, [5]);
  assert.equal(greedy.isArgmax, true);
  assert.equal(greedy.sample(Float32Array.from(LOGITS)), 5);
  const penalised = new Sampler({ repetitionPenalty: 2 }, [5]);
  assert.equal(penalised.isArgmax, false);
  assert.equal(penalised.sample(Float32Array.from(LOGITS)), 1);
  penalised.accept(1);
  assert.equal(penalised.sample(Float32Array.from(LOGITS)), 3);
});

Deno.test("Sampler refuses options out of range, each by name", () => {
  const bad: [SamplingOptions, RegExp][] = [
    [{ temperature: -1 }, /temperature is -1, required a number from 0/],
    [{ temperature: NaN }, /temperature is NaN/],
    [{ topK: 1.5 }, /topK is 1.5, required a whole number from 0/],
    [{ topP: 1.1 }, /topP is 1.1, required a number from 0 to 1/],
    [{ minP: -0.1 }, /minP is -0.1/],
    [{ repetitionPenalty: 0 }, /repetitionPenalty is 0, required a number above 0/],
    [{ seed: -1 }, /seed is -1/],
  ];
  for (const [options, message] of bad) {
    assert.throws(() => new Sampler(options, []), (error: Error) => error instanceof UsageError && message.test(error.message));
  }
});

Deno.test("argmax() gives the first of equal ones and refuses NaN and infinity", () => {
  assert.equal(argmax([1, 3, 3, 2]), 1);
  assert.equal(argmax([-Infinity, -5]), 1);
  for (const logits of [[1, NaN, 2], [NaN], [-Infinity, -Infinity], [1, Infinity], []]) {
    assert.throws(() => argmax(logits), AirkernError);
  }
  const sampler = new Sampler({ temperature: 1, seed: 0 }, []);
  assert.throws(() => sampler.sample(Float32Array.of(0, NaN)), /logit of token 1 is NaN/);
});
