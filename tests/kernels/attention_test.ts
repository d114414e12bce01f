import assert from "node:assert/strict";
import { NativeError } from "../../lib/errors.ts";
import { AIRK_F16, AIRK_F32 } from "../../lib/ffi/abi.ts";
import type { Context } from "../../lib/ffi/context.ts";
import { Arena, assertClose, assertSameBits, eachIsa, fromF16, random, toF16 } from "./reference.ts";

/** A pass: what each of its sequences has cached before, and how many tokens it adds. */
interface Pass {
  sequences: { cached: number; tokens: number; seed: number }[];
  heads: number;
  kvHeads: number;
  headDim: number;
  pageTokens: number;
  cacheType: "f16" | "f32";
  /** Draft tree instead of causal order. */
  tree?: boolean;
}

/** Values that belong to a sequence alone, so that the same sequence can run in different passes. */
function sequenceValues(pass: Pass, index: number) {
  const { cached, tokens, seed } = pass.sequences[index];
  const numbers = random(seed);
  const round = (v: number) => pass.cacheType === "f16" ? fromF16(toF16(v)) : v;
  const positions = cached + tokens;
  return {
    q: numbers.floats(tokens * pass.heads * pass.headDim, 1.5),
    // [positions, kvHeads, headDim]
    k: numbers.floats(positions * pass.kvHeads * pass.headDim).map(round),
    v: numbers.floats(positions * pass.kvHeads * pass.headDim).map(round),
    // Each token of the tree has one parent among those before it, or none.
    parents: Array.from({ length: tokens }, (_, t) => numbers.integer(t + 1) - 1),
  };
}

/** Whether token i sees token j of its own sequence. */
function sees(parents: number[], tree: boolean | undefined, i: number, j: number): boolean {
  if (!tree) return j <= i;
  for (let at = i; at >= 0; at = parents[at]) if (at === j) return true;
  return false;
}

function reference(pass: Pass, index: number): Float64Array {
  const { cached, tokens } = pass.sequences[index];
  const { heads, kvHeads, headDim } = pass;
  const { q, k, v, parents } = sequenceValues(pass, index);
  const scale = Math.fround(1 / Math.sqrt(headDim));
  const y = new Float64Array(tokens * heads * headDim);
  for (let t = 0; t < tokens; t++) {
    for (let h = 0; h < heads; h++) {
      const kvHead = Math.floor(h / (heads / kvHeads)), at = (t * heads + h) * headDim;
      const scores: [number, number][] = [];
      for (let p = 0; p < cached + tokens; p++) {
        if (p >= cached && !sees(parents, pass.tree, t, p - cached)) continue;
        let score = 0;
        for (let d = 0; d < headDim; d++) score += q[at + d] * k[(p * kvHeads + kvHead) * headDim + d];
        scores.push([p, score * scale]);
      }
      const largest = Math.max(...scores.map(([, score]) => score));
      let sum = 0;
      for (const [p, score] of scores) {
        const weight = Math.exp(score - largest);
        sum += weight;
        for (let d = 0; d < headDim; d++) y[at + d] += weight * v[(p * kvHeads + kvHead) * headDim + d];
      }
      for (let d = 0; d < headDim; d++) y[at + d] /= sum;
    }
  }
  return y;
}

