import assert from "node:assert/strict";
import { BudgetError } from "../../lib/errors.ts";
import type { PlanRequest, TapeExtent } from "../../lib/memory/plan.ts";
import {
  kvCacheBytes,
  MIN_CONTEXT_TOKENS,
  MIN_PASS_TOKENS,
  plan,
  predictSecondsPerToken,
  spreadResident,
} from "../../lib/memory/planner.ts";
import { random } from "../random.ts";

const MiB = 2 ** 20;

function tapeOf(sizes: number[]): TapeExtent[] {
  return sizes.map((paddedBytes, extent) => ({ tensor: 0, extent, paddedBytes }));
}

/** A tape like a model's: layers of equal matrices, each in extents of at most `limit`, then a head. */
function modelTape(next: () => number): TapeExtent[] {
  const limit = 4096 * (1 + Math.floor(next() * 4096));
  const matrices = Array.from({ length: 1 + Math.floor(next() * 7) }, () => 4096 * (1 + Math.floor(next() ** 3 * 20000)));
  const sizes: number[] = [];
  const add = (bytes: number) => {
    for (; bytes > 0; bytes -= limit) sizes.push(Math.min(bytes, limit));
  };
  for (let layer = 0; layer < 1 + next() * 40; layer++) matrices.forEach(add);
  add(4096 * (1 + Math.floor(next() * 5000)));
  return tapeOf(sizes);
}

const sum = (tape: readonly TapeExtent[]) => tape.reduce((bytes, extent) => bytes + extent.paddedBytes, 0);
const largestOf = (tape: readonly TapeExtent[]) => tape.reduce((max, extent) => Math.max(max, extent.paddedBytes), 0);

function randomRequest(next: () => number): PlanRequest {
  const tape = modelTape(next);
  const baselineBytes = Math.floor(next() * 200 * MiB);
  return {
    ramBytes: baselineBytes + Math.floor(next() ** 2 * (sum(tape) * 1.3 + 300 * MiB)),
    machineBytes: Infinity,
    baselineBytes,
    tape,
    vectorBytes: Math.floor(next() * MiB),
    kv: [
      { bytesPerToken: Math.floor(next() ** 3 * 20000) },
      ...(next() < 0.3 ? [{ bytesPerToken: Math.floor(next() ** 3 * 20000), mostTokens: 1 + Math.floor(next() * 2000) }] : []),
    ],
    stateBytes: next() < 0.3 ? Math.floor(next() * MiB) : 0,
    contextTokens: 1 + Math.floor(next() * 4096),
    maxSequences: 1 + Math.floor(next() ** 4 * 40),
    contextIsFlexible: next() < 0.4,
    activationBytesPerToken: Math.floor(next() ** 2 * 300000),
    logitsBytesPerRow: Math.floor(next() ** 2 * 500000),
    logitRows: 1 + Math.floor(next() ** 3 * 100),
    passTokens: 1 + Math.floor(next() * 600),
  };
}

/** Returns the plan, or the refusal. */
function tryPlan(request: PlanRequest): ReturnType<typeof plan> | BudgetError {
  try {
    return plan(request);
  } catch (error) {
    if (error instanceof BudgetError) return error;
    throw error;
  }
}

Deno.test("kvCacheBytes() counts of windows no more than they keep", () => {
  const demands = [{ bytesPerToken: 10 }, { bytesPerToken: 7, mostTokens: 96 }];
  assert.equal(kvCacheBytes(demands, 64, 3), 3 * 64 * 17);
  assert.equal(kvCacheBytes(demands, 4096, 1), 4096 * 10 + 96 * 7);
});

Deno.test("plan() keeps every random request within its budget, with sums that agree", () => {
  const next = random(1);
  let refused = 0, streaming = 0, partly = 0;
  for (let round = 0; round < 3000; round++) {
    const request = randomRequest(next);
    const made = tryPlan(request);
    if (made instanceof BudgetError) {
      refused++;
      continue;
    }
    const { tape } = request;
    assert.ok(made.totalBytes <= request.ramBytes!, `round ${round}: ${made.totalBytes} of ${request.ramBytes}`);
    const parts = made.residentBytes + made.slotBytes + made.kvCacheBytes + made.stateBytes + made.activationBytes +
      made.vectorBytes + made.baselineBytes;
    assert.equal(made.stateBytes, request.stateBytes);
    assert.equal(made.totalBytes, parts);
    assert.equal(made.resident.length, tape.length);
    assert.equal(made.residentBytes, sum(tape.filter((_, i) => made.resident[i])));
    assert.equal(made.residentBytes + made.streamedBytesPerPass, sum(tape));
    assert.equal(made.kvCacheBytes, kvCacheBytes(request.kv, made.contextTokens, request.maxSequences));
    assert.equal(
      made.activationBytes,
      request.activationBytesPerToken * made.passTokens +
        request.logitsBytesPerRow * Math.min(request.logitRows, made.passTokens),
    );
    assert.ok(made.passTokens <= request.passTokens);
    assert.ok(made.passTokens >= Math.min(request.passTokens, Math.max(MIN_PASS_TOKENS, request.maxSequences)));
    assert.ok(made.contextTokens <= request.contextTokens);
    if (request.contextIsFlexible) assert.ok(made.contextTokens >= Math.min(request.contextTokens, MIN_CONTEXT_TOKENS));
    else assert.equal(made.contextTokens, request.contextTokens);
    if (made.streamedBytesPerPass === 0) assert.equal(made.slotBytes, 0);
    else {
      streaming++;
      if (made.residentBytes > 0) partly++;
      assert.ok(made.slotBytes >= 2 * largestOf(tape), "the slots hold two of the largest extents");
      assert.ok(made.slotBytes <= Math.max(64 * MiB, 4 * largestOf(tape)), "the slots take no more than is of use");
      assert.equal(made.slotBytes % 4096, 0);
    }
  }
  // The property is worth something only where all kinds of answers occur.
  assert.ok(
    refused > 200 && streaming > 500 && partly > 300,
    `${refused} refused, ${streaming} stream, ${partly} partly resident`,
  );
});

