import assert from "node:assert/strict";
import { AIRK_F16, AIRK_F32 } from "../../lib/ffi/abi.ts";
import { NativeError } from "../../lib/errors.ts";
import { Arena, eachIsa, random, toF16 } from "./reference.ts";

for (const type of ["f16", "f32"] as const) {
  for (const [tokens, kvHeads, headDim, pageTokens] of [[1, 1, 1, 1], [3, 2, 20, 4], [17, 1, 255, 3], [5, 8, 128, 16]]) {
    eachIsa(
      `kvAppend() is exact, ${type} tokens=${tokens} kvHeads=${kvHeads} headDim=${headDim} pageTokens=${pageTokens}`,
      async (context) => {
        const numbers = random(tokens + headDim);
        const pages = Math.ceil(tokens / pageTokens) + 1;
        const elements = pages * kvHeads * pageTokens * headDim;
        using arena = new Arena(context);
        const cache = (name: string) => type === "f16" ? arena.u16(elements, name) : arena.f32(elements, name);
        const caches = [cache("kCache"), cache("vCache")];
        const inputs = ["k", "v"].map((name) => arena.f32(numbers.floats(tokens * kvHeads * headDim), name));
        const slots = arena.i32(numbers.permutation(pages * pageTokens).slice(0, tokens), "slots");
        const expected = caches.map((each) => Array.from(each.data));
        for (let which = 0; which < 2; which++) {
          for (const [t, slot] of slots.data.entries()) {
            for (let h = 0; h < kvHeads; h++) {
              for (let d = 0; d < headDim; d++) {
                const page = Math.floor(slot / pageTokens);
                const value = inputs[which].data[(t * kvHeads + h) * headDim + d];
                expected[which][((page * kvHeads + h) * pageTokens + slot % pageTokens) * headDim + d] = type === "f16"
                  ? toF16(value)
                  : value;
              }
            }
          }
        }
        const cacheType = type === "f16" ? AIRK_F16 : AIRK_F32;
        await arena.run((ops) =>
          ops.kvAppend(
            caches[0].address,
            caches[1].address,
            cacheType,
            inputs[0].address,
            inputs[1].address,
            slots.address,
            tokens,
            kvHeads,
            headDim,
            pageTokens,
          )
        );
        assert.deepEqual(caches.map((each) => Array.from(each.data)), expected);
      },
    );
  }
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
    ops.kvAppend(caches[0].address, caches[1].address, AIRK_F16, k.address, k.address, slots.address, 1, 1, count, 1)
  );
  assert.deepEqual([...caches[0].data], edges.map(toF16));
  assert.deepEqual([...caches[1].data], edges.map(toF16));
});

eachIsa("kvAppend() refuses a negative slot and writes nothing", async (context) => {
  using arena = new Arena(context);
  const k = arena.f32([1, 2], "k");
  const slots = arena.i32([0, -1], "slots");
  const cache = arena.u16(2, "cache");
  await assert.rejects(
    arena.run((ops) => ops.kvAppend(cache.address, cache.address, AIRK_F16, k.address, k.address, slots.address, 2, 1, 1, 2)),
    (error) => error instanceof NativeError && /slots\[1\] is -1/.test(error.message),
  );
  assert.deepEqual([...cache.data], [0xffff, 0xffff]);
});
