import assert from "node:assert/strict";
import { KvCache, type KvCacheShape, NO_PAGE, PAGE_TOKENS } from "../../lib/cache/kv_cache.ts";
import { KvWindow } from "../../lib/engine/kv_window.ts";
import { Engine, type EngineOptions } from "../../lib/engine/engine.ts";
import { Context, type Event, type Stream } from "../../lib/ffi/context.ts";
import { Ops } from "../../lib/ffi/ops.ts";
import { Transfer } from "../../lib/stream/transfer.ts";
import { expectedOf, greedy, logitRows, relativeError, shardFixture } from "../engine/tiny_models.ts";
import { random } from "../random.ts";
import { emulatedTest } from "./emulated_device.ts";

const GROUP = { numKvHeads: 2, headDim: 4, valueDim: 4, sharesKeys: false };
/** The second and the fourth layer see a window, with fewer pages; the fifth's values are narrower. */
const SHAPE: KvCacheShape = {
  type: "f16",
  groups: [GROUP, { ...GROUP, view: { kind: "window", tokens: 12 } }, { ...GROUP, valueDim: 2 }],
  layers: [0, 1, 0, 1, 2],
};
const PAGES = [12, 8, 12];
const STREAMS = ["eager", "lazy", "random,seed=1", "random,seed=2", "random,seed=3"];

/**
 * Runs random passes of two sequences through a window: in each layer bytes are written where the new tokens go, and all pages of the sequences are
 * copied away, as attention would read them. Returns how many layers saw, or left in the pool, other bytes than a model of it in JavaScript.
 */
async function wrongLayers(makeTransfer: (context: Context, stream: Stream) => Transfer): Promise<number> {
  using context = Context.open({ kind: "cuda" });
  using stream = context.stream();
  using transfer = makeTransfer(context, stream);
  const ops = new Ops(stream);
  const pool = await context.hostBuffer(KvCache.bytes(SHAPE, PAGES));
  using cache = new KvCache({ deviceBuffer: () => pool }, SHAPE, PAGES);
  using kept = new KvWindow(cache, transfer, ops);
  using captured = context.deviceBuffer(pool.bytes);
  using seen = await context.hostBuffer(pool.bytes);
  const next = random(3), model = new Uint8Array(pool.bytes), expected = new Uint8Array(pool.bytes);
  /** Where a layer's keys or values begin in the pool, and the bytes of a page of them. */
  const partOf = (layer: number, half: number) => {
    const { bytes, keyBytes } = cache.layerBytes(layer), pages = PAGES[SHAPE.layers[layer]];
    const keys = Number(cache.keys(layer) - pool.address);
    return half === 0
      ? { start: keys, pageBytes: keyBytes / pages }
      : { start: keys + keyBytes, pageBytes: (bytes - keyBytes) / pages };
  };
  using a = cache.sequence(4 * PAGE_TOKENS);
  using b = cache.sequence(4 * PAGE_TOKENS);
  const sequences = [a, b];
  let wrong = 0;
  for (let pass = 0; pass < 6; pass++) {
    const newTokens = sequences.map(() => 1 + Math.floor(next() * 20));
    sequences.forEach((sequence, i) => sequence.extend(newTokens[i]));
    kept.beginPass(sequences, newTokens);
    for (let layer = 0; layer < SHAPE.layers.length; layer++) {
      // Layers without keys and values are passed over.
      if (pass === 4 && layer === 2) continue;
      const { keys, values } = kept.enter(layer);
      for (const [half, address] of [keys, values].entries()) {
        const { start, pageBytes } = partOf(layer, half), group = SHAPE.layers[layer];
        sequences.forEach((sequence, i) => {
          // Of a page that another sequence had before, nothing is known.
          for (const page of sequence.pages(group).slice(Math.ceil((sequence.tokens - newTokens[i]) / PAGE_TOKENS))) {
            for (const bytes of [model, expected]) bytes.fill(0, start + page * pageBytes, start + (page + 1) * pageBytes);
          }
          // The last bytes of a page stand for its new tokens.
          for (const page of sequence.pages(group).slice(Math.floor((sequence.tokens - newTokens[i]) / PAGE_TOKENS))) {
            const value = Math.floor(next() * 256), at = page * pageBytes + 8 * (1 + pass);
            ops.fill(address + BigInt(at), value, 8);
            model.fill(value, start + at, start + at + 8);
          }
          for (const page of sequence.pages(group)) {
            if (page === NO_PAGE) continue;
            const from = start + page * pageBytes;
            ops.copyOnDevice(captured.address + BigInt(from), address + BigInt(page * pageBytes), 8 * (1 + pass));
            expected.set(model.subarray(from, from + 8 * (1 + pass)), from);
          }
        });
      }
      kept.appended(layer);
    }
    ops.copyToHost(seen.address, captured.address, pool.bytes);
    await stream.synchronize();
    for (let layer = 0; layer < SHAPE.layers.length; layer++) {
      const pages = sequences.flatMap((sequence) => sequence.pages(SHAPE.layers[layer]).filter((page) => page !== NO_PAGE));
      if (!pages.every((page) => isRight(layer, page, 8 * (1 + pass)))) wrong++;
    }
  }
  return wrong;

  function isRight(layer: number, page: number, bytes: number): boolean {
    return [0, 1].every((half) => {
      const { start, pageBytes } = partOf(layer, half), at = start + page * pageBytes;
      // What lies before a sequence's first write is whatever was there.
      const same = (actual: Uint8Array, wanted: Uint8Array) => wanted.every((byte, i) => byte === 0 || byte === actual[i]);
      return same(seen.view(at, bytes), expected.subarray(at, at + bytes)) &&
        same(pool.view(at, bytes), model.subarray(at, at + bytes));
    });
  }
}

