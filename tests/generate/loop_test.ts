import assert from "node:assert/strict";
import { BudgetError, CancelledError, UsageError } from "../../lib/errors.ts";
import type { GenerationRequest, GenerationStep } from "../../lib/generate/generation.ts";
import { GenerationLoop } from "../../lib/generate/loop.ts";
import { Random } from "../../lib/generate/random.ts";
import { argmax } from "../../lib/generate/sampler.ts";
import { ToyEngine, type ToyOptions } from "./toy_engine.ts";

function setUp(options: ToyOptions = {}) {
  const engine = new ToyEngine(options);
  return { engine, loop: new GenerationLoop(engine, { maxSequences: engine.maxSequences }) };
}

/** Tokens as letters: token 0 is "a". */
const letters = { push: (id: number) => String.fromCharCode(97 + id % 26), flush: () => "" };

function prompt(length: number, seed = 1): number[] {
  const random = new Random(seed);
  return Array.from({ length }, () => random.uint32() % 64);
}

/** What greedy decoding must give, computed without a loop. */
function greedy(engine: ToyEngine, promptIds: readonly number[], count: number): number[] {
  const tokens = [...promptIds];
  for (let i = 0; i < count; i++) tokens.push(argmax(engine.logits(tokens)));
  return tokens.slice(promptIds.length);
}

Deno.test("GenerationLoop gives the likeliest token each time, and ends by length", async () => {
  const { engine, loop } = setUp();
  const { tokenIds, finishReason, text, statistics } = await loop.submit({ promptIds: prompt(5), maxNewTokens: 7 }).done;
  assert.deepEqual(tokenIds, greedy(engine, prompt(5), 7));
  assert.equal(finishReason, "length");
  assert.equal(text, "");
  assert.equal(statistics.promptTokens, 5);
  assert.equal(statistics.generatedTokens, 7);
  assert.equal(statistics.passes, 7);
  assert.equal(statistics.decodeBytesRead, 6000);
  assert.ok(statistics.ttftSeconds! >= 0 && statistics.secondsPerToken! >= 0);
  assert.equal(engine.open, 0);
});

Deno.test("GenerationLoop draws the same tokens from the likeliest alone, and asks for all logits where equal ones make it necessary", async () => {
  for (const coarse of [false, true]) {
    for (const sampling of [{ topK: 5 }, { topK: 9, topP: 0.7 }, { topK: 3, minP: 0.3, temperature: 2 }, { topK: 1 }]) {
      const all = setUp({ coarse }), few = setUp({ coarse, prefersTopK: true });
      const request = { promptIds: prompt(6), maxNewTokens: 40, sampling: { ...sampling, seed: 3 } };
      const expected = await all.loop.submit(request).done;
      const { tokenIds } = await few.loop.submit(request).done;
      assert.deepEqual(tokenIds, expected.tokenIds);
      assert.equal(few.engine.likeliest, 40);
      assert.equal(few.engine.fallbacks > 0, coarse, `${few.engine.fallbacks} of 40`);
    }
  }
  // These take all logits.
  for (const sampling of [{ topP: 0.9 }, { topK: 5, repetitionPenalty: 1.3 }, { topK: 64 }, {}]) {
    const { engine, loop } = setUp({ prefersTopK: true });
    await loop.submit({ promptIds: prompt(6), maxNewTokens: 3, sampling }).done;
    assert.equal(engine.likeliest, 0);
  }
});

Deno.test("GenerationLoop says which pass is the last, so that nothing is read ahead after it", async () => {
  const { engine, loop } = setUp();
  await loop.submit({ promptIds: prompt(20), maxNewTokens: 3 }).done;
  assert.deepEqual(engine.passes, [
    { chunks: [16], expectAnother: true },
    { chunks: [4], expectAnother: true },
    { chunks: [1], expectAnother: true },
    { chunks: [1], expectAnother: false },
  ]);
});

Deno.test("GenerationLoop gives each of several prompts the text it gets alone, greedy and sampled, and they share passes", async () => {
  for (
    const sampling of [{}, { temperature: 1.5, topK: 20, seed: 4 }, {
      temperature: 1,
      topP: 0.8,
      repetitionPenalty: 1.2,
      seed: 8,
    }]
  ) {
    const request = (i: number): GenerationRequest => ({ promptIds: prompt(1 + 9 * i, i + 1), maxNewTokens: 6 + i, sampling });
    const alone: number[][] = [];
    for (let i = 0; i < 4; i++) alone.push((await setUp().loop.submit(request(i)).done).tokenIds);
    const { engine, loop } = setUp();
    const together = await Promise.all([0, 1, 2, 3].map((i) => loop.submit(request(i)).done));
    assert.deepEqual(together.map(({ tokenIds }) => tokenIds), alone);
    assert.ok(engine.passes.length < 16, `${engine.passes.length} passes for four texts of 6 to 9 tokens`);
    assert.equal(new Set(alone.map(String)).size, 4);
  }
});