Deno.test("plan() never streams more with more memory", () => {
  const next = random(2);
  for (let round = 0; round < 1500; round++) {
    const request = { ...randomRequest(next), contextIsFlexible: false };
    const more = { ...request, ramBytes: request.ramBytes! + Math.floor(next() ** 4 * 100 * MiB) };
    const [a, b] = [tryPlan(request), tryPlan(more)];
    if (a instanceof BudgetError) continue;
    assert.ok(!(b instanceof BudgetError));
    assert.ok(
      b.streamedBytesPerPass <= a.streamedBytesPerPass,
      `round ${round}: ${a.streamedBytesPerPass} to ${b.streamedBytesPerPass}`,
    );
  }
});

Deno.test("spreadResident() is even in every run of the tape and wastes less than an extent", () => {
  const next = random(3);
  for (let round = 0; round < 500; round++) {
    const tape = modelTape(next);
    const budgetBytes = Math.floor(next() * sum(tape));
    const { resident, residentBytes } = spreadResident(tape, budgetBytes);
    const largest = largestOf(tape), share = residentBytes / sum(tape);
    assert.ok(residentBytes <= budgetBytes);
    assert.ok(
      residentBytes > budgetBytes - largest,
      `round ${round}: ${budgetBytes - residentBytes} bytes unused, largest ${largest}`,
    );
    // A run is the difference of two prefixes, so its error is at most the span of the prefixes' errors.
    let error = 0, low = 0, high = 0;
    tape.forEach(({ paddedBytes }, i) => {
      error += (resident[i] ? paddedBytes : 0) - share * paddedBytes;
      low = Math.min(low, error);
      high = Math.max(high, error);
    });
    assert.ok(high - low < 6 * largest, `round ${round}: a run is ${(high - low) / largest} extents off`);
  }
});

Deno.test("spreadResident() alternates equal extents", () => {
  const kept = (extents: number, budget: number) =>
    spreadResident(tapeOf(Array(extents).fill(4096)), budget * 4096).resident.map((r) => r ? "R" : "s").join("");
  assert.equal(kept(8, 4), "sRsRsRsR");
  assert.equal(kept(9, 3), "ssRssRssR");
  assert.equal(kept(8, 6), "sRRRsRRR");
  assert.equal(kept(4, 0), "ssss");
  assert.equal(kept(4, 4), "RRRR");
});

/** Bytes of a token's keys and values of Llama 3.1 405B: 126 layers, 8 heads of 128, f16. */
const FOUNDING_KV = 126 * 2 * 8 * 128 * 2;

/** Llama 3.1 405B in q4o: 126 layers of 1.7 GB, 126 extents of 13.5 MiB each. */
const FOUNDING: PlanRequest = {
  ramBytes: 8 * 2 ** 30,
  machineBytes: Infinity,
  baselineBytes: 150 * MiB,
  tape: tapeOf(Array(126 * 126).fill(13.5 * MiB)),
  vectorBytes: 17 * MiB,
  kv: [{ bytesPerToken: FOUNDING_KV }],
  stateBytes: 0,
  contextTokens: 1024,
  maxSequences: 1,
  contextIsFlexible: false,
  activationBytesPerToken: 4 * (16384 * 5 + 53248 * 2 + 2048),
  logitsBytesPerRow: 4 * 128256,
  logitRows: 1,
  passTokens: 512,
};

Deno.test("plan() fits a 405B into 8 GiB and into 2 GiB", () => {
  const eight = plan(FOUNDING);
  assert.equal(eight.slotBytes, 64 * MiB);
  assert.equal(eight.passTokens, 512);
  assert.ok(eight.residentBytes > 6.5 * 2 ** 30);
  const two = plan({ ...FOUNDING, ramBytes: 2 * 2 ** 30 });
  assert.ok(two.residentBytes > 0 && two.residentBytes < eight.residentBytes);
  assert.equal(
    predictSecondsPerToken(two, { diskBytesPerSecond: 2e9, memoryBytesPerSecond: 20e9 }),
    two.streamedBytesPerPass / 2e9,
  );
});

