import assert from "node:assert/strict";
import { kvBytesPerToken, KvCache, type KvCacheShape, PAGE_TOKENS } from "../../lib/cache/kv_cache.ts";
import { BudgetError, UsageError } from "../../lib/errors.ts";
import { Context } from "../../lib/ffi/context.ts";
import { random } from "../random.ts";

const SHAPE: KvCacheShape = { numLayers: 3, numKvHeads: 2, headDim: 4, type: "f16" };

Deno.test("kvBytesPerToken() counts keys and values of all layers, in f16, f32 and q8", () => {
  assert.equal(kvBytesPerToken(SHAPE), 3 * 2 * 2 * 4 * 2);
  assert.equal(kvBytesPerToken({ ...SHAPE, type: "f32" }), 3 * 2 * 2 * 4 * 4);
  // Whole blocks of 32 codes with a float16 scale.
  assert.equal(kvBytesPerToken({ ...SHAPE, type: "q8" }), 3 * 2 * 2 * 34);
  assert.equal(kvBytesPerToken({ ...SHAPE, headDim: 128, type: "q8" }), 3 * 2 * 2 * 136);
});

Deno.test("KvCache lays layers' keys and values out side by side in exactly its planned bytes", () => {
  using context = Context.open();
  using cache = new KvCache(context, SHAPE, 5);
  assert.equal(cache.bytes, 5 * PAGE_TOKENS * kvBytesPerToken(SHAPE));
  const addresses = [0, 1, 2].flatMap((layer) => [cache.keys(layer), cache.values(layer)]);
  const step = BigInt(5 * PAGE_TOKENS * 2 * 4 * 2);
  addresses.forEach((address, i) => assert.equal(address - addresses[0], BigInt(i) * step));
});

Deno.test("a sequence takes pages as it grows, maps positions to slots, and gives pages back", () => {
  using context = Context.open();
  using cache = new KvCache(context, SHAPE, 4);
  using a = cache.sequence(4 * PAGE_TOKENS), b = cache.sequence(4 * PAGE_TOKENS);
  a.extend(1);
  b.extend(PAGE_TOKENS);
  a.extend(PAGE_TOKENS);
  assert.equal(cache.freePages, 1);
  assert.equal(a.tokens, PAGE_TOKENS + 1);
  assert.deepEqual([...a.pages, ...b.pages].sort(), [0, 1, 2]);
  assert.equal(a.slot(0), a.pages[0] * PAGE_TOKENS);
  assert.equal(a.slot(PAGE_TOKENS), a.pages[1] * PAGE_TOKENS);
  assert.equal(b.slot(PAGE_TOKENS - 1), b.pages[0] * PAGE_TOKENS + PAGE_TOKENS - 1);
  a.truncate(PAGE_TOKENS);
  assert.equal(a.pages.length, 1);
  assert.equal(cache.freePages, 2);
  b[Symbol.dispose]();
  b[Symbol.dispose]();
  assert.equal(cache.freePages, 3);
  assert.throws(() => b.extend(1), UsageError);
});

Deno.test("extend() refuses a full pool and a full context with what is needed and what there is, and takes nothing", () => {
  using context = Context.open();
  using cache = new KvCache(context, SHAPE, 2);
  using a = cache.sequence(10 * PAGE_TOKENS), b = cache.sequence(PAGE_TOKENS - 1);
  a.extend(PAGE_TOKENS + 3);
  assert.throws(() => a.extend(PAGE_TOKENS), (error) => {
    assert.ok(error instanceof BudgetError);
    assert.equal(error.message, `Cannot cache ${PAGE_TOKENS} more tokens: the KV cache has room for ${PAGE_TOKENS - 3}`);
    return true;
  });
  assert.equal(a.tokens, PAGE_TOKENS + 3);
  a.extend(PAGE_TOKENS - 3);
  assert.equal(cache.freePages, 0);
  a.truncate(0);
  assert.throws(() => b.extend(PAGE_TOKENS), (error) => {
    assert.ok(error instanceof BudgetError);
    assert.match(error.message, new RegExp(`Cannot hold ${PAGE_TOKENS} tokens.*the context is ${PAGE_TOKENS - 1} tokens`));
    return true;
  });
  assert.equal(cache.freePages, 2);
});

Deno.test("truncate() refuses more tokens than there are, fractions and negatives", () => {
  using context = Context.open();
  using cache = new KvCache(context, SHAPE, 1);
  using sequence = cache.sequence(PAGE_TOKENS);
  sequence.extend(3);
  for (const tokens of [4, -1, 1.5, NaN]) assert.throws(() => sequence.truncate(tokens), UsageError);
  assert.equal(sequence.tokens, 3);
});

Deno.test("no page is ever held twice or lost, over 2000 random steps of 5 sequences", () => {
  using context = Context.open();
  using cache = new KvCache(context, SHAPE, 12);
  const next = random(5), sequences = Array.from({ length: 5 }, () => cache.sequence(6 * PAGE_TOKENS));
  for (let step = 0; step < 2000; step++) {
    const i = Math.floor(next() * sequences.length);
    if (next() < 0.7) {
      try {
        sequences[i].extend(Math.floor(next() * 50));
      } catch (error) {
        assert.ok(error instanceof BudgetError);
      }
    } else if (next() < 0.8) sequences[i].truncate(Math.floor(next() * (sequences[i].tokens + 1)));
    else {
      sequences[i][Symbol.dispose]();
      sequences[i] = cache.sequence(6 * PAGE_TOKENS);
    }
    const held = sequences.flatMap(({ pages }) => pages);
    assert.equal(new Set(held).size, held.length);
    assert.equal(held.length + cache.freePages, 12);
    for (const { pages, tokens } of sequences) assert.equal(pages.length, Math.ceil(tokens / PAGE_TOKENS));
  }
});
