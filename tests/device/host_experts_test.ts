import assert from "node:assert/strict";
import { Context } from "../../lib/ffi/context.ts";
import { ExpertCache } from "../../lib/stream/expert_cache.ts";
import { Transfer } from "../../lib/stream/transfer.ts";
import { random } from "../random.ts";
import { CountingIo, EXPERTS, EXTENTS, LAYERS, Layers, options, write } from "../stream/expert_layers.ts";
import { emulatedTest } from "./emulated_device.ts";

const ALL = LAYERS * EXPERTS * EXTENTS;

for (const streams of ["eager", "lazy", "random,seed=3"]) {
  for (const [slots, hostSlots] of [[3, 2], [6, 20], [20, 9], [5, ALL]]) {
    const name =
      `experts on ${slots} slots of the device and ${hostSlots} of the host are right, streams=${streams}, aborted passes among them`;
    emulatedTest(name, async (emulated) => {
      emulated.configure(`streams=${streams}`);
      {
        const { shards, table } = write(slots);
        using _ = shards;
        using context = await Context.load({ kind: "cuda" });
        using stream = context.stream();
        using transfer = new Transfer(context, stream);
        const io = new CountingIo();
        await using cache = await ExpertCache.open({ ...options(shards, table, transfer, slots, io), hostSlots });
        await using layers = new Layers(shards, cache, stream);
        const next = random(slots);
        for (let pass = 0; pass < 8; pass++) {
          for (let layer = 0; layer < LAYERS; layer++) {
            const chosen = Array.from({ length: EXPERTS }, (_, expert) => expert).filter(() => next() < 0.4);
            const run = layers.run(layer, chosen, pass % 2 === 0, layer + 1 < LAYERS ? [0, 3] : []);
            if (pass % 3 === 2 && layer === 1) {
              const outcome = run.catch((error) => assert.equal(error.name, "CancelledError"));
              await Promise.resolve();
              await cache.abortPass();
              await outcome;
            } else await run;
          }
          await layers.check();
        }
        const { copiedBytes, usedBytes, hitBytes } = cache.statistics;
        assert.ok(copiedBytes > 0, "nothing came from host memory");
        if (hostSlots < ALL) return;
        // What was read once is never read again.
        const readBytes = io.bytes;
        for (let layer = 0; layer < LAYERS; layer++) await layers.run(layer, [0, 1, 2, 3, 4, 5]);
        const firstTime = io.bytes - readBytes;
        for (let layer = 0; layer < LAYERS; layer++) await layers.run(layer, [5, 4, 3, 2, 1, 0], false);
        await layers.check();
        assert.equal(io.bytes - readBytes, firstTime);
        assert.ok(hitBytes < usedBytes);
      }
      emulated.assertClean(name);
    });
  }
}

emulatedTest("what host memory keeps of experts leaves the device's slots to others", async (emulated) => {
  emulated.configure("");
  const { shards, table } = write(11);
  using _ = shards;
  using context = await Context.load({ kind: "cuda" });
  const read = async (hostSlots: number): Promise<number> => {
    using stream = context.stream();
    using transfer = new Transfer(context, stream);
    const io = new CountingIo();
    await using cache = await ExpertCache.open({ ...options(shards, table, transfer, 4 * EXTENTS, io), hostSlots });
    await using layers = new Layers(shards, cache, stream);
    // Each layer has an expert that every token uses, and two that take turns: 12 experts in all, of which the device has room for 4.
    for (let pass = 0; pass < 30; pass++) for (let layer = 0; layer < LAYERS; layer++) await layers.run(layer, [0, 1 + pass % 2]);
    await layers.check();
    return io.bytes;
  };
  const none = await read(0), half = await read(4 * EXTENTS), all = await read(9 * EXTENTS);
  assert.ok(half < 0.75 * none, `${half} bytes read with four experts in host memory, ${none} without`);
  assert.ok(all < 0.35 * none, `${all} bytes read with nine experts in host memory, ${none} without`);
});
