import assert from "node:assert/strict";
import { Arena, eachIsa, random } from "./reference.ts";

/** NaN is smallest; the first among equals wins. */
function reference(x: Float32Array, row: number, cols: number): number {
  let best = 0;
  for (let c = 1; c < cols; c++) {
    const [a, b] = [x[row * cols + c], x[row * cols + best]];
    if (a > b || (Number.isNaN(b) && !Number.isNaN(a))) best = c;
  }
  return best;
}

for (const [rows, cols] of [[1, 1], [3, 3], [17, 17], [2, 255], [5, 32000], [2, 128_257]]) {
  eachIsa(`argmax() is exact with many equals, rows=${rows} cols=${cols}`, async (context) => {
    const numbers = random(cols);
    using arena = new Arena(context);
    // Few distinct values, so that the largest occurs several times.
    const x = arena.f32(numbers.floats(rows * cols).map((v) => Math.round(v * 4)), "x");
    const index = arena.i32(rows, "index");
    await arena.run((ops) => ops.argmax(index.address, x.address, rows, cols));
    assert.deepEqual([...index.data], Array.from({ length: rows }, (_, r) => reference(x.data, r, cols)));
  });
}

eachIsa("argmax() counts NaN as smallest, and takes -0 and 0 as equal", async (context) => {
  const rows = [
    [NaN, NaN, NaN, NaN],
    [NaN, -Infinity, NaN, -Infinity],
    [NaN, 1, Infinity, Infinity],
    [-1, -0, 0, NaN],
    [3, NaN, 2, 1],
  ];
  using arena = new Arena(context);
  const x = arena.f32(rows.flat(), "x");
  const index = arena.i32(rows.length, "index");
  await arena.run((ops) => ops.argmax(index.address, x.address, rows.length, 4));
  assert.deepEqual([...index.data], [0, 1, 2, 1, 0]);
});
