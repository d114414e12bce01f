import assert from "node:assert/strict";
import { Arena, assertClose, eachIsa, random } from "./reference.ts";

const silu = (x: number) => x / (1 + Math.exp(-x));

for (const count of [1, 3, 17, 255, 4095, 100_003]) {
  eachIsa(`swiglu() matches float64, count=${count}, nmse<1e-13`, async (context) => {
    const numbers = random(count);
    using arena = new Arena(context);
    const gate = arena.f32(numbers.floats(count, 4), "gate");
    const up = arena.f32(numbers.floats(count), "up");
    const y = arena.f32(count, "y");
    const expected = Float64Array.from(gate.data, (g, i) => silu(g) * up.data[i]);
    await arena.run((ops) => ops.swiglu(y.address, gate.address, up.address, count));
    assertClose(y.data, expected, 1e-13);
    await arena.run((ops) => ops.swiglu(gate.address, gate.address, up.address, count));
    assertClose(gate.data, expected, 1e-13, "in place");
  });
}

eachIsa("swiglu() is right at every size of argument, relative error < 1e-6", async (context) => {
  const values = Array.from({ length: 4001 }, (_, i) => Math.fround((i - 2000) / 20));
  using arena = new Arena(context);
  const gate = arena.f32(values, "gate");
  const up = arena.f32(values.map(() => 1), "up");
  const y = arena.f32(values.length, "y");
  await arena.run((ops) => ops.swiglu(y.address, gate.address, up.address, values.length));
  for (const [i, x] of values.entries()) {
    const expected = silu(x);
    // Beyond -88 the exponential overflows float32 and the result, below 1e-36, is 0.
    const error = Math.abs(y.data[i] - expected) / Math.max(Math.abs(expected), 1e-30);
    assert.ok(error < 1e-6, `silu(${x}) is ${y.data[i]}, expected ${expected}`);
  }
});

eachIsa("swiglu() handles NaN and infinities", async (context) => {
  using arena = new Arena(context);
  const gate = arena.f32([NaN, Infinity, -200, 200, 0], "gate");
  const up = arena.f32([1, 1, 1, 1, 1], "up");
  await arena.run((ops) => ops.swiglu(gate.address, gate.address, up.address, 5));
  assert.deepEqual(Array.from(gate.data, (v) => v + 0), [NaN, Infinity, 0, 200, 0]);
});
