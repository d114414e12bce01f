import assert from "node:assert/strict";
import {
  kvBytesPerToken,
  KvCache,
  type KvCacheShape,
  type KvGroup,
  NO_PAGE,
  PAGE_TOKENS,
  pagesPerSequence,
} from "../../lib/cache/kv_cache.ts";
import { BudgetError, UsageError } from "../../lib/errors.ts";
import { Context } from "../../lib/ffi/context.ts";
import { random } from "../random.ts";

const GROUP: KvGroup = { numKvHeads: 2, headDim: 4, valueDim: 4, sharesKeys: false };
const SHAPE: KvCacheShape = { type: "f16", groups: [GROUP], layers: [0, 0, 0] };

/** Two layers that see all before them, and between them one that sees a window, whose values are narrower. */
const WINDOW = 40;
const GROUPS: KvCacheShape = {
  type: "f16",
  groups: [GROUP, { ...GROUP, valueDim: 2, view: { kind: "window", tokens: WINDOW } }],
  layers: [0, 1, 0],
};

Deno.test("kvBytesPerToken() counts keys and values of a layer, in f16, f32 and q8", () => {
  assert.equal(kvBytesPerToken("f16", GROUP), 2 * 2 * 4 * 2);
  assert.equal(kvBytesPerToken("f32", GROUP), 2 * 2 * 4 * 4);
  // Whole blocks of 32 codes with a float16 scale.
  assert.equal(kvBytesPerToken("q8", GROUP), 2 * 2 * 34);
  assert.equal(kvBytesPerToken("q8", { ...GROUP, headDim: 128 }), 2 * (136 + 34));
  assert.equal(kvBytesPerToken("f16", { ...GROUP, sharesKeys: true, valueDim: 2 }), 2 * 4 * 2);
});

Deno.test("KvCache lays layers' keys and values out side by side in exactly its planned bytes", () => {
  using context = Context.open();
  using cache = new KvCache(context, SHAPE, [5]);
  assert.equal(cache.bytes, 5 * PAGE_TOKENS * 3 * kvBytesPerToken("f16", GROUP));
  assert.equal(cache.bytes, KvCache.bytes(SHAPE, [5]));
  const addresses = [0, 1, 2].flatMap((layer) => [cache.keys(layer), cache.values(layer)]);
  const step = BigInt(5 * PAGE_TOKENS * 2 * 4 * 2);
  addresses.forEach((address, i) => assert.equal(address - addresses[0], BigInt(i) * step));
});

Deno.test("KvCache gives each group of layers a pool and a shape of its own", () => {
  using context = Context.open();
  using cache = new KvCache(context, GROUPS, [5, 3]);
  const [whole, window] = GROUPS.groups.map((group) => PAGE_TOKENS * kvBytesPerToken("f16", group));
  assert.equal(cache.bytes, 2 * 5 * whole + 3 * window);
  assert.equal(cache.keys(1) - cache.keys(0), BigInt(5 * whole));
  assert.equal(cache.values(1) - cache.keys(1), BigInt(3 * PAGE_TOKENS * 2 * 4 * 2));
  assert.equal(cache.keys(2) - cache.keys(1), BigInt(3 * window));
  assert.deepEqual([cache.freePages(0), cache.freePages(1)], [5, 3]);
});

Deno.test("a window's pages are given back as a sequence grows, all that tokens see is kept, and the last step can be undone", () => {
  using context = Context.open();
  const contextPages = 20, passTokens = 50, context_ = contextPages * PAGE_TOKENS;
  const pages = GROUPS.groups.map((group) => pagesPerSequence(group, contextPages, passTokens));
  assert.deepEqual(pages, [20, Math.ceil((WINDOW - 1 + passTokens) / PAGE_TOKENS) + 1]);
  using cache = new KvCache(context, GROUPS, pages);
  const next = random(8);
  for (let round = 0; round < 50; round++) {
    using sequence = cache.sequence(context_);
    // Never refused: the pool has what any passes of so many tokens need.
    for (let step = 0; sequence.tokens < context_; step++) {
      const before = sequence.tokens;
      sequence.extend(Math.min(1 + Math.floor(next() * passTokens), context_ - before));
      if (next() < 0.3) {
        sequence.truncate(before + Math.floor(next() * (sequence.tokens - before)));
        continue;
      }
      assert.equal(sequence.pages(0).includes(NO_PAGE), false);
      for (let position = Math.max(0, before - WINDOW + 1); position < sequence.tokens; position++) {
        assert.notEqual(sequence.pages(1)[Math.floor(position / PAGE_TOKENS)], NO_PAGE);
      }
      const held = sequence.pages(1).filter((page) => page !== NO_PAGE);
      assert.equal(new Set(held).size, held.length);
      assert.equal(held.length + cache.freePages(1), pages[1]);
      assert.equal(sequence.pages(1).length, sequence.pages(0).length);
      assert.equal(sequence.pages(1).length - held.length, sequence.forgottenPages(1));
    }
    assert.ok(sequence.forgottenPages(1) >= 20 - pages[1]);
    const least = sequence.forgottenPages(1) * PAGE_TOKENS + WINDOW - 1;
    assert.throws(() => sequence.truncate(least - 1), (error) => {
      assert.ok(error instanceof UsageError);
      assert.match(error.message, new RegExp(`layers that see a window of ${WINDOW} .* required is 0 or at least ${least}$`));
      return true;
    });
    sequence.truncate(least);
    sequence.truncate(0);
    assert.deepEqual([cache.freePages(0), cache.freePages(1)], pages);
    sequence.extend(1);
  }
});

