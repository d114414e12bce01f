import assert from "node:assert/strict";
import { NativeError } from "../../lib/errors.ts";
import { AIRK_F16, AIRK_F32, AIRK_Q8 } from "../../lib/ffi/abi.ts";
import type { Context } from "../../lib/ffi/context.ts";
import type { AttentionInput, Precision } from "../../lib/ffi/ops.ts";
import { fromQ8, q8CacheBytes, toQ8 } from "./q8_rows.ts";
import { Arena, assertClose, assertSameBits, eachIsa, fromF16, random, toF16 } from "./reference.ts";

/** A pass: what each of its sequences has cached before, and how many tokens it adds. */
interface Pass {
  sequences: { cached: number; tokens: number; seed: number }[];
  heads: number;
  kvHeads: number;
  headDim: number;
  /** Elements of a value; absent: headDim. */
  valueDim?: number;
  /** The values are the beginnings of the keys. */
  absorbed?: boolean;
  pageTokens: number;
  cacheType: "f16" | "f32" | "q8";
  /** Draft tree instead of causal order. */
  tree?: boolean;
  /** Positions that a token sees at most, itself included. */
  window?: number;
  softcap?: number;
  sinks?: boolean;
  slopes?: boolean;
  /** Absent: exact. */
  precision?: Precision;
}

const TYPES = { f32: AIRK_F32, f16: AIRK_F16, q8: AIRK_Q8 };

const valueDimOf = (pass: Pass): number => pass.valueDim ?? pass.headDim;

/** What a value is after it was in the cache; rows of `dim`. */
function cached(values: Float32Array<ArrayBuffer>, type: Pass["cacheType"], dim: number): Float32Array<ArrayBuffer> {
  if (type === "f32") return values;
  if (type === "f16") return values.map((v) => fromF16(toF16(v)));
  const stored = new Float32Array(values.length);
  for (let at = 0; at < values.length; at += dim) {
    const { codes, scales } = toQ8(values.subarray(at, at + dim));
    stored.set(fromQ8(codes, scales, dim), at);
  }
  return stored;
}

/** Values that belong to a sequence alone, so that the same sequence can run in different passes. */
function sequenceValues(pass: Pass, index: number) {
  const { cached, tokens, seed } = pass.sequences[index];
  const numbers = random(seed);
  const positions = cached + tokens;
  return {
    q: numbers.floats(tokens * pass.heads * pass.headDim, 1.5),
    // [positions, kvHeads, headDim]
    k: numbers.floats(positions * pass.kvHeads * pass.headDim),
    v: numbers.floats(positions * pass.kvHeads * valueDimOf(pass)),
    // Each token of the tree has one parent among those before it, or none.
    parents: Array.from({ length: tokens }, (_, t) => numbers.integer(t + 1) - 1),
  };
}

/** What belongs to the heads, whatever the sequence. */
function headValues(pass: Pass): { sinks: Float32Array; slopes: Float32Array } {
  const numbers = random(99);
  return { sinks: numbers.floats(pass.heads, 2), slopes: numbers.floats(pass.heads, 0.05) };
}

/** Whether token i sees token j of its own sequence. */
function sees(parents: number[], tree: boolean | undefined, i: number, j: number): boolean {
  if (!tree) return j <= i;
  for (let at = i; at >= 0; at = parents[at]) if (at === j) return true;
  return false;
}

/** First position that a token sees. */
const firstVisible = (pass: Pass, position: number): number => Math.max(0, position - (pass.window ?? Infinity) + 1);

