import assert from "node:assert/strict";
import { Arena, eachIsa, random } from "./reference.ts";

/** Indices in descending order of value, ties ascending, NaN last. */
function order(row: Float32Array): number[] {
  const rank = (v: number) => Number.isNaN(v) ? -Infinity : v;
  return Array.from(row.keys()).sort((a, b) => {
    const nan = Number(Number.isNaN(row[a])) - Number(Number.isNaN(row[b]));
    return nan || (rank(row[a]) === rank(row[b]) ? a - b : rank(row[b]) > rank(row[a]) ? 1 : -1);
  });
}

for (
  const [rows, cols, k] of [[1, 1, 1], [3, 17, 17], [2, 255, 50], [5, 1024, 1024], [3, 32000, 40], [2, 65_537, 1024], [
    1,
    128_257,
    1,
  ]]
) {
  eachIsa(`topK() is exact with many equals, rows=${rows} cols=${cols} k=${k}`, async (context) => {
    const numbers = random(cols + k);
    using arena = new Arena(context);
    const x = arena.f32(numbers.floats(rows * cols).map((v) => Math.round(v * 50)), "x");
    const value = arena.f32(rows * k, "value");
    const index = arena.i32(rows * k, "index");
    await arena.run((ops) => ops.topK(value.address, index.address, x.address, rows, cols, k));
    for (let r = 0; r < rows; r++) {
      const row = x.data.subarray(r * cols, (r + 1) * cols);
      const expected = order(row).slice(0, k);
      assert.deepEqual([...index.data.subarray(r * k, (r + 1) * k)], expected);
      assert.deepEqual([...value.data.subarray(r * k, (r + 1) * k)], expected.map((i) => row[i]));
    }
  });
}

eachIsa("topK() puts NaN last, and takes -0 and 0 as equal", async (context) => {
  using arena = new Arena(context);
  const x = arena.f32([NaN, -0, 2, 0, -Infinity, NaN, Infinity], "x");
  const value = arena.f32(7, "value");
  const index = arena.i32(7, "index");
  await arena.run((ops) => ops.topK(value.address, index.address, x.address, 1, 7, 7));
  assert.deepEqual([...index.data], [6, 2, 1, 3, 4, 0, 5]);
  assert.deepEqual([...value.data], [Infinity, 2, -0, 0, -Infinity, NaN, NaN]);
});
