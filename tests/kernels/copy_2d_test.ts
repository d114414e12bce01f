import assert from "node:assert/strict";
import { NativeError } from "../../lib/errors.ts";
import { Arena, assertSameBits, eachIsa, random } from "./reference.ts";

for (
  const [rows, cols, yStride, xStride] of [[1, 1, 1, 1], [3, 2, 5, 2], [17, 255, 255, 300], [64, 576, 600, 577], [1, 40, 0, 7]]
) {
  eachIsa(
    `copy2d() is exact and keeps what lies between, rows=${rows} cols=${cols} strides=${yStride},${xStride}`,
    async (context) => {
      using arena = new Arena(context);
      const numbers = random(rows);
      const x = arena.f32(numbers.floats((rows - 1) * xStride + cols), "x");
      const y = arena.f32(numbers.floats((rows - 1) * yStride + cols), "y");
      const expected = y.data.slice();
      for (let r = 0; r < rows; r++) expected.set(x.data.subarray(r * xStride, r * xStride + cols), r * yStride);
      await arena.run((ops) => ops.copy2d(y.address, yStride, x.address, xStride, rows, cols));
      assertSameBits(y.data, expected);
    },
  );
}

for (
  const [what, yStride, xStride, shift, message] of [
    ["a y_stride below cols", 2, 3, 40n, /y_stride is 2, required is at least 3/],
    ["an x_stride below cols", 3, 2, 40n, /x_stride is 2, required is at least 3/],
    ["an overlap", 3, 3, 20n, /`y` overlaps `x`/],
  ] as [string, number, number, bigint, RegExp][]
) {
  eachIsa(`copy2d() refuses ${what}`, async (context) => {
    using arena = new Arena(context);
    const x = arena.f32(random(1).floats(100), "x");
    await assert.rejects(
      arena.run((ops) => ops.copy2d(x.address + shift, yStride, x.address, xStride, 2, 3)),
      (error) => error instanceof NativeError && message.test(error.message),
    );
  });
}
