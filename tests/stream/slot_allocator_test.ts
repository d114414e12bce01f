import assert from "node:assert/strict";
import { SlotAllocator } from "../../lib/stream/slot_allocator.ts";
import { random } from "../random.ts";

Deno.test("SlotAllocator hands out the lowest offset that has room", () => {
  const slots = new SlotAllocator(10);
  assert.equal(slots.allocate(4), 0);
  assert.equal(slots.allocate(2), 4);
  assert.equal(slots.allocate(3), 6);
  assert.equal(slots.allocate(2), undefined, "1 is left");
  slots.free(0);
  assert.equal(slots.allocate(5), undefined, "4 are left at the beginning");
  assert.equal(slots.allocate(3), 0);
  assert.equal(slots.allocate(1), 3);
  assert.equal(slots.allocate(1), 9);
  assert.equal(slots.usedBytes, 10);
  slots.free(4);
  assert.equal(slots.allocate(2), 4, "the place of the slot that was freed");
  assert.throws(() => slots.free(5), /Cannot free the slot at 5/);
});

Deno.test("SlotAllocator that is empty gives its whole capacity and no more", () => {
  const slots = new SlotAllocator(10);
  slots.allocate(7);
  slots.free(0);
  assert.equal(slots.allocate(11), undefined);
  assert.equal(slots.allocate(10), 0);
  assert.equal(slots.allocate(1), undefined);
  slots.reset();
  assert.equal(slots.usedBytes, 0);
  assert.equal(slots.allocate(10), 0);
  assert.equal(slots.peakBytes, 10);
});

Deno.test("SlotAllocator never hands out bytes that are in use, over random sizes freed in any order", () => {
  const next = random(4);
  for (let round = 0; round < 50; round++) {
    const capacity = 50 + Math.floor(next() * 100);
    const slots = new SlotAllocator(capacity), live: [offset: number, bytes: number][] = [];
    let allocated = 0;
    for (let step = 0; step < 400; step++) {
      const bytes = 1 + Math.floor(next() * capacity / 2);
      const offset = slots.allocate(bytes);
      if (offset === undefined) {
        assert.ok(live.length > 0, "an empty buffer has room");
        slots.free(live.splice(Math.floor(next() * live.length), 1)[0][0]);
        continue;
      }
      allocated++;
      assert.ok(offset >= 0 && offset + bytes <= capacity);
      for (const [at, length] of live) {
        assert.ok(offset + bytes <= at || at + length <= offset, `${offset}+${bytes} meets ${at}+${length}`);
      }
      live.push([offset, bytes]);
      assert.equal(slots.usedBytes, live.reduce((sum, [, length]) => sum + length, 0));
    }
    assert.ok(allocated > 100);
  }
});
