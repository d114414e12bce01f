import assert from "node:assert/strict";
import { NativeError } from "../../lib/errors.ts";
import { AIRK_INVALID } from "../../lib/ffi/abi.ts";
import { Arena, assertClose, assertSameBits, eachIsa, random } from "./reference.ts";

for (const [count, rows, cols] of [[1, 1, 1], [3, 2, 17], [17, 5, 255], [64, 200, 4095], [200, 3, 64]]) {
  eachIsa(`scatterAdd() matches float64, count=${count} rows=${rows} cols=${cols}, nmse<1e-13`, async (context) => {
    const numbers = random(count);
    using arena = new Arena(context, 1 << 23);
    const x = arena.f32(numbers.floats(count * cols), "x"), y = arena.f32(numbers.floats(rows * cols), "y");
    const ids = arena.i32(Array.from({ length: count }, () => numbers.integer(rows)), "ids");
    const weights = arena.f32(numbers.floats(count), "weights");
    const before = y.data.slice();
    for (const weighted of [true, false]) {
      y.data.set(before);
      const expected = Float64Array.from(before);
      for (let i = 0; i < count; i++) {
        const factor = weighted ? weights.data[i] : 1;
        for (let c = 0; c < cols; c++) expected[ids.data[i] * cols + c] += factor * x.data[i * cols + c];
      }
      const run = () =>
        arena.run((ops) => ops.scatterAdd(y.address, x.address, ids.address, weighted ? weights.address : 0n, count, rows, cols));
      await run();
      assertClose(y.data, expected, 1e-13, weighted ? "weighted" : "plain");
      const first = y.data.slice();
      y.data.set(before);
      await run();
      assertSameBits(y.data, first, "again");
    }
  });
}

eachIsa("scatterAdd() adds in ascending order where an id repeats", async (context) => {
  using arena = new Arena(context);
  // 1 is lost beside 2^24 and counts once that is taken away: only the given order gives 1.
  const x = arena.f32([2 ** 24, 1, -(2 ** 24), 1], "x"), y = arena.f32([0], "y"), ids = arena.i32([0, 0, 0, 0], "ids");
  await arena.run((ops) => ops.scatterAdd(y.address, x.address, ids.address, 0n, 4, 1, 1));
  assert.deepEqual([...y.data], [1]);
});

for (const id of [-1, 3]) {
  eachIsa(`scatterAdd() refuses id ${id} of 3 rows and writes nothing`, async (context) => {
    using arena = new Arena(context);
    const x = arena.f32([1, 2], "x"), y = arena.f32(3, "y"), ids = arena.i32([0, id], "ids");
    await assert.rejects(
      arena.run((ops) => ops.scatterAdd(y.address, x.address, ids.address, 0n, 2, 3, 1)),
      (error) => {
        assert.ok(error instanceof NativeError && error.status === AIRK_INVALID);
        assert.match(error.message, new RegExp(`ids\\[1\\] is ${id}, required is 0 to 2`));
        return true;
      },
    );
    assert.ok(y.data.every(Number.isNaN));
  });
}

eachIsa("scatterAdd() refuses an overlap", async (context) => {
  using arena = new Arena(context);
  const x = arena.f32([1, 2, 3], "x"), ids = arena.i32([0, 1], "ids");
  await assert.rejects(
    arena.run((ops) => ops.scatterAdd(x.address, x.address + 4n, ids.address, 0n, 2, 2, 1)),
    (error) => error instanceof NativeError && /`y` overlaps `x`/.test(error.message),
  );
});
