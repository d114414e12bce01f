import assert from "node:assert/strict";
import { BudgetError } from "../../lib/errors.ts";
import { planWithExperts } from "../../lib/memory/expert_planner.ts";
import type { ExpertTable, Plan, PlanRequest, TapeExtent } from "../../lib/memory/plan.ts";
import { predictSecondsPerToken } from "../../lib/memory/planner.ts";
import { random } from "../random.ts";

const MiB = 2 ** 20;

function extentsOf(count: number, bytes: () => number): TapeExtent[] {
  return Array.from({ length: count }, (_, extent) => ({ tensor: 0, extent, paddedBytes: bytes() }));
}

/** A model of 10 layers with 16 experts of three extents of 1 MiB, two a token; dense weights of 40 MiB. */
const TABLE: ExpertTable = {
  numLayers: 10,
  numExperts: 16,
  topK: 2,
  experts: Array.from({ length: 160 }, () => extentsOf(3, () => MiB)),
};
const REQUEST: PlanRequest = {
  ramBytes: undefined,
  machineBytes: Infinity,
  baselineBytes: 100 * MiB,
  tape: extentsOf(40, () => MiB),
  vectorBytes: MiB,
  stateBytes: 0,
  kv: [{ bytesPerToken: 1024 }],
  contextTokens: 1024,
  maxSequences: 1,
  contextIsFlexible: false,
  activationBytesPerToken: 10_000,
  logitsBytesPerRow: 1000,
  logitRows: 1,
  passTokens: 64,
};

const planFor = (ramBytes: number, most?: number): Plan => planWithExperts({ ...REQUEST, ramBytes }, TABLE, most);

Deno.test("planWithExperts() keeps what every token uses first, then as many experts as fit", () => {
  const { experts, ...plan } = planFor(300 * MiB);
  assert.equal(plan.streamedBytesPerPass, 0);
  assert.equal(plan.residentBytes, 40 * MiB);
  assert.ok(plan.totalBytes <= 300 * MiB && plan.totalBytes > 299 * MiB);
  assert.equal(experts!.cacheBytes, experts!.slots * MiB);
  assert.ok(experts!.slots > 150 && experts!.slots < 160);
  assert.equal(experts!.totalBytes, 480 * MiB);
  assert.equal(experts!.activeBytesPerToken, 60 * MiB);
  assert.equal(experts!.assumedHitRate, experts!.slots / 480);
});

Deno.test("planWithExperts() keeps all experts where they fit, and never more", () => {
  const { experts, streamedBytesPerPass } = planFor(1024 * MiB);
  assert.equal(streamedBytesPerPass, 0);
  assert.equal(experts!.slots, 480);
  assert.equal(experts!.assumedHitRate, 1);
});

Deno.test("planWithExperts() goes down to two extents of experts before it refuses, naming a figure", () => {
  const { experts, streamedBytesPerPass } = planFor(107 * MiB);
  assert.equal(experts!.slots, 2);
  assert.ok(streamedBytesPerPass > 0);
  assert.throws(() => planFor(103 * MiB), BudgetError);
});

Deno.test("planWithExperts() heeds a limit of the experts' memory as long as that is enough to go on", () => {
  assert.equal(planFor(1024 * MiB, 100 * MiB).experts!.slots, 100);
  assert.equal(planFor(1024 * MiB, 1).experts!.slots, 2);
});

Deno.test("planWithExperts() keeps random budgets, and with more memory reads no more a token", () => {
  const next = random(5);
  let last = Infinity;
  for (const ramMiB of Array.from({ length: 300 }, () => 107 + next() * 600).sort((a, b) => a - b)) {
    const plan = planFor(Math.floor(ramMiB * MiB));
    assert.ok(plan.totalBytes <= ramMiB * MiB, `${plan.totalBytes} of ${ramMiB} MiB`);
    const { experts, ...memory } = plan;
    const parts = memory.residentBytes + memory.slotBytes + memory.kvCacheBytes + memory.activationBytes + memory.vectorBytes +
      memory.baselineBytes + experts!.cacheBytes;
    assert.equal(parts, plan.totalBytes);
    const readBytes = plan.streamedBytesPerPass + (1 - experts!.assumedHitRate) * experts!.activeBytesPerToken;
    assert.ok(readBytes <= last + 64 * MiB * 60 / 480, `${readBytes} bytes a token with ${ramMiB} MiB, ${last} with less`);
    last = Math.min(last, readBytes);
  }
});

const DEVICE = {
  vectorBytes: MiB,
  scratchBytes: MiB,
  stateBytes: 0,
  kv: [{ bytesPerToken: 1024 }],
  activationBytesPerToken: 10_000,
  logitsBytesPerRow: 1000,
};

Deno.test("planWithExperts() keeps in host memory what experts a device cannot, within both budgets, and reads the rest", () => {
  const planned = (ramMiB: number, vramMiB: number): Plan =>
    planWithExperts(
      { ...REQUEST, ramBytes: ramMiB * MiB, device: { ...DEVICE, vramBytes: vramMiB * MiB, freeBytes: Infinity } },
      TABLE,
    );
  const busSpeeds = { diskBytesPerSecond: 1e15, busBytesPerSecond: 100 * MiB, memoryBytesPerSecond: 1e15 };
  for (const [ramMiB, vramMiB] of [[150, 100], [300, 200], [400, 64], [1000, 200], [1000, 1000]]) {
    const plan = planned(ramMiB, vramMiB), { slots, hostSlots, hostBytes, assumedHitRate, assumedCopyRate } = plan.experts!;
    assert.ok(plan.totalBytes <= ramMiB * MiB && plan.device!.totalBytes <= vramMiB * MiB);
    assert.equal(hostBytes, hostSlots * MiB);
    assert.ok(slots + hostSlots <= 480);
    assert.deepEqual([assumedHitRate, assumedCopyRate], [slots / 480, hostSlots / 480]);
    // Where experts are left for the disk, host memory is used up; where there is too much of it, none are.
    if (slots + hostSlots < 480) assert.ok(plan.totalBytes > (ramMiB - 1) * MiB, `${plan.totalBytes} of ${ramMiB} MiB`);
    assert.equal(slots + hostSlots === 480, ramMiB === 1000);
    const seconds = (plan.pinnedBytes + plan.streamedBytesPerPass + plan.kvCacheBytes + 60 * MiB * (1 - slots / 480)) /
      (100 * MiB);
    assert.ok(Math.abs(predictSecondsPerToken(plan, busSpeeds) - seconds) < 1e-5);
  }
  assert.equal(planned(1000, 1000).experts!.hostSlots, 0);
  assert.equal(planFor(1000 * MiB).experts!.hostSlots, 0);
});

Deno.test("predictSecondsPerToken() counts the experts that a token uses, and reads those that are not assumed in memory", () => {
  const plan = planFor(300 * MiB);
  const { activeBytesPerToken, assumedHitRate } = plan.experts!;
  const slowDisk = { diskBytesPerSecond: 100 * MiB, memoryBytesPerSecond: 1e15 };
  assert.equal(predictSecondsPerToken(plan, slowDisk), activeBytesPerToken * (1 - assumedHitRate) / (100 * MiB));
  const slowMemory = { diskBytesPerSecond: 1e15, memoryBytesPerSecond: 100 * MiB };
  assert.equal(predictSecondsPerToken(plan, slowMemory), 1);
});