Deno.test("GenerationLoop lets running texts share a pass with the prompts of new ones", async () => {
  const { engine, loop } = setUp();
  const first = loop.submit({ promptIds: prompt(2), maxNewTokens: 8 });
  let second: Promise<unknown> | undefined;
  for await (const _ of first) second ??= loop.submit({ promptIds: prompt(30, 2), maxNewTokens: 2 }).done;
  await second;
  assert.deepEqual(engine.passes.map(({ chunks }) => chunks), [[2], [1], [1, 15], [1, 15], [1, 1], [1], [1], [1]]);
});

Deno.test("GenerationLoop makes requests wait beyond maxSequences, and serves them all in the end", async () => {
  const { engine, loop } = setUp({ maxSequences: 2 });
  const requests = Array.from({ length: 7 }, (_, i) => ({ promptIds: prompt(3 + i, i), maxNewTokens: 1 + i }));
  const results = await Promise.all(requests.map((request) => loop.submit(request).done));
  results.forEach(({ tokenIds }, i) =>
    assert.deepEqual(tokenIds, greedy(engine, requests[i].promptIds, requests[i].maxNewTokens))
  );
  assert.ok(engine.passes.every(({ chunks }) => chunks.length <= 2));
  assert.equal(engine.open, 0);
});

Deno.test("GenerationLoop serves more texts than a pass has tokens in turn", async () => {
  const { engine, loop } = setUp({ passTokens: 2, maxSequences: 4 });
  const requests = [0, 1, 2, 3].map((i) => ({ promptIds: prompt(3, i), maxNewTokens: 5 }));
  const results = await Promise.all(requests.map((request) => loop.submit(request).done));
  results.forEach(({ tokenIds }, i) => assert.deepEqual(tokenIds, greedy(engine, requests[i].promptIds, 5)));
});

Deno.test("GenerationLoop ends at an end-of-text token, which it includes", async () => {
  const { engine, loop } = setUp();
  const expected = greedy(engine, prompt(4), 10);
  const { tokenIds, finishReason } = await loop.submit({ promptIds: prompt(4), maxNewTokens: 10, eosTokenIds: [99, expected[3]] })
    .done;
  assert.deepEqual(tokenIds, expected.slice(0, 4));
  assert.equal(finishReason, "stop");
});

Deno.test("GenerationLoop ends at a stop string across tokens, with the text before it", async () => {
  const { engine, loop } = setUp();
  const text = greedy(engine, prompt(4), 10).map(letters.push).join("");
  const stop = text.slice(3, 6);
  const at = text.indexOf(stop);
  const steps: GenerationStep[] = [];
  const request = { promptIds: prompt(4), maxNewTokens: 10, detokenizer: letters };
  const generation = loop.submit({ ...request, stopStrings: [stop, "never"] });
  for await (const step of generation) steps.push(step);
  assert.equal(generation.text, text.slice(0, at));
  assert.equal(generation.finishReason, "stop");
  assert.equal(steps.map((step) => step.text).join(""), text.slice(0, at));
  assert.equal(steps.length, at + 3);
  const missed = await loop.submit({ ...request, stopStrings: [text.slice(8) + "!"] }).done;
  assert.equal(missed.text, text);
  assert.equal(missed.finishReason, "length");
});

Deno.test("GenerationLoop ends where the context is full, unless the text was to end there anyway", async () => {
  const { engine, loop } = setUp({ contextTokens: 20 });
  const full = await loop.submit({ promptIds: prompt(15), maxNewTokens: 50 }).done;
  assert.equal(full.finishReason, "context");
  assert.deepEqual(full.tokenIds, greedy(engine, prompt(15), 5));
  assert.equal((await loop.submit({ promptIds: prompt(15), maxNewTokens: 5 }).done).finishReason, "length");
  assert.equal((await loop.submit({ promptIds: prompt(19), maxNewTokens: 5 }).done).tokenIds.length, 1);
});