/** Over keys and values as the cache holds them, or as they were given. */
function reference(pass: Pass, index: number, rounded = true): Float64Array {
  const { cached: before, tokens } = pass.sequences[index];
  const { heads, kvHeads, headDim } = pass, valueDim = valueDimOf(pass);
  const { q, parents, ...given } = sequenceValues(pass, index);
  const k = rounded ? cached(given.k, pass.cacheType, headDim) : given.k;
  const v = rounded ? cached(given.v, pass.cacheType, valueDim) : given.v;
  const { sinks, slopes } = headValues(pass);
  const scale = Math.fround(1 / Math.sqrt(headDim)), softcap = pass.softcap ?? 0;
  const y = new Float64Array(tokens * heads * valueDim);
  for (let t = 0; t < tokens; t++) {
    for (let h = 0; h < heads; h++) {
      const kvHead = Math.floor(h / (heads / kvHeads)), at = (t * heads + h) * headDim, to = (t * heads + h) * valueDim;
      const scores: [number, number][] = [];
      for (let p = firstVisible(pass, before + t); p < before + tokens; p++) {
        if (p >= before && !sees(parents, pass.tree, t, p - before)) continue;
        let score = 0;
        for (let d = 0; d < headDim; d++) score += q[at + d] * k[(p * kvHeads + kvHead) * headDim + d];
        score *= scale;
        if (softcap) score = softcap * Math.tanh(score / softcap);
        if (pass.slopes) score += slopes[h] * (p - before - t);
        scores.push([p, score]);
      }
      const largest = Math.max(...scores.map(([, score]) => score));
      let sum = pass.sinks ? Math.exp(sinks[h] - largest) : 0;
      for (const [p, score] of scores) {
        const weight = Math.exp(score - largest);
        sum += weight;
        const value = pass.absorbed
          ? k.subarray((p * kvHeads + kvHead) * headDim)
          : v.subarray((p * kvHeads + kvHead) * valueDim);
        for (let d = 0; d < valueDim; d++) y[to + d] += weight * value[d];
      }
      for (let d = 0; d < valueDim; d++) y[to + d] /= sum;
    }
  }
  return y;
}

