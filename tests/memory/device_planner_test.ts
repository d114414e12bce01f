import assert from "node:assert/strict";
import { BudgetError } from "../../lib/errors.ts";
import type { Plan, PlanRequest, TapeExtent } from "../../lib/memory/plan.ts";
import { plan, predictSecondsPerToken } from "../../lib/memory/planner.ts";
import { random } from "../random.ts";

const MiB = 2 ** 20, GiB = 2 ** 30;

function tapeOf(sizes: number[]): TapeExtent[] {
  return sizes.map((paddedBytes, extent) => ({ tensor: 0, extent, paddedBytes }));
}

const sum = (tape: readonly TapeExtent[]) => tape.reduce((bytes, extent) => bytes + extent.paddedBytes, 0);
const largestOf = (tape: readonly TapeExtent[]) => tape.reduce((max, extent) => Math.max(max, extent.paddedBytes), 0);

/** Bytes of a token's keys and values of Llama 3.1 405B: 126 layers, 8 heads of 128, f16. */
const FOUNDING_KV = 126 * 2 * 8 * 128 * 2;

/** Llama 3.1 405B in q4o in extents of 4 MiB, on a GPU of 8 GiB in a machine of 16 GiB. */
const FOUNDING: PlanRequest = {
  ramBytes: 16 * GiB,
  machineBytes: Infinity,
  baselineBytes: 150 * MiB,
  tape: tapeOf(Array(126 * 425).fill(4 * MiB)),
  vectorBytes: 17 * MiB,
  kv: [{ bytesPerToken: 0 }],
  stateBytes: 0,
  contextTokens: 2048,
  maxSequences: 1,
  contextIsFlexible: false,
  activationBytesPerToken: 20000,
  logitsBytesPerRow: 4 * 128256,
  logitRows: 1,
  passTokens: 512,
  device: {
    vramBytes: 8 * GiB,
    freeBytes: 7.6 * GiB,
    vectorBytes: 17 * MiB,
    scratchBytes: 8 * MiB,
    kv: [{ bytesPerToken: FOUNDING_KV }],
    stateBytes: 0,
    activationBytesPerToken: 4 * (16384 * 5 + 53248 * 2 + 2048),
    logitsBytesPerRow: 4 * 128256,
  },
};

function randomRequest(next: () => number): PlanRequest {
  const extents = 1 + Math.floor(next() * 400), limit = 1 + Math.floor(next() * 1024);
  const tape = tapeOf(Array.from({ length: extents }, () => 4096 * (1 + Math.floor(next() * limit))));
  const baselineBytes = Math.floor(next() * 100 * MiB);
  const budget = () => Math.floor(next() ** 2 * (sum(tape) * 1.3 + 100 * MiB));
  return {
    ramBytes: baselineBytes + budget(),
    machineBytes: Infinity,
    baselineBytes,
    tape,
    vectorBytes: Math.floor(next() * MiB),
    kv: [{ bytesPerToken: next() < 0.3 ? Math.floor(next() ** 3 * 20000) : 0 }],
    stateBytes: 0,
    contextTokens: 1 + Math.floor(next() * 4096),
    maxSequences: 1 + Math.floor(next() ** 4 * 20),
    contextIsFlexible: next() < 0.4,
    activationBytesPerToken: Math.floor(next() ** 2 * 10000),
    logitsBytesPerRow: Math.floor(next() ** 2 * 500000),
    logitRows: 1 + Math.floor(next() ** 3 * 100),
    passTokens: 1 + Math.floor(next() * 600),
    device: {
      vramBytes: next() < 0.3 ? undefined : budget(),
      freeBytes: budget(),
      vectorBytes: Math.floor(next() * MiB),
      scratchBytes: Math.floor(next() * MiB),
      kv: [{ bytesPerToken: Math.floor(next() ** 3 * 20000) }],
      stateBytes: next() < 0.3 ? Math.floor(next() * MiB) : 0,
      activationBytesPerToken: Math.floor(next() ** 2 * 100000),
      logitsBytesPerRow: Math.floor(next() ** 2 * 500000),
    },
  };
}

