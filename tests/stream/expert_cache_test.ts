import assert from "node:assert/strict";
import { truncateSync } from "node:fs";
import { join } from "node:path";
import { CancelledError } from "../../lib/errors.ts";
import { Context } from "../../lib/ffi/context.ts";
import { ExpertCache } from "../../lib/stream/expert_cache.ts";
import { Transfer } from "../../lib/stream/transfer.ts";
import { TEST_KIND } from "../kernels/reference.ts";
import { random } from "../random.ts";
import { CountingIo, expertBytes, EXPERTS, EXTENTS, LAYERS, Layers, options, write } from "./expert_layers.ts";

const context = await Context.load({ kind: TEST_KIND, threads: 1 });

for (const slots of [1, 2, 5, 20, LAYERS * EXPERTS * EXTENTS]) {
  Deno.test(`ExpertCache gives every operation the right bytes with ${slots} slots, in any order, predictions right or wrong`, async () => {
    const { shards, table } = write(slots);
    using _ = shards;
    using stream = context.stream();
    using transfer = new Transfer(context, stream);
    await using cache = await ExpertCache.open(options(shards, table, transfer, slots));
    await using layers = new Layers(shards, cache, stream);
    const next = random(7);
    for (let pass = 0; pass < 12; pass++) {
      const chosen = Array.from(
        { length: LAYERS },
        () => Array.from({ length: EXPERTS }, (_, expert) => expert).filter(() => next() < 0.5),
      );
      for (let layer = 0; layer < LAYERS; layer++) {
        const expected = layer + 1 < LAYERS
          ? chosen[layer + 1].map((expert) => next() < 0.7 ? expert : (expert + 1) % EXPERTS)
          : [];
        const order = await layers.run(layer, chosen[layer], pass % 2 === 0, [...new Set(expected)]);
        assert.deepEqual(order.toSorted((a, b) => a - b), chosen[layer]);
        if (pass % 2 === 1) assert.deepEqual(order, chosen[layer]);
      }
      await layers.check();
    }
    const { used, hits, predictable, predicted, usedBytes, hitBytes } = cache.statistics;
    assert.ok(hits < used && predicted < predictable && predicted > 0 && hitBytes < usedBytes);
    if (slots >= 20) assert.ok(hits > 0);
  });
}

Deno.test("ExpertCache reads the experts that are used and no others, and none twice while there is room", async () => {
  const { shards, table } = write(3);
  using _ = shards;
  using stream = context.stream();
  using transfer = new Transfer(context, stream);
  const io = new CountingIo();
  await using cache = await ExpertCache.open(options(shards, table, transfer, LAYERS * EXPERTS * EXTENTS, io));
  await using layers = new Layers(shards, cache, stream);
  assert.equal(io.bytes, 0);
  await layers.run(0, [1, 4]);
  const first = expertBytes(table, 0, 1) + expertBytes(table, 0, 4);
  assert.equal(io.bytes, first);
  await layers.run(1, [0, 2]);
  const second = expertBytes(table, 1, 0) + expertBytes(table, 1, 2);
  assert.equal(io.bytes, first + second);
  await layers.run(0, [1, 5]);
  assert.equal(io.bytes, first + second + expertBytes(table, 0, 5));
  await layers.check();
  const { bytesRead, used, hits, usedBytes, hitBytes } = cache.statistics;
  assert.equal(bytesRead, io.bytes);
  assert.deepEqual([used, hits], [6, 1]);
  assert.equal(hitBytes, expertBytes(table, 0, 1));
  assert.equal(usedBytes - hitBytes, bytesRead);
});

Deno.test("ExpertCache keeps the experts that are used again and again through others used once", async () => {
  const { shards, table } = write(4);
  using _ = shards;
  using stream = context.stream();
  using transfer = new Transfer(context, stream);
  await using cache = await ExpertCache.open(options(shards, table, transfer, 4 * EXTENTS));
  await using layers = new Layers(shards, cache, stream);
  for (let pass = 0; pass < 8; pass++) {
    for (let layer = 0; layer < 2; layer++) await layers.run(layer, [0, 1 + pass % 5]);
  }
  await layers.check();
  // The hot expert of both layers, in every pass but the first.
  assert.ok(cache.statistics.hits >= 14, `${cache.statistics.hits} hits`);
});

Deno.test("ExpertCache computes what is there first while the rest is read, and counts a right prediction", async () => {
  const { shards, table } = write(5);
  using _ = shards;
  using stream = context.stream();
  using transfer = new Transfer(context, stream);
  await using cache = await ExpertCache.open(options(shards, table, transfer, LAYERS * EXPERTS * EXTENTS));
  await using layers = new Layers(shards, cache, stream);
  await layers.run(0, [4, 5]);
  assert.deepEqual(await layers.run(0, [0, 4, 5], true, [2, 3]), [4, 5, 0]);
  const before = cache.statistics;
  while (cache.statistics.bytesRead < before.bytesRead + expertBytes(table, 1, 2) + expertBytes(table, 1, 3)) {
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
  assert.deepEqual(await layers.run(1, [1, 2]), [2, 1]);
  await layers.check();
  const { predictable, predicted, hits } = cache.statistics;
  assert.deepEqual([predictable, predicted], [2, 1]);
  // Read ahead in this pass: no hit of what earlier passes left.
  assert.equal(hits, before.hits);
});

Deno.test("ExpertCache.abortPass() ends a wait, keeps what was read whole, and the next pass computes right", async () => {
  const { shards, table } = write(6);
  using _ = shards;
  using stream = context.stream();
  using transfer = new Transfer(context, stream);
  await using cache = await ExpertCache.open(options(shards, table, transfer, 7));
  await using layers = new Layers(shards, cache, stream);
  for (let round = 0; round < 6; round++) {
    const run = layers.run(round % LAYERS, [0, 1, 2, 3], true, [1, 2]);
    const outcome = run.then(() => "done", (error) => error);
    if (round % 2 === 0) await Promise.resolve();
    else await new Promise((resolve) => setTimeout(resolve, round));
    await cache.abortPass();
    const result = await outcome;
    assert.ok(result === "done" || result instanceof CancelledError, `${result}`);
  }
  await layers.check();
  for (let layer = 0; layer < LAYERS; layer++) await layers.run(layer, [0, 3, 5]);
  await layers.check();
});

Deno.test("ExpertCache throws what a read threw, naming the file, and goes on throwing it", async () => {
  const { shards, table } = write(8);
  using _ = shards;
  using stream = context.stream();
  using transfer = new Transfer(context, stream);
  await using cache = await ExpertCache.open(options(shards, table, transfer, 9));
  await using layers = new Layers(shards, cache, stream);
  await layers.run(0, [0]);
  truncateSync(join(shards.path, shards.manifest.files[1].name), 4096);
  await assert.rejects(layers.run(1, [0]), /layer-1\.safetensors/);
  await assert.rejects(layers.run(0, [0]), /layer-1\.safetensors/);
});
