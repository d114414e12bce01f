import assert from "node:assert/strict";
import { NativeError } from "../../lib/errors.ts";
import { AIRK_INVALID } from "../../lib/ffi/abi.ts";
import { Arena, assertSameBits, eachIsa, random } from "./reference.ts";

for (const [count, rows, cols] of [[1, 1, 1], [3, 2, 17], [17, 255, 3], [64, 5, 4095]]) {
  eachIsa(`gatherRows() is exact, count=${count} rows=${rows} cols=${cols}`, async (context) => {
    const numbers = random(count);
    using arena = new Arena(context);
    const x = arena.f32(numbers.floats(rows * cols), "x");
    const ids = arena.i32(Array.from({ length: count }, () => numbers.integer(rows)), "ids");
    const y = arena.f32(count * cols, "y");
    await arena.run((ops) => ops.gatherRows(y.address, x.address, ids.address, count, rows, cols));
    const expected = y.data.map((_, i) => x.data[ids.data[Math.floor(i / cols)] * cols + i % cols]);
    assertSameBits(y.data, expected);
  });
}

for (const id of [-1, 3]) {
  eachIsa(`gatherRows() refuses id ${id} of 3 rows and writes nothing`, async (context) => {
    using arena = new Arena(context);
    const x = arena.f32([1, 2, 3], "x");
    const ids = arena.i32([0, id], "ids");
    const y = arena.f32(2, "y");
    await assert.rejects(
      arena.run((ops) => ops.gatherRows(y.address, x.address, ids.address, 2, 3, 1)),
      (error) => {
        assert.ok(error instanceof NativeError && error.status === AIRK_INVALID);
        assert.match(error.message, new RegExp(`ids\\[1\\] is ${id}, required is 0 to 2`));
        return true;
      },
    );
    arena.check();
  });
}
