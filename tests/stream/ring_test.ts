import assert from "node:assert/strict";
import { Ring } from "../../lib/stream/ring.ts";
import { random } from "../random.ts";

Deno.test("Ring hands out parts in order, wraps between them and not within one", () => {
  const ring = new Ring(10);
  assert.equal(ring.allocate(4), 0);
  assert.equal(ring.allocate(4), 4);
  assert.equal(ring.allocate(4), undefined, "2 are left at the end, none at the beginning");
  ring.freeOldest();
  assert.equal(ring.allocate(5), undefined);
  assert.equal(ring.allocate(4), 0, "skips the 2 at the end");
  assert.equal(ring.allocate(1), undefined, "the end is behind the newest part, the rest is in use");
  ring.freeOldest();
  assert.equal(ring.allocate(6), 4);
  assert.equal(ring.usedBytes, 10);
});

Deno.test("Ring that is empty gives its whole capacity, wherever it stopped", () => {
  const ring = new Ring(10);
  ring.allocate(7);
  ring.freeOldest();
  assert.equal(ring.allocate(10), 0);
  assert.equal(ring.allocate(0 + 1), undefined);
  ring.reset();
  assert.equal(ring.usedBytes, 0);
  assert.equal(ring.allocate(11), undefined);
  assert.equal(ring.allocate(10), 0);
  assert.equal(ring.peakBytes, 10);
});

Deno.test("Ring never hands out bytes that are in use, over random sizes", () => {
  const next = random(4);
  for (let round = 0; round < 50; round++) {
    const capacity = 50 + Math.floor(next() * 100);
    const ring = new Ring(capacity), live: [offset: number, bytes: number][] = [];
    let allocated = 0;
    for (let step = 0; step < 400; step++) {
      const bytes = 1 + Math.floor(next() * capacity / 2);
      const offset = ring.allocate(bytes);
      if (offset === undefined) {
        assert.ok(live.length > 0, "an empty ring has room");
        ring.freeOldest();
        live.shift();
        continue;
      }
      allocated++;
      assert.ok(offset >= 0 && offset + bytes <= capacity);
      for (const [at, length] of live) {
        assert.ok(offset + bytes <= at || at + length <= offset, `${offset}+${bytes} meets ${at}+${length}`);
      }
      live.push([offset, bytes]);
      assert.equal(ring.usedBytes, live.reduce((sum, [, length]) => sum + length, 0));
    }
    assert.ok(allocated > 100);
  }
});