/** Lays the pass out over pages in random order, appends all keys and values, and attends. Returns y of each sequence. */
async function attend(context: Context, pass: Pass, shuffle = 1): Promise<Float32Array[]> {
  const { sequences, heads, kvHeads, headDim, pageTokens } = pass, valueDim = valueDimOf(pass);
  const tokens = sequences.reduce((sum, each) => sum + each.tokens, 0);
  const pageCounts = sequences.map(({ cached, tokens }) => Math.ceil((cached + tokens) / pageTokens));
  const pages = pageCounts.reduce((sum, count) => sum + count, 0) + 2;
  const order = random(shuffle).permutation(pages);
  const rows = pages * kvHeads * pageTokens, positions = sequences.reduce((sum, each) => sum + each.cached + each.tokens, 0);
  const dims = headDim + valueDim + 64;
  using arena = new Arena(context, 4 * dims * (rows + tokens * heads + positions * kvHeads) + tokens ** 2 + (1 << 20));
  const values = sequences.map((_, i) => sequenceValues(pass, i));
  const concatenated = (name: "q" | "k" | "v") => arena.f32(values.flatMap((each) => Array.from(each[name])), name);
  const q = concatenated("q"), k = concatenated("k"), v = concatenated("v");
  const y = arena.f32(tokens * heads * valueDim, "y");
  // Outputs are all ones, which as f16, f32 and scale of q8 is NaN: whatever is read beyond a sequence's end shows.
  const cache = (name: string, dim: number) =>
    pass.cacheType === "q8"
      ? arena.u8(q8CacheBytes(pages, kvHeads, pageTokens, dim), name)
      : pass.cacheType === "f16"
      ? arena.u16(rows * dim, name)
      : arena.f32(rows * dim, name);
  const kCache = cache("kCache", headDim), vCache = cache("vCache", valueDim);
  const pageTable: number[] = [], entries: number[] = [], slots: number[] = [], visible: number[] = [];
  let firstToken = 0;
  for (const [i, { cached, tokens }] of sequences.entries()) {
    entries.push(firstToken, tokens, cached, pageTable.length);
    const own = order.splice(0, pageCounts[i]);
    for (let p = 0; p < cached + tokens; p++) slots.push(own[Math.floor(p / pageTokens)] * pageTokens + p % pageTokens);
    for (let t = 0; t < tokens; t++) visible.push(firstVisible(pass, cached + t));
    // Pages that nobody sees are nobody's business: the entry is no page at all.
    const unseen = Math.floor(firstVisible(pass, cached) / pageTokens);
    pageTable.push(...own.map((page, entry) => entry < unseen ? -1 : page));
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
  const { sinks, slopes } = headValues(pass);
  const input: AttentionInput = {
    kCache: kCache.address,
    vCache: pass.absorbed ? 0n : vCache.address,
    cacheType: TYPES[pass.cacheType],
    sequences: sequenceTable.address,
    sequenceCount: sequences.length,
    pageTable: table.address,
    mask,
    firstVisible: pass.window ? arena.i32(visible, "firstVisible").address : 0n,
    sinks: pass.sinks ? arena.f32(sinks, "sinks").address : 0n,
    slopes: pass.slopes ? arena.f32(slopes, "slopes").address : 0n,
    tokens,
    heads,
    kvHeads,
    headDim,
    valueDim,
    pageTokens,
    contextTokens: Math.max(...sequences.map((each) => each.cached + each.tokens)),
    scale: 1 / Math.sqrt(headDim),
    softcap: pass.softcap,
    precision: pass.precision,
  };
  await arena.run((ops) => {
    ops.kvAppend(input, k.address, pass.absorbed ? 0n : v.address, slot.address, slots.length);
    ops.attention(y.address, q.address, input);
  });
  return sequences.map((each, i) => {
    const begin = entries[4 * i] * heads * valueDim;
    return y.data.slice(begin, begin + each.tokens * heads * valueDim);
  });
}

function describe(pass: Pass): string {
  const { sequences, cacheType, heads, kvHeads, headDim, pageTokens, ...others } = pass;
  const positions = sequences.map(({ cached, tokens }) => `${cached}+${tokens}`).join(",");
  const rest = Object.entries(others).map(([name, value]) => value === true ? ` ${name}` : ` ${name}=${value}`).join("");
  return `${cacheType} positions=${positions} heads=${heads}/${kvHeads} headDim=${headDim} pageTokens=${pageTokens}${rest}`;
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
  // Values narrower and wider than keys, and values that are the beginnings of the keys (MLA).
  { sequences: one(255, 3), heads: 4, kvHeads: 2, headDim: 192, valueDim: 128, pageTokens: 16, cacheType: "f16" },
  { sequences: one(10, 5), heads: 3, kvHeads: 3, headDim: 20, valueDim: 100, pageTokens: 4, cacheType: "f32" },
  {
    sequences: one(300, 3),
    heads: 16,
    kvHeads: 1,
    headDim: 576,
    valueDim: 512,
    absorbed: true,
    pageTokens: 16,
    cacheType: "f16",
  },
  { sequences: one(5, 3), heads: 5, kvHeads: 1, headDim: 340, valueDim: 273, absorbed: true, pageTokens: 4, cacheType: "f32" },
  { sequences: one(0, 9), heads: 2, kvHeads: 1, headDim: 300, valueDim: 400, pageTokens: 4, cacheType: "f16" },
  // Windows within a page, over pages, over chunks.
  { sequences: one(700, 3), heads: 4, kvHeads: 2, headDim: 64, pageTokens: 16, cacheType: "f16", window: 100 },
  { sequences: one(600, 20), heads: 4, kvHeads: 1, headDim: 20, pageTokens: 7, cacheType: "f32", window: 300 },
  { sequences: one(511, 70), heads: 2, kvHeads: 2, headDim: 33, pageTokens: 3, cacheType: "f16", window: 1 },
  { sequences: one(0, 90), heads: 2, kvHeads: 1, headDim: 64, pageTokens: 16, cacheType: "f16", window: 33 },
  { sequences: one(290, 17), heads: 4, kvHeads: 2, headDim: 64, pageTokens: 16, cacheType: "f16", tree: true, window: 40 },
  // What changes the scores.
  { sequences: one(300, 5), heads: 4, kvHeads: 2, headDim: 64, pageTokens: 16, cacheType: "f16", softcap: 3 },
  { sequences: one(300, 5), heads: 6, kvHeads: 2, headDim: 20, pageTokens: 16, cacheType: "f32", slopes: true },
  { sequences: one(300, 5), heads: 6, kvHeads: 2, headDim: 64, pageTokens: 16, cacheType: "f16", sinks: true },
  { sequences: one(0, 3), heads: 6, kvHeads: 2, headDim: 20, pageTokens: 16, cacheType: "f32", sinks: true },
  // The 8-bit cache.
  { sequences: one(255, 3), heads: 4, kvHeads: 2, headDim: 64, pageTokens: 16, cacheType: "q8" },
  { sequences: one(0, 40), heads: 3, kvHeads: 1, headDim: 17, pageTokens: 5, cacheType: "q8" },
  { sequences: one(300, 2), heads: 4, kvHeads: 2, headDim: 100, valueDim: 70, pageTokens: 7, cacheType: "q8", window: 200 },
  { sequences: one(20, 2), heads: 16, kvHeads: 1, headDim: 576, valueDim: 512, absorbed: true, pageTokens: 16, cacheType: "q8" },
  // All at once.
  {
    sequences: [{ cached: 300, tokens: 1, seed: 1 }, { cached: 0, tokens: 33, seed: 2 }, { cached: 520, tokens: 2, seed: 3 }],
    heads: 6,
    kvHeads: 2,
    headDim: 64,
    valueDim: 48,
    pageTokens: 16,
    cacheType: "q8",
    window: 130,
    softcap: 5,
    sinks: true,
    slopes: true,
  },
];

for (const pass of PASSES) {
  eachIsa(`attention() matches float64, ${describe(pass)}, nmse<1e-11`, async (context) => {
    for (const [i, y] of (await attend(context, pass)).entries()) assertClose(y, reference(pass, i), 1e-11, `sequence ${i}`);
  });
}

// Prompts that may be rounded to float16: tiles of 64 rows and 16 or 64 keys, whole and not, of every size that a kernel is made for.
const PROMPTS: Pass[] = [
  { sequences: one(0, 16), heads: 1, kvHeads: 1, headDim: 64, pageTokens: 16, cacheType: "f16" },
  { sequences: one(0, 130), heads: 4, kvHeads: 4, headDim: 64, pageTokens: 16, cacheType: "f16" },
  { sequences: one(77, 65), heads: 6, kvHeads: 2, headDim: 128, pageTokens: 7, cacheType: "f16" },
  { sequences: one(130, 40), heads: 8, kvHeads: 1, headDim: 96, pageTokens: 32, cacheType: "f16" },
  { sequences: one(31, 33), heads: 4, kvHeads: 1, headDim: 256, pageTokens: 16, cacheType: "f16" },
  { sequences: one(3, 70), heads: 3, kvHeads: 3, headDim: 80, pageTokens: 5, cacheType: "f16" },
  { sequences: one(20, 19), heads: 5, kvHeads: 1, headDim: 33, valueDim: 17, pageTokens: 4, cacheType: "f16" },
  { sequences: one(9, 40), heads: 2, kvHeads: 1, headDim: 192, valueDim: 128, pageTokens: 16, cacheType: "f16" },
  { sequences: one(0, 20), heads: 4, kvHeads: 1, headDim: 100, valueDim: 72, absorbed: true, pageTokens: 8, cacheType: "f16" },
  { sequences: one(250, 33), heads: 4, kvHeads: 2, headDim: 64, pageTokens: 16, cacheType: "f16", tree: true },
  { sequences: one(290, 33), heads: 4, kvHeads: 2, headDim: 64, pageTokens: 16, cacheType: "f16", window: 40 },
  { sequences: one(0, 100), heads: 4, kvHeads: 2, headDim: 128, pageTokens: 3, cacheType: "f16", window: 1 },
  { sequences: one(100, 20), heads: 4, kvHeads: 2, headDim: 64, pageTokens: 16, cacheType: "f16", softcap: 3, sinks: true },
  { sequences: one(30, 50), heads: 6, kvHeads: 2, headDim: 128, pageTokens: 16, cacheType: "f16", slopes: true },
  { sequences: one(40, 50), heads: 4, kvHeads: 2, headDim: 128, pageTokens: 16, cacheType: "q8" },
  { sequences: one(0, 70), heads: 3, kvHeads: 1, headDim: 17, pageTokens: 5, cacheType: "q8", window: 20, sinks: true },
  { sequences: one(0, 40), heads: 2, kvHeads: 1, headDim: 64, pageTokens: 16, cacheType: "f32" },
  {
    sequences: [{ cached: 300, tokens: 1, seed: 1 }, { cached: 0, tokens: 73, seed: 2 }, { cached: 20, tokens: 18, seed: 3 }],
    heads: 6,
    kvHeads: 2,
    headDim: 64,
    valueDim: 48,
    pageTokens: 16,
    cacheType: "f16",
    window: 130,
    softcap: 5,
    sinks: true,
    slopes: true,
  },
];

for (const pass of PROMPTS) {
  eachIsa(`attention() fast matches float64, ${describe(pass)}, nmse<1e-6`, async (context) => {
    const outputs = await attend(context, { ...pass, precision: "fast" });
    for (const [i, y] of outputs.entries()) assertClose(y, reference(pass, i), 1e-6, `sequence ${i}`);
  });
}

eachIsa("attention() fast rounds on tensor cores alone, prompts and caches of float16 or 8 bits alone", async (context) => {
  const tensorCores = context.description.kind === "cuda" && !/^sm_[67]/.test(context.description.isa);
  for (const [cacheType, tokens] of [["f16", 20], ["q8", 20], ["f32", 20], ["f16", 15]] as const) {
    const pass: Pass = { sequences: one(50, tokens), heads: 4, kvHeads: 2, headDim: 64, pageTokens: 16, cacheType };
    const [exact] = await attend(context, pass), [fast] = await attend(context, { ...pass, precision: "fast" });
    const rounds = tensorCores && cacheType !== "f32" && tokens > 15;
    assert.equal(fast.some((value, i) => value !== exact[i]), rounds, `${cacheType}, ${tokens} tokens`);
  }
});

for (const headDim of [64, 128]) {
  eachIsa(
    `attention() over a q8 cache is close to that over exact keys and values, headDim=${headDim}, nmse<1e-4`,
    async (context) => {
      const pass: Pass = { sequences: one(500, 3), heads: 8, kvHeads: 2, headDim, pageTokens: 32, cacheType: "q8" };
      const [y] = await attend(context, pass);
      assertClose(y, reference(pass, 0, false), 1e-4);
    },
  );
}

const ONE_ELEMENT: AttentionInput = {
  kCache: 0n,
  vCache: 0n,
  cacheType: AIRK_F32,
  sequences: 0n,
  sequenceCount: 1,
  pageTable: 0n,
  mask: 0n,
  tokens: 2,
  heads: 1,
  kvHeads: 1,
  headDim: 1,
  valueDim: 1,
  pageTokens: 1,
  contextTokens: 4,
  scale: 1,
};

const BATCH: Pass = {
  sequences: [{ cached: 600, tokens: 1, seed: 1 }, { cached: 0, tokens: 50, seed: 2 }, { cached: 300, tokens: 4, seed: 3 }],
  heads: 8,
  kvHeads: 2,
  headDim: 64,
  pageTokens: 16,
  cacheType: "f16",
};

for (const threads of [1, 3]) {
  for (const pass of [BATCH, { ...BATCH, window: 270, sinks: true, cacheType: "q8" } as Pass]) {
    const what = pass.window ? " over windows" : "";
    eachIsa(`attention() of several sequences${what} has the bits of each alone, ${threads} threads`, async (context) => {
      const together = await attend(context, pass);
      for (const [i, sequence] of pass.sequences.entries()) {
        const [alone] = await attend(context, { ...pass, sequences: [sequence] });
        assertSameBits(together[i], alone, `sequence ${i}`);
      }
    }, { threads });
  }
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
      valueDim: 64,
      pageTokens: 300,
      contextTokens: 300,
      scale: 1 / 8,
    })
  );
  assertSameBits(y.data, all.slice(299 * width));
});

