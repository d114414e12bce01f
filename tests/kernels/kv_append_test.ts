import assert from "node:assert/strict";
import { AIRK_F16, AIRK_F32, AIRK_Q8 } from "../../lib/ffi/abi.ts";
import { NativeError } from "../../lib/errors.ts";
import type { LayerCache } from "../../lib/ffi/ops.ts";
import { q8CacheBytes, q8Offsets, toQ8 } from "./q8_rows.ts";
import { Arena, eachIsa, random, toF16 } from "./reference.ts";

const TYPES = { f32: AIRK_F32, f16: AIRK_F16, q8: AIRK_Q8 };

const SHAPES = [[1, 1, 1, 1, 1], [3, 2, 20, 20, 4], [17, 1, 255, 255, 3], [5, 8, 128, 128, 16], [4, 3, 192, 128, 5], [
  6,
  2,
  33,
  65,
  2,
]];

for (const type of ["f16", "f32", "q8"] as const) {
  for (const [tokens, kvHeads, headDim, valueDim, pageTokens] of SHAPES) {
    const shape = `tokens=${tokens} kvHeads=${kvHeads} headDim=${headDim} valueDim=${valueDim} pageTokens=${pageTokens}`;
    eachIsa(`kvAppend() is exact, ${type} ${shape}`, async (context) => {
      const numbers = random(tokens + headDim);
      const pages = Math.ceil(tokens / pageTokens) + 1;
      using arena = new Arena(context);
      const sides = [["k", headDim], ["v", valueDim]].map(([name, width]) => {
        const dim = Number(width), elements = pages * kvHeads * pageTokens * dim;
        const cache = type === "q8"
          ? arena.u8(q8CacheBytes(pages, kvHeads, pageTokens, dim), `${name}Cache`)
          : type === "f16"
          ? arena.u16(elements, `${name}Cache`)
          : arena.f32(elements, `${name}Cache`);
        return { dim, cache, input: arena.f32(numbers.floats(tokens * kvHeads * dim), String(name)) };
      });
      const slots = arena.i32(numbers.permutation(pages * pageTokens).slice(0, tokens), "slots");
      const expected = sides.map(({ dim, cache, input }) => {
        const data = Array.from(cache.data);
        for (const [t, slot] of slots.data.entries()) {
          for (let h = 0; h < kvHeads; h++) {
            const row = input.data.subarray((t * kvHeads + h) * dim, (t * kvHeads + h + 1) * dim);
            const page = Math.floor(slot / pageTokens), offset = slot % pageTokens;
            if (type === "q8") {
              const at = q8Offsets(page, h, offset, { kvHeads, pageTokens, dim }), { codes, scales } = toQ8(row);
              codes.forEach((code, i) => data[at.code + i] = code & 255);
              scales.forEach((scale, i) => {
                data[at.scale + 2 * i] = scale & 255;
                data[at.scale + 2 * i + 1] = scale >> 8;
              });
            } else {
              row.forEach((value, d) =>
                data[((page * kvHeads + h) * pageTokens + offset) * dim + d] = type === "f16" ? toF16(value) : value
              );
            }
          }
        }
        return data;
      });
      const [k, v] = sides;
      const cache: LayerCache = {
        kCache: k.cache.address,
        vCache: v.cache.address,
        cacheType: TYPES[type],
        kvHeads,
        headDim,
        valueDim,
        pageTokens,
      };
      await arena.run((ops) => ops.kvAppend(cache, k.input.address, v.input.address, slots.address, tokens));
      assert.deepEqual(sides.map(({ cache }) => Array.from(cache.data)), expected);
      v.cache.data.fill(7);
      await arena.run((ops) => ops.kvAppend({ ...cache, vCache: 0n }, k.input.address, 0n, slots.address, tokens));
      assert.ok(v.cache.data.every((value) => value === 7), "keys alone");
    });
  }
}

/** A cache of one slot that holds one head. */
function oneSlot(kCache: bigint, vCache: bigint, cacheType: number, dim: number): LayerCache {
  return { kCache, vCache, cacheType, kvHeads: 1, headDim: dim, valueDim: dim, pageTokens: 1 };
}