/** Lays the pass out over pages in random order, appends all keys and values, and attends. Returns y of each sequence. */
async function attend(context: Context, pass: Pass, shuffle = 1): Promise<Float32Array[]> {
  const { sequences, heads, kvHeads, headDim, pageTokens } = pass;
  const tokens = sequences.reduce((sum, each) => sum + each.tokens, 0);
  const pageCounts = sequences.map(({ cached, tokens }) => Math.ceil((cached + tokens) / pageTokens));
  const pages = pageCounts.reduce((sum, count) => sum + count, 0) + 2;
  const order = random(shuffle).permutation(pages);
  const elements = pages * kvHeads * pageTokens * headDim;
  const positions = sequences.reduce((sum, each) => sum + each.cached + each.tokens, 0);
  using arena = new Arena(context, 8 * elements + 8 * (tokens * heads + positions * kvHeads) * headDim + tokens ** 2 + (1 << 20));
  const values = sequences.map((_, i) => sequenceValues(pass, i));
  const concatenated = (name: "q" | "k" | "v") => arena.f32(values.flatMap((each) => Array.from(each[name])), name);
  const q = concatenated("q"), k = concatenated("k"), v = concatenated("v");
  const y = arena.f32(tokens * heads * headDim, "y");
  // Outputs are all ones, which as f16 or f32 is NaN: whatever is read beyond a sequence's end shows.
  const cache = (name: string) => pass.cacheType === "f16" ? arena.u16(elements, name) : arena.f32(elements, name);
  const kCache = cache("kCache"), vCache = cache("vCache");
  const pageTable: number[] = [], entries: number[] = [], slots: number[] = [];
  let firstToken = 0;
  for (const [i, { cached, tokens }] of sequences.entries()) {
    entries.push(firstToken, tokens, cached, pageTable.length);
    const own = order.splice(0, pageCounts[i]);
    for (let p = 0; p < cached + tokens; p++) slots.push(own[Math.floor(p / pageTokens)] * pageTokens + p % pageTokens);
    pageTable.push(...own);
    firstToken += tokens;
  }
  let mask = 0n;
  if (pass.tree) {
    const bytes = new Uint8Array(tokens * tokens);
    for (const [i, { tokens: own }] of sequences.entries()) {
      for (let a = 0; a < own; a++) {
        for (let b = 0; b < own; b++) {
          bytes[(entries[4 * i] + a) * tokens + entries[4 * i] + b] = Number(sees(values[i].parents, true, a, b));
        }
      }
    }
    mask = arena.u8(bytes, "mask").address;
  }
  const table = arena.i32(pageTable, "pageTable"),
    sequenceTable = arena.i32(entries, "sequences"),
    slot = arena.i32(slots, "slots");
  const cacheType = pass.cacheType === "f16" ? AIRK_F16 : AIRK_F32;
  await arena.run((ops) => {
    ops.kvAppend(
      kCache.address,
      vCache.address,
      cacheType,
      k.address,
      v.address,
      slot.address,
      slots.length,
      kvHeads,
      headDim,
      pageTokens,
    );
    ops.attention(y.address, q.address, {
      kCache: kCache.address,
      vCache: vCache.address,
      cacheType,
      sequences: sequenceTable.address,
      sequenceCount: sequences.length,
      pageTable: table.address,
      mask,
      tokens,
      heads,
      kvHeads,
      headDim,
      pageTokens,
      contextTokens: Math.max(...sequences.map((each) => each.cached + each.tokens)),
      scale: 1 / Math.sqrt(headDim),
    });
  });
  return sequences.map((each, i) => {
    const begin = entries[4 * i] * heads * headDim;
    return y.data.slice(begin, begin + each.tokens * heads * headDim);
  });
}

function describe(pass: Pass): string {
  const sequences = pass.sequences.map(({ cached, tokens }) => `${cached}+${tokens}`).join(",");
  return `${pass.cacheType} positions=${sequences} heads=${pass.heads}/${pass.kvHeads} headDim=${pass.headDim} ` +
    `pageTokens=${pass.pageTokens}${pass.tree ? " tree" : ""}`;
}

const one = (cached: number, tokens: number) => [{ cached, tokens, seed: cached + tokens }];
const PASSES: Pass[] = [
  { sequences: one(0, 1), heads: 1, kvHeads: 1, headDim: 1, pageTokens: 1, cacheType: "f16" },
  { sequences: one(0, 17), heads: 3, kvHeads: 1, headDim: 20, pageTokens: 3, cacheType: "f16" },
  { sequences: one(255, 3), heads: 4, kvHeads: 2, headDim: 64, pageTokens: 16, cacheType: "f16" },
  { sequences: one(254, 3), heads: 4, kvHeads: 2, headDim: 64, pageTokens: 16, cacheType: "f32" },
  { sequences: one(700, 1), heads: 8, kvHeads: 2, headDim: 80, pageTokens: 7, cacheType: "f16" },
  { sequences: one(0, 130), heads: 2, kvHeads: 2, headDim: 96, pageTokens: 32, cacheType: "f16" },
  { sequences: one(1030, 1), heads: 7, kvHeads: 1, headDim: 128, pageTokens: 64, cacheType: "f16" },
  { sequences: one(300, 40), heads: 8, kvHeads: 1, headDim: 256, pageTokens: 16, cacheType: "f16" },
  { sequences: one(63, 5), heads: 2, kvHeads: 1, headDim: 17, pageTokens: 5, cacheType: "f32" },
  { sequences: one(5, 9), heads: 130, kvHeads: 1, headDim: 33, pageTokens: 4, cacheType: "f16" },
  { sequences: one(250, 17), heads: 4, kvHeads: 2, headDim: 64, pageTokens: 16, cacheType: "f16", tree: true },
  { sequences: one(0, 64), heads: 4, kvHeads: 4, headDim: 20, pageTokens: 8, cacheType: "f32", tree: true },
  {
    sequences: [{ cached: 3, tokens: 1, seed: 1 }, { cached: 0, tokens: 33, seed: 2 }, { cached: 520, tokens: 2, seed: 3 }],
    heads: 6,
    kvHeads: 2,
    headDim: 64,
    pageTokens: 16,
    cacheType: "f16",
  },
  {
    sequences: [{ cached: 10, tokens: 7, seed: 1 }, { cached: 0, tokens: 5, seed: 2 }],
    heads: 4,
    kvHeads: 2,
    headDim: 20,
    pageTokens: 3,
    cacheType: "f16",
    tree: true,
  },
];

