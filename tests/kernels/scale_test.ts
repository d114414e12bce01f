import assert from "node:assert/strict";
import { NativeError } from "../../lib/errors.ts";
import { Arena, assertClose, assertSameBits, eachIsa, random } from "./reference.ts";

for (const count of [1, 3, 17, 255, 4095, 100_003]) {
  eachIsa(`scale() is exact without a soft cap and matches float64 with one, count=${count}, nmse<1e-13`, async (context) => {
    const numbers = random(count);
    using arena = new Arena(context);
    const x = arena.f32(numbers.floats(count, 20), "x");
    const y = arena.f32(count, "y");
    const factor = Math.fround(0.37);
    await arena.run((ops) => ops.scale(y.address, x.address, count, factor));
    assertSameBits(y.data, x.data.map((v) => Math.fround(factor * v)));
    const capped = Float64Array.from(x.data, (v) => 30 * Math.tanh(factor * v / 30));
    await arena.run((ops) => ops.scale(y.address, x.address, count, factor, 30));
    assertClose(y.data, capped, 1e-13);
    await arena.run((ops) => ops.scale(x.address, x.address, count, factor, 30));
    assertClose(x.data, capped, 1e-13, "in place");
  });
}

eachIsa("scale() refuses a soft cap below 0 and one that is not finite", async (context) => {
  using arena = new Arena(context);
  const x = arena.f32([1], "x");
  for (const softcap of [-1, NaN, Infinity]) {
    await assert.rejects(
      arena.run((ops) => ops.scale(x.address, x.address, 1, 1, softcap)),
      (error) => error instanceof NativeError && /softcap is/.test(error.message),
    );
  }
});