Deno.test("GenerationLoop refuses prompts and options that cannot work, in one line each", () => {
  const { loop } = setUp({ contextTokens: 20 });
  const bad: [Partial<GenerationRequest>, string][] = [
    [{ promptIds: [] }, "Cannot generate from an empty prompt: required at least one token"],
    [
      { promptIds: prompt(20) },
      "Cannot generate: the prompt has 20 tokens, the context holds 20 including at least one new token",
    ],
    [{ promptIds: [3, 64] }, "Cannot generate: the prompt has token 64, the vocabulary holds ids from 0 to 63"],
    [{ promptIds: [-1] }, "Cannot generate: the prompt has token -1, the vocabulary holds ids from 0 to 63"],
    [{ maxNewTokens: 0 }, "Cannot generate 0 tokens: required a whole number from 1"],
    [{ maxNewTokens: 1.5 }, "Cannot generate 1.5 tokens: required a whole number from 1"],
    [{ sampling: { topP: 2 } }, "Cannot sample: topP is 2, required a number from 0 to 1"],
    [{ stopStrings: [""] }, "Cannot stop at an empty string: required at least one character"],
  ];
  for (const [change, message] of bad) {
    assert.throws(
      () => loop.submit({ promptIds: [1], maxNewTokens: 1, ...change }),
      (error: Error) => error instanceof UsageError && error.message === message,
      message,
    );
  }
});

Deno.test("GenerationLoop stops a pass that nobody waits for, and keeps the text so far with what was held back", async () => {
  const { engine, loop } = setUp();
  const abort = new AbortController();
  engine.duringPass = async (index, signal) => {
    if (index !== 3) return;
    abort.abort();
    assert.equal(signal?.aborted, true);
    await Promise.resolve();
  };
  const expected = greedy(engine, prompt(4), 3);
  const text = expected.map(letters.push).join("");
  const generation = loop.submit({
    promptIds: prompt(4),
    maxNewTokens: 9,
    detokenizer: letters,
    stopStrings: [text.slice(1) + "!"],
    signal: abort.signal,
  });
  const steps: GenerationStep[] = [];
  await assert.rejects(async () => {
    for await (const step of generation) steps.push(step);
  }, CancelledError);
  await assert.rejects(generation.done, CancelledError);
  assert.deepEqual(generation.tokenIds, expected);
  assert.equal(steps.map((step) => step.text).join(""), text);
  assert.deepEqual(steps.at(-1), { tokenId: undefined, text: text.slice(1) });
  await loop[Symbol.asyncDispose]();
  assert.equal(engine.open, 0);
});

Deno.test("GenerationLoop goes on for others when one is cancelled, and lets a waiting one in", async () => {
  const { engine, loop } = setUp({ maxSequences: 2 });
  const abort = new AbortController();
  engine.duringPass = (index, signal) => {
    if (index === 2) abort.abort();
    assert.ok(!signal?.aborted);
  };
  const cancelled = loop.submit({ promptIds: prompt(4), maxNewTokens: 9, signal: abort.signal });
  const others = [2, 3].map((seed) => loop.submit({ promptIds: prompt(6, seed), maxNewTokens: 9 }).done);
  await assert.rejects(cancelled.done, CancelledError);
  const results = await Promise.all(others);
  [2, 3].forEach((seed, i) => assert.deepEqual(results[i].tokenIds, greedy(engine, prompt(6, seed), 9)));
  assert.equal(cancelled.tokenIds.length, 2);
});

Deno.test("GenerationLoop ends a text whose reader leaves, and one whose signal was aborted before it began", async () => {
  const { engine, loop } = setUp();
  const left = loop.submit({ promptIds: prompt(4), maxNewTokens: 50 });
  for await (const _ of left) if (left.tokenIds.length >= 2) break;
  await assert.rejects(left.done, CancelledError);
  assert.ok(left.tokenIds.length <= 4);
  const never = loop.submit({ promptIds: prompt(4), maxNewTokens: 5, signal: AbortSignal.abort() });
  await assert.rejects(never.done, CancelledError);
  assert.equal((await loop.submit({ promptIds: prompt(2), maxNewTokens: 2 }).done).tokenIds.length, 2);
  assert.equal(engine.open, 0);
});