for (
  const [what, sequences, pages, visible, message] of [
    ["a sequence beyond the pass", [0, 3, 0, 0], [0, 0], undefined, /ends at token 3, the pass has 2/],
    ["more positions than context_tokens", [0, 2, 9, 0], [0, 0], undefined, /has 11 positions, context_tokens is 4/],
    ["a negative entry", [0, 2, -1, 0], [0, 0], undefined, /sequences\[0\]\[2\] is -1/],
    ["a negative page", [0, 2, 0, 0], [0, -7], undefined, /page 1 of sequence 0 is -7/],
    ["a negative page that one token sees", [0, 2, 1, 0], [-1, -7, 0], [1, 2], /page 1 of sequence 0 is -7/],
    ["a token that does not see itself", [0, 2, 0, 0], [0, 0], [0, 2], /first_visible\[1\] is 2, required is 0 to 1/],
    ["a negative first visible position", [0, 2, 0, 0], [0, 0], [-1, 0], /first_visible\[0\] is -1/],
  ] as [string, number[], number[], number[] | undefined, RegExp][]
) {
  eachIsa(`attention() refuses ${what} and writes nothing`, async (context) => {
    using arena = new Arena(context);
    const q = arena.f32([1, 2], "q"), y = arena.f32(2, "y"), cache = arena.f32([1, 2], "cache");
    const table = arena.i32(sequences, "sequences"), pageTable = arena.i32(pages, "pageTable");
    const firstVisible = visible ? arena.i32(visible, "firstVisible").address : 0n;
    await assert.rejects(
      arena.run((ops) =>
        ops.attention(y.address, q.address, {
          ...ONE_ELEMENT,
          kCache: cache.address,
          vCache: cache.address,
          sequences: table.address,
          pageTable: pageTable.address,
          firstVisible,
        })
      ),
      (error) => error instanceof NativeError && message.test(error.message),
    );
    assert.ok(y.data.every(Number.isNaN));
  });
}

for (
  const [change, message] of [
    [{ headDim: 577 }, /head_dim is 577, required is at most 576/],
    [{ valueDim: 513 }, /value_dim is 513, required is at most 512/],
    [{ headDim: 8, valueDim: 9, vCache: 0n }, /value_dim is 9, required is at most 8/],
    [{ softcap: -1 }, /softcap is -1/],
    [{ cacheType: 2 }, /cache_type is 2/],
  ] as [Partial<AttentionInput>, RegExp][]
) {
  const what = Object.entries(change).map(([name, value]) => `${name}=${value}`).join(" ");
  eachIsa(`attention() refuses ${what}`, async (context) => {
    using arena = new Arena(context);
    const address = arena.f32([0, 0], "x").address;
    const input = { ...ONE_ELEMENT, kCache: address, vCache: address, sequences: address, pageTable: address, ...change };
    await assert.rejects(
      arena.run((ops) => ops.attention(address, address, input)),
      (error) => error instanceof NativeError && message.test(error.message),
    );
  });
}