function tryPlan(request: PlanRequest): Plan | BudgetError {
  try {
    return plan(request);
  } catch (error) {
    if (error instanceof BudgetError) return error;
    throw error;
  }
}

Deno.test("plan() keeps every random request with a device within both budgets, with sums that agree", () => {
  const next = random(11);
  const seen = { refused: 0, resident: 0, pinned: 0, three: 0 };
  for (let round = 0; round < 3000; round++) {
    const request = randomRequest(next);
    const made = tryPlan(request);
    if (made instanceof BudgetError) {
      assert.match(made.message, /need at least .* of (device|host) memory, /);
      seen.refused++;
      continue;
    }
    const { tape } = request, device = made.device!;
    assert.ok(made.totalBytes <= request.ramBytes!, `round ${round}: ${made.totalBytes} of ${request.ramBytes}`);
    const limit = Math.min(request.device!.vramBytes ?? Infinity, request.device!.freeBytes);
    assert.ok(Math.ceil(device.totalBytes / 4096) * 4096 <= limit, `round ${round}: ${device.totalBytes} of ${limit}`);
    const { pinnedBytes, slotBytes, deviceSlotBytes, kvCacheBytes, activationBytes, vectorBytes, baselineBytes } = made;
    assert.equal(made.totalBytes, pinnedBytes + slotBytes + kvCacheBytes + activationBytes + vectorBytes + baselineBytes);
    const ofDevice = device.vectorBytes + device.scratchBytes + device.kvCacheBytes + device.stateBytes + device.activationBytes;
    assert.deepEqual([made.stateBytes, device.stateBytes], [0, request.device!.stateBytes]);
    assert.equal(device.totalBytes, ofDevice + made.residentBytes + deviceSlotBytes);
    assert.equal(made.residentBytes, sum(tape.filter((_, i) => made.resident[i])));
    assert.equal(made.pinnedBytes, sum(tape.filter((_, i) => made.pinned[i])));
    assert.ok(tape.every((_, i) => !(made.resident[i] && made.pinned[i])), "an extent is in one place");
    assert.equal(made.residentBytes + made.pinnedBytes + made.streamedBytesPerPass, sum(tape));
    assert.ok(
      slotBytes >= Math.min(2 * largestOf(tape), sum(tape)),
      "host slots hold two of the largest extents, if only to load them",
    );
    assert.equal(deviceSlotBytes > 0, made.residentBytes < sum(tape));
    if (deviceSlotBytes > 0) assert.ok(deviceSlotBytes >= Math.min(2 * largestOf(tape), sum(tape)));
    if (made.residentBytes === sum(tape)) seen.resident++;
    else if (made.streamedBytesPerPass === 0) seen.pinned++;
    else if (made.residentBytes > 0 && made.pinnedBytes > 0) seen.three++;
  }
  assert.ok(Object.values(seen).every((count) => count > 100), JSON.stringify(seen));
});

Deno.test("plan() streams less from disk, but for an extent, with more of either memory", () => {
  const next = random(12);
  let compared = 0;
  for (let round = 0; round < 1500; round++) {
    const request = { ...randomRequest(next), contextIsFlexible: false };
    const before = tryPlan(request);
    if (before instanceof BudgetError || before.passTokens < request.passTokens) continue;
    const device = { ...request.device!, vramBytes: undefined, freeBytes: 2 * request.device!.freeBytes };
    for (const more of [{ ...request, ramBytes: 2 * request.ramBytes! }, { ...request, device }]) {
      const after = plan(more);
      assert.ok(after.streamedBytesPerPass <= before.streamedBytesPerPass + 2 * largestOf(request.tape), `round ${round}`);
      compared++;
    }
  }
  assert.ok(compared > 300);
});

