import assert from "node:assert/strict";
import { ExpertFrequency } from "../../lib/stream/expert_frequency.ts";
import { ExpertSlots, type Urgency } from "../../lib/stream/expert_slots.ts";

/** Two layers of three experts with two extents each: extents 2 * index and 2 * index + 1. */
function slotsOf(count: number): ExpertSlots {
  const extents = [0, 1].map((extent) => ({ tensor: 0, extent, paddedBytes: 4096 }));
  const experts = Array.from({ length: 6 }, () => extents);
  return new ExpertSlots({ numLayers: 2, numExperts: 3, topK: 1, experts }, count, new ExpertFrequency(2, 3));
}

function read(slots: ExpertSlots, extent: number, urgency: Urgency = "needed", reached = 0): number {
  const { slot } = slots.take(extent, urgency, reached);
  assert.ok(slot !== undefined);
  slots.arrive(extent);
  return slot;
}

Deno.test("ExpertSlots gives each extent a slot of its own and says when an expert is complete", () => {
  const slots = slotsOf(4);
  slots.beginLayer(0, [0, 1]);
  assert.equal(new Set([0, 1, 2, 3].map((extent) => read(slots, extent))).size, 4);
  assert.ok(slots.isComplete(0) && slots.isComplete(1) && !slots.isComplete(2));
  assert.deepEqual(slots.extentsOf(1), [2, 4]);
  assert.equal(slots.slotOf(4), undefined);
});

Deno.test("ExpertSlots pushes out nothing that is on its way, needed, or still used by operations", () => {
  const slots = slotsOf(2);
  slots.beginLayer(0, [0]);
  read(slots, 0);
  assert.ok(slots.take(1, "needed", 0).slot !== undefined);
  slots.release(0, 5);
  assert.equal(slots.take(4, "needed", 4).slot, undefined);
  assert.deepEqual(slots.arriving(), [1]);
  assert.ok(slots.take(4, "needed", 5).slot !== undefined);
  assert.equal(slots.slotOf(0), undefined);
});

Deno.test("ExpertSlots lets an expert go from its end", () => {
  const slots = slotsOf(4);
  slots.beginLayer(0, [0, 1]);
  for (const extent of [0, 1, 2, 3]) read(slots, extent);
  for (const extent of [0, 1, 2, 3]) slots.release(extent, 0);
  slots.beginLayer(1, [3]);
  read(slots, 6);
  assert.ok([1, 3].some((extent) => slots.slotOf(extent) === undefined));
  assert.ok([0, 2].every((extent) => slots.slotOf(extent) !== undefined));
});

Deno.test("ExpertSlots keeps what the next layer is expected to use until this layer needs the room", () => {
  const slots = slotsOf(2);
  slots.beginLayer(0, []);
  slots.expect([3]);
  read(slots, 6, "ahead");
  read(slots, 7, "ahead");
  assert.equal(slots.take(8, "ahead", 0).slot, undefined);
  assert.ok(slots.take(0, "needed", 0).slot !== undefined);
  assert.equal(slots.slotOf(7), undefined);
});

Deno.test("ExpertSlots pushes out later turns of the same layer only for what is awaited, and says so", () => {
  const slots = slotsOf(3);
  slots.beginLayer(0, [1, 2]);
  for (const extent of [2, 3]) read(slots, extent);
  slots.release(2, 0);
  slots.release(3, 0);
  slots.beginLayer(0, [0, 1]);
  read(slots, 0);
  slots.release(0, 1);
  assert.equal(slots.take(1, "needed", 0).slot, undefined);
  const { slot, pushedOut } = slots.take(1, "awaited", 0);
  assert.ok(slot !== undefined);
  assert.equal(pushedOut, 3);
  assert.equal(slots.turnOf(3), 3);
});

Deno.test("ExpertSlots takes back the slot of an extent that never came", () => {
  const slots = slotsOf(1);
  slots.beginLayer(0, [0]);
  const { slot } = slots.take(0, "needed", 0);
  slots.drop(0);
  assert.equal(slots.slotOf(0), undefined);
  assert.equal(slots.take(1, "needed", 0).slot, slot);
});