for (const streams of STREAMS) {
  emulatedTest(
    `KvWindow shows each layer its own keys and values and takes back what is added, streams=${streams}`,
    async (emulated) => {
      emulated.configure(`streams=${streams}`);
      assert.equal(await wrongLayers((context, stream) => new Transfer(context, stream)), 0);
      emulated.assertClean(streams);
    },
  );
}

class NoComputeWait extends Transfer {
  override computeAfter(_event: Event): void {}
}
class NoCopyWait extends Transfer {
  override copyAfter(_event: Event): void {}
}

for (const [name, Mutated] of Object.entries({ NoComputeWait, NoCopyWait })) {
  emulatedTest(`a KvWindow with ${name} comes out wrong`, async (emulated) => {
    const wrong: number[] = [];
    for (const streams of STREAMS.slice(1)) {
      emulated.configure(`streams=${streams}`);
      wrong.push(await wrongLayers((context, stream) => new Mutated(context, stream)));
    }
    assert.ok(wrong.some((count) => count > 0), `${wrong}`);
  });
}

emulatedTest(
  "an engine with its KV cache in host memory matches transformers, alone, in chunks and together, after a cancelled pass too",
  async (emulated) => {
    const [, SHORT, LONG] = expectedOf("base");
    const options: EngineOptions = {
      ...{ device: "cuda", contextTokens: 128, kvCacheType: "f32", passTokens: 32, ramBytes: 2 ** 30, maxSequences: 3 },
    };
    using shards = await shardFixture("base");
    for (const streams of ["lazy", "random,seed=4"]) {
      emulated.configure(`streams=${streams}`);
      let inDevice: number;
      {
        await using engine = await Engine.open(shards.path, options);
        inDevice = engine.plan.device!.totalBytes;
        assert.equal(engine.plan.kvCacheBytes, 0);
      }
      {
        await using engine = await Engine.open(shards.path, { ...options, kvCacheLocation: "ram" });
        // The model has as many layers as the window.
        assert.equal(engine.plan.kvCacheBytes, engine.plan.device!.kvCacheBytes);
        assert.ok(engine.plan.device!.totalBytes <= inDevice);
        const sequences = [engine.openSequence(), engine.openSequence(), engine.openSequence()];
        await assert.rejects(
          engine.pass([{ sequence: sequences[0], tokens: LONG.promptIds, logits: "last" }], { signal: AbortSignal.abort() }),
        );
        for (const tokens of [LONG.promptIds.slice(0, 5), LONG.promptIds.slice(5, 17)]) {
          await engine.pass([{ sequence: sequences[0], tokens, logits: "none" }]);
        }
        const controller = new AbortController();
        const pass = engine.pass([{ sequence: sequences[0], tokens: [1, 2, 3], logits: "last" }], { signal: controller.signal });
        for (let i = 0; i < 20; i++) await Promise.resolve();
        controller.abort();
        await assert.rejects(pass, { name: "CancelledError" });
        const outputs = await engine.pass([
          { sequence: sequences[0], tokens: LONG.promptIds.slice(17), logits: "last" },
          { sequence: sequences[1], tokens: SHORT.promptIds, logits: [SHORT.promptIds.length - 1] },
        ]);
        assert.ok(relativeError(logitRows(engine, outputs[0].logits), LONG.promptLogits.slice(-1)) < 1e-4);
        assert.ok(relativeError(logitRows(engine, outputs[1].logits), SHORT.promptLogits.slice(-1)) < 1e-4);
        // Past a page's end.
        assert.deepEqual(await greedy(engine, sequences[0], LONG.greedyIds[0], 14), LONG.greedyIds.slice(0, 14));
        assert.deepEqual(await greedy(engine, sequences[1], SHORT.greedyIds[0], 4), SHORT.greedyIds.slice(0, 4));
      }
      emulated.assertClean(streams);
    }
  },
);