Deno.test("plan() spreads what is pinned evenly among what is not resident", () => {
  const made = plan({ ...FOUNDING, tape: tapeOf(Array(3000).fill(4 * MiB)), ramBytes: 2 * GiB });
  const moving = made.pinned.filter((_, i) => !made.resident[i]);
  const share = made.pinnedBytes / (made.pinnedBytes + made.streamedBytesPerPass);
  let owed = 0;
  for (const pinned of moving) {
    owed += share - (pinned ? 1 : 0);
    assert.ok(Math.abs(owed) < 6, `${owed} extents off`);
  }
});

Deno.test("plan() of a 405B on 8 GiB of device and 16 GiB of host memory fills both, and predicts by the formula", () => {
  const made = plan(FOUNDING);
  assert.ok(made.device!.totalBytes > 7.59 * GiB && made.device!.totalBytes <= 7.6 * GiB);
  assert.ok(made.totalBytes > 15.9 * GiB && made.totalBytes <= 16 * GiB);
  assert.equal(made.deviceSlotBytes, 32 * MiB);
  assert.equal(made.slotBytes, 64 * MiB);
  const weights = sum(FOUNDING.tape), { residentBytes: inDevice, pinnedBytes: inHost } = made;
  const speeds = { diskBytesPerSecond: 3e9, busBytesPerSecond: 25e9, memoryBytesPerSecond: 900e9, flopsPerSecond: 150e12 };
  assert.equal(predictSecondsPerToken(made, speeds, 8.1e11), (weights - inDevice - inHost) / 3e9);
  assert.equal(predictSecondsPerToken(made, { ...speeds, diskBytesPerSecond: 1e12 }, 8.1e11), (weights - inDevice) / 25e9);
  const fast = { ...speeds, diskBytesPerSecond: 1e15, busBytesPerSecond: 1e15 };
  assert.equal(predictSecondsPerToken(made, fast, 8.1e11), weights / 900e9);
  assert.equal(predictSecondsPerToken(made, { ...fast, memoryBytesPerSecond: 1e15 }, 8.1e11), 8.1e11 / 150e12);
});

Deno.test("plan() trades context against residency, and refuses naming the memory that does not suffice", () => {
  const short = plan({ ...FOUNDING, contextTokens: 256 }), long = plan({ ...FOUNDING, contextTokens: 8192 });
  const kvBytes = FOUNDING_KV * (8192 - 256);
  const lost = short.residentBytes - long.residentBytes;
  assert.ok(Math.abs(lost - kvBytes) <= 8 * MiB, `${lost} bytes of weights for ${kvBytes} of KV cache`);
  const { device } = FOUNDING;
  assert.throws(() => plan({ ...FOUNDING, contextTokens: 32768 }), {
    name: "BudgetError",
    message:
      /^Cannot plan 32768 tokens of context: need at least 15\.\d GiB of device memory, what the device has to give is 7\.60 GiB; most is for the KV cache of 32768 tokens x 1, 15\.\d GiB$/,
  });
  assert.throws(() => plan({ ...FOUNDING, device: { ...device!, vramBytes: 256 * MiB } }), {
    message: /of device memory, the budget is 256 MiB; /,
  });
  assert.throws(() => plan({ ...FOUNDING, ramBytes: 160 * MiB }), {
    message: /of host memory, the budget is 160 MiB; most is for the process itself, 150 MiB$/,
  });
  // In host memory the cache takes of that instead, and of the device's two layers.
  const inRam = plan({
    ...{ ...FOUNDING, contextTokens: 16384, kv: device!.kv },
    device: { ...device!, kv: [{ bytesPerToken: FOUNDING_KV / 126 * 2 }] },
  });
  assert.equal(inRam.kvCacheBytes, 16384 * FOUNDING_KV);
  assert.ok(inRam.residentBytes > long.residentBytes);
});