Deno.test("plan() shortens passes, then refuses with what is needed and what takes the most", () => {
  const request = { ...FOUNDING, contextTokens: 128 };
  const { baselineBytes, vectorBytes, kv: [{ bytesPerToken }], activationBytesPerToken, logitsBytesPerRow } = request;
  const needed = baselineBytes + vectorBytes + 128 * bytesPerToken + 32 * activationBytesPerToken + logitsBytesPerRow +
    2 * 13.5 * MiB;
  const least = plan({ ...request, ramBytes: needed });
  assert.equal(least.passTokens, 32);
  assert.equal(least.residentBytes, 0);
  assert.equal(least.slotBytes, 27 * MiB);
  assert.equal(least.totalBytes, needed);
  assert.throws(
    () => plan({ ...request, ramBytes: needed - 1 }),
    {
      name: "BudgetError",
      message: new RegExp(
        `128 tokens.*need at least ${needed} bytes, the budget is ${needed - 1} bytes; .*process itself, 150 MiB`,
      ),
    },
  );
  assert.throws(
    () => plan({ ...request, contextTokens: 131072 }),
    {
      name: "BudgetError",
      message: /need at least 63\.\d GiB, the budget is 8\.00 GiB; most is for the KV cache of 131072 tokens x 1, 63\.0 GiB/,
    },
  );
  assert.throws(() => plan({ ...request, ramBytes: undefined, machineBytes: 2 ** 20 }), {
    message: /the memory this machine has free is 1\.00 MiB/,
  });
});

Deno.test("plan() shortens a flexible context only, to a quarter of what is spare at most", () => {
  const made = plan({ ...FOUNDING, contextTokens: 131072, contextIsFlexible: true });
  assert.ok(made.contextTokens < 131072);
  assert.ok(made.kvCacheBytes <= 8 * 2 ** 30 / 4 + MIN_CONTEXT_TOKENS * FOUNDING_KV);
  assert.ok(made.kvCacheBytes > 1.5 * 2 ** 30);
  assert.equal(plan({ ...FOUNDING, contextTokens: 300, contextIsFlexible: true }).contextTokens, 300);
});

Deno.test("plan() takes shorter passes where they let all weights stay", () => {
  const request = { ...FOUNDING, tape: tapeOf(Array(64).fill(16 * MiB)), contextTokens: 0 };
  const base = request.baselineBytes + request.vectorBytes + request.logitsBytesPerRow + 1024 * MiB;
  const made = plan({ ...request, ramBytes: base + 100 * request.activationBytesPerToken });
  assert.equal(made.streamedBytesPerPass, 0);
  assert.equal(made.passTokens, 100);
  assert.equal(made.slotBytes, 0);
});

Deno.test("plan() without a budget plans against the machine's memory, and never beyond it", () => {
  const made = plan({ ...FOUNDING, ramBytes: undefined, machineBytes: 4 * 2 ** 30 });
  assert.ok(made.totalBytes <= 4 * 2 ** 30 && made.totalBytes > 3.9 * 2 ** 30);
  assert.deepEqual(plan({ ...FOUNDING, machineBytes: 4 * 2 ** 30 }), made);
});

Deno.test("predictSecondsPerToken() is the slower of the disk and the memory", () => {
  const speed = { diskBytesPerSecond: 2e9, memoryBytesPerSecond: 20e9 };
  assert.equal(
    predictSecondsPerToken({ residentBytes: 4e9, pinnedBytes: 0, streamedBytesPerPass: 0, kvCacheBytes: 0 }, speed),
    0.2,
  );
  assert.equal(
    predictSecondsPerToken({ residentBytes: 3e9, pinnedBytes: 0, streamedBytesPerPass: 1e9, kvCacheBytes: 0 }, speed),
    0.5,
  );
});

Deno.test("plan() takes no fewer tokens a pass than asked for where a prompt cannot be divided, and refuses what does not fit", () => {
  const next = random(17);
  let lowered = 0, refused = 0;
  for (let i = 0; i < 300; i++) {
    const request = randomRequest(next), whole = tryPlan({ ...request, passIsWhole: true }), divided = tryPlan(request);
    if (whole instanceof BudgetError) {
      refused++;
      if (!(divided instanceof BudgetError)) assert.ok(divided.passTokens < request.passTokens);
      continue;
    }
    assert.equal(whole.passTokens, request.passTokens);
    if (!(divided instanceof BudgetError) && divided.passTokens < request.passTokens) lowered++;
  }
  assert.ok(lowered > 0 && refused > 0, `${lowered}, ${refused}`);
});