Deno.test("a chunk's pages are given back when the next chunk begins", () => {
  using context = Context.open();
  const shape: KvCacheShape = { ...GROUPS, groups: [GROUP, { ...GROUP, view: { kind: "chunk", tokens: 64 } }] };
  using cache = new KvCache(context, shape, [10, 4]);
  using sequence = cache.sequence(320);
  sequence.extend(70);
  // The first token of the pass saw the first chunk.
  assert.equal(sequence.forgottenPages(1), 0);
  sequence.extend(1);
  assert.equal(sequence.forgottenPages(1), 2);
  assert.throws(() => sequence.truncate(63), { name: "UsageError", message: /see a chunk of 64 .* at least 64$/ });
  sequence.truncate(64);
  sequence.extend(64);
  assert.equal(sequence.forgottenPages(1), 2);
  assert.equal(cache.freePages(1), 2);
});

Deno.test("a sequence takes pages as it grows, maps positions to slots, and gives pages back", () => {
  using context = Context.open();
  using cache = new KvCache(context, SHAPE, [4]);
  using a = cache.sequence(4 * PAGE_TOKENS), b = cache.sequence(4 * PAGE_TOKENS);
  a.extend(1);
  b.extend(PAGE_TOKENS);
  a.extend(PAGE_TOKENS);
  assert.equal(cache.freePages(0), 1);
  assert.equal(a.tokens, PAGE_TOKENS + 1);
  assert.deepEqual([...a.pages(0), ...b.pages(0)].sort(), [0, 1, 2]);
  assert.equal(a.slot(0, 0), a.pages(0)[0] * PAGE_TOKENS);
  assert.equal(a.slot(0, PAGE_TOKENS), a.pages(0)[1] * PAGE_TOKENS);
  assert.equal(b.slot(0, PAGE_TOKENS - 1), b.pages(0)[0] * PAGE_TOKENS + PAGE_TOKENS - 1);
  a.truncate(PAGE_TOKENS);
  assert.equal(a.pages(0).length, 1);
  assert.equal(cache.freePages(0), 2);
  b[Symbol.dispose]();
  b[Symbol.dispose]();
  assert.equal(cache.freePages(0), 3);
  assert.throws(() => b.extend(1), UsageError);
});

Deno.test("extend() refuses a full pool and a full context with what is needed and what there is, and takes nothing", () => {
  using context = Context.open();
  using cache = new KvCache(context, SHAPE, [2]);
  using a = cache.sequence(10 * PAGE_TOKENS), b = cache.sequence(PAGE_TOKENS - 1);
  a.extend(PAGE_TOKENS + 3);
  assert.throws(() => a.extend(PAGE_TOKENS), (error) => {
    assert.ok(error instanceof BudgetError);
    assert.equal(error.message, `Cannot cache ${PAGE_TOKENS} more tokens: the KV cache has room for ${PAGE_TOKENS - 3}`);
    return true;
  });
  assert.equal(a.tokens, PAGE_TOKENS + 3);
  a.extend(PAGE_TOKENS - 3);
  assert.equal(cache.freePages(0), 0);
  a.truncate(0);
  assert.throws(() => b.extend(PAGE_TOKENS), (error) => {
    assert.ok(error instanceof BudgetError);
    assert.match(error.message, new RegExp(`Cannot hold ${PAGE_TOKENS} tokens.*the context is ${PAGE_TOKENS - 1} tokens`));
    return true;
  });
  assert.equal(cache.freePages(0), 2);
});

Deno.test("truncate() refuses more tokens than there are, fractions and negatives", () => {
  using context = Context.open();
  using cache = new KvCache(context, SHAPE, [1]);
  using sequence = cache.sequence(PAGE_TOKENS);
  sequence.extend(3);
  for (const tokens of [4, -1, 1.5, NaN]) assert.throws(() => sequence.truncate(tokens), UsageError);
  assert.equal(sequence.tokens, 3);
});

Deno.test("no page is ever held twice or lost, over 2000 random steps of 5 sequences", () => {
  using context = Context.open();
  using cache = new KvCache(context, SHAPE, [12]);
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
    const held = sequences.flatMap((sequence) => sequence.pages(0));
    assert.equal(new Set(held).size, held.length);
    assert.equal(held.length + cache.freePages(0), 12);
    for (const sequence of sequences) assert.equal(sequence.pages(0).length, Math.ceil(sequence.tokens / PAGE_TOKENS));
  }
});