for (const pass of PASSES) {
  eachIsa(`attention() matches float64, ${describe(pass)}, nmse<1e-11`, async (context) => {
    for (const [i, y] of (await attend(context, pass)).entries()) assertClose(y, reference(pass, i), 1e-11, `sequence ${i}`);
  });
}

const BATCH: Pass = {
  sequences: [{ cached: 600, tokens: 1, seed: 1 }, { cached: 0, tokens: 50, seed: 2 }, { cached: 300, tokens: 4, seed: 3 }],
  heads: 8,
  kvHeads: 2,
  headDim: 64,
  pageTokens: 16,
  cacheType: "f16",
};

for (const threads of [1, 3]) {
  eachIsa(`attention() of several sequences has the bits of each alone, ${threads} threads`, async (context) => {
    const together = await attend(context, BATCH);
    for (const [i, sequence] of BATCH.sequences.entries()) {
      const [alone] = await attend(context, { ...BATCH, sequences: [sequence] });
      assertSameBits(together[i], alone, `sequence ${i}`);
    }
  }, { threads });
}

eachIsa("attention() does not depend on the order of pages", async (context) => {
  const first = await attend(context, BATCH, 1), second = await attend(context, BATCH, 2);
  for (let i = 0; i < first.length; i++) assertSameBits(second[i], first[i], `sequence ${i}`);
});

eachIsa("attention() gives a token the same bits in a long pass and alone", async (context) => {
  const long: Pass = { ...BATCH, sequences: [{ cached: 0, tokens: 300, seed: 4 }] };
  const [all] = await attend(context, long);
  const width = BATCH.heads * BATCH.headDim;
  const values = sequenceValues(long, 0);
  // The last token as a pass of its own: the same keys, and the last token's query.
  using arena = new Arena(context);
  const q = arena.f32(values.q.subarray(299 * width), "q"), y = arena.f32(width, "y");
  const byHead = (flat: Float32Array) => {
    const out = new Uint16Array(flat.length);
    for (let p = 0; p < 300; p++) {
      for (let h = 0; h < 2; h++) for (let d = 0; d < 64; d++) out[(h * 300 + p) * 64 + d] = toF16(flat[(p * 2 + h) * 64 + d]);
    }
    return out;
  };
  const kCache = arena.u16(byHead(values.k), "k"), vCache = arena.u16(byHead(values.v), "v");
  const sequences = arena.i32([0, 1, 299, 0], "sequences"), pageTable = arena.i32([0], "pageTable");
  await arena.run((ops) =>
    ops.attention(y.address, q.address, {
      kCache: kCache.address,
      vCache: vCache.address,
      cacheType: AIRK_F16,
      sequences: sequences.address,
      sequenceCount: 1,
      pageTable: pageTable.address,
      mask: 0n,
      tokens: 1,
      heads: 8,
      kvHeads: 2,
      headDim: 64,
      pageTokens: 300,
      contextTokens: 300,
      scale: 1 / 8,
    })
  );
  assertSameBits(y.data, all.slice(299 * width));
});

for (
  const [what, sequences, pages, message] of [
    ["a sequence beyond the pass", [0, 3, 0, 0], [0, 0], /ends at token 3, the pass has 2/],
    ["more positions than context_tokens", [0, 2, 9, 0], [0, 0], /has 11 positions, context_tokens is 4/],
    ["a negative entry", [0, 2, -1, 0], [0, 0], /sequences\[0\]\[2\] is -1/],
    ["a negative page", [0, 2, 0, 0], [0, -7], /page 1 of sequence 0 is -7/],
  ] as [string, number[], number[], RegExp][]
) {
  eachIsa(`attention() refuses ${what} and writes nothing`, async (context) => {
    using arena = new Arena(context);
    const q = arena.f32([1, 2], "q"), y = arena.f32(2, "y"), cache = arena.f32([1, 2], "cache");
    const table = arena.i32(sequences, "sequences"), pageTable = arena.i32(pages, "pageTable");
    await assert.rejects(
      arena.run((ops) =>
        ops.attention(y.address, q.address, {
          kCache: cache.address,
          vCache: cache.address,
          cacheType: AIRK_F32,
          sequences: table.address,
          sequenceCount: 1,
          pageTable: pageTable.address,
          mask: 0n,
          tokens: 2,
          heads: 1,
          kvHeads: 1,
          headDim: 1,
          pageTokens: 1,
          contextTokens: 4,
          scale: 1,
        })
      ),
      (error) => error instanceof NativeError && message.test(error.message),
    );
    assert.ok(y.data.every(Number.isNaN));
  });
}