Deno.test("GenerationLoop fails the texts of a pass that fails, and serves later ones", async () => {
  const { engine, loop } = setUp();
  engine.duringPass = (index) => {
    if (index === 1) throw new Error("disk gone");
  };
  const failing = [1, 2].map((seed) => loop.submit({ promptIds: prompt(3, seed), maxNewTokens: 5 }).done);
  for (const done of failing) await assert.rejects(done, /disk gone/);
  assert.deepEqual((await loop.submit({ promptIds: prompt(3), maxNewTokens: 5 }).done).tokenIds, greedy(engine, prompt(3), 5));
  assert.equal(engine.open, 0);
});

Deno.test("GenerationLoop fails a text for which no sequence can be opened", async () => {
  const { engine, loop } = setUp();
  const open = engine.openSequence.bind(engine);
  engine.openSequence = () => {
    throw new BudgetError("Cannot open a sequence: no pages left");
  };
  await assert.rejects(loop.submit({ promptIds: prompt(3), maxNewTokens: 5 }).done, BudgetError);
  engine.openSequence = open;
  assert.equal((await loop.submit({ promptIds: prompt(3), maxNewTokens: 5 }).done).tokenIds.length, 5);
});

Deno.test("GenerationLoop cancels everything when it is closed, and takes no more", async () => {
  const { engine, loop } = setUp({ maxSequences: 1 });
  const generations = [1, 2].map((seed) => loop.submit({ promptIds: prompt(3, seed), maxNewTokens: 50 }));
  for await (const _ of generations[0]) {
    void loop[Symbol.asyncDispose]();
    break;
  }
  await loop[Symbol.asyncDispose]();
  for (const { done } of generations) await assert.rejects(done, CancelledError);
  assert.throws(() => loop.submit({ promptIds: [1], maxNewTokens: 1 }), /the model is closed/);
  assert.equal(engine.open, 0);
});

Deno.test("GenerationLoop gives every text its due under random arrivals and departures, 60 rounds", async () => {
  const random = new Random(12);
  for (let round = 0; round < 60; round++) {
    const { engine, loop } = setUp({
      maxSequences: 1 + random.uint32() % 4,
      passTokens: 1 + random.uint32() % 12,
      contextTokens: 24,
    });
    const pending: Promise<void>[] = [];
    const start = () => {
      const promptIds = prompt(1 + random.uint32() % 20, random.uint32());
      const maxNewTokens = 1 + random.uint32() % 10;
      const abort = new AbortController();
      const generation = loop.submit({ promptIds, maxNewTokens, signal: abort.signal });
      const cancelAfter = random.uint32() % 3 === 0 ? random.uint32() % 4 : Infinity;
      pending.push((async () => {
        const due = Math.min(maxNewTokens, 24 - promptIds.length);
        let steps = 0;
        try {
          for await (const _ of generation) if (++steps > cancelAfter) abort.abort();
        } catch (error) {
          assert.ok(error instanceof CancelledError);
        }
        assert.deepEqual(generation.tokenIds, greedy(engine, promptIds, generation.tokenIds.length));
        if (cancelAfter >= due) assert.equal(generation.tokenIds.length, due);
      })());
    };
    for (let i = 0; i < 3; i++) start();
    engine.duringPass = () => {
      if (random.uint32() % 3 === 0 && pending.length < 10) start();
    };
    for (let i = 0; i < pending.length; i++) await pending[i];
    await loop[Symbol.asyncDispose]();
    assert.equal(engine.open, 0);
  }
});

Deno.test("GenerationLoop divides no prompt of a model that reads it as a whole: it waits for room, or is refused", async () => {
  const { engine, loop } = setUp({ passTokens: 16, blankFilling: true });
  const lengths = [10, 9, 16, 3];
  const done = lengths.map((length, i) => loop.submit({ promptIds: prompt(length, i + 1), maxNewTokens: 3 }).done);
  const results = await Promise.all(done);
  results.forEach(({ tokenIds }, i) => assert.deepEqual(tokenIds, greedy(engine, prompt(lengths[i], i + 1), 3)));
  const chunks = engine.passes.flatMap((pass) => pass.chunks).filter((length) => length > 1);
  assert.deepEqual(chunks.toSorted((a, b) => a - b), [3, 9, 10, 16]);
  assert.deepEqual(engine.passes[0].chunks, [10, 3]);
  assert.throws(() => loop.submit({ promptIds: prompt(17), maxNewTokens: 1 }), {
    name: "UsageError",
    message: /the prompt has 17 tokens, this model reads a prompt in one pass and the plan has room for 16/,
  });
});