eachIsa("kvAppend() rounds to nearest even at every edge of f16", async (context) => {
  const edges = [0, -0, 1, -1, 65504, 65519, 65520, 65536, 1e30, Infinity, -Infinity, 2 ** -14, 2 ** -24, 2 ** -25, 1e-45];
  for (const bits of [0x0001, 0x0002, 0x03ff, 0x0400, 0x3bff, 0x3c00, 0x3c01, 0x7bfe]) {
    const low = bits < 0x400 ? bits * 2 ** -24 : (1024 + (bits & 1023)) * 2 ** ((bits >> 10) - 25);
    const step = 2 ** (Math.max(bits >> 10, 1) - 25);
    for (const part of [0, 0.25, 0.5, 0.5001, 0.75]) edges.push(Math.fround(low + part * step), -Math.fround(low + part * step));
  }
  const count = edges.length;
  using arena = new Arena(context);
  const k = arena.f32(edges, "k");
  const slots = arena.i32([0], "slots");
  const caches = [arena.u16(count, "kCache"), arena.u16(count, "vCache")];
  await arena.run((ops) =>
    ops.kvAppend(oneSlot(caches[0].address, caches[1].address, AIRK_F16, count), k.address, k.address, slots.address, 1)
  );
  assert.deepEqual([...caches[0].data], edges.map(toF16));
  assert.deepEqual([...caches[1].data], edges.map(toF16));
});

eachIsa("kvAppend() to q8 keeps zeros, clamps beside a tiny scale and shows NaN and what is too large", async (context) => {
  const blocks = [
    Array(32).fill(0),
    // A scale below half of the smallest f16: rounds to 0. Above: rounds up or down by a lot.
    Array.from({ length: 32 }, (_, i) => i * 1e-8),
    Array.from({ length: 32 }, (_, i) => (i - 16) * 1.1e-5),
    Array.from({ length: 32 }, (_, i) => i === 5 ? NaN : i),
    Array.from({ length: 32 }, (_, i) => i === 5 ? -Infinity : i),
    Array.from({ length: 32 }, (_, i) => i === 5 ? 1e7 : i),
    // Halves of a code.
    Array.from({ length: 32 }, (_, i) => i === 0 ? 127 : i - 15.5),
  ];
  const row = Float32Array.from(blocks.flat()), { codes, scales } = toQ8(row);
  assert.equal(scales.filter((bits) => bits === 0x7e00).length, 3);
  using arena = new Arena(context);
  const k = arena.f32(row, "k"), slots = arena.i32([0], "slots");
  const cache = arena.u8(q8CacheBytes(1, 1, 1, row.length), "cache");
  await arena.run((ops) => ops.kvAppend(oneSlot(cache.address, 0n, AIRK_Q8, row.length), k.address, 0n, slots.address, 1));
  assert.deepEqual([...cache.data.subarray(0, row.length)], codes.map((code) => code & 255));
  assert.deepEqual([...cache.data.subarray(row.length)], scales.flatMap((bits) => [bits & 255, bits >> 8]));
});

eachIsa("kvAppend() refuses a negative slot and writes nothing", async (context) => {
  using arena = new Arena(context);
  const k = arena.f32([1, 2], "k");
  const slots = arena.i32([0, -1], "slots");
  const cache = arena.u16(2, "cache");
  await assert.rejects(
    arena.run((ops) =>
      ops.kvAppend({ ...oneSlot(cache.address, 0n, AIRK_F16, 1), pageTokens: 2 }, k.address, 0n, slots.address, 2)
    ),
    (error) => error instanceof NativeError && /slots\[1\] is -1/.test(error.message),
  );
  assert.deepEqual([...cache.data], [0xffff, 0xffff]);
});

eachIsa("kvAppend() refuses values without their cache and a cache type that caches do not have", async (context) => {
  using arena = new Arena(context);
  const k = arena.f32([1], "k"), slots = arena.i32([0], "slots"), cache = arena.f32(1, "cache");
  for (
    const [layer, v, message] of [
      [oneSlot(cache.address, 0n, AIRK_F32, 1), k.address, /`v_cache` is null and `v` is not/],
      [oneSlot(cache.address, cache.address, AIRK_F32, 1), 0n, /`v` is null and `v_cache` is not/],
      [oneSlot(cache.address, 0n, 2, 1), 0n, /cache_type is 2/],
    ] as [LayerCache, bigint, RegExp][]
  ) {
    await assert.rejects(
      arena.run((ops) => ops.kvAppend(layer, k.address, v, slots.address, 1)),
      (error) => error instanceof NativeError && message.test(error.message),
    );
  }
});
