import assert from "node:assert/strict";
import { Arena, assertClose, eachIsa, random } from "./reference.ts";

const logDecay = (x: number, aLog: number, bias: number) => {
  const v = Math.fround(x + bias);
  return -Math.exp(aLog) * (Math.max(v, 0) + Math.log1p(Math.exp(-Math.abs(v))));
};

for (const [rows, cols] of [[1, 1], [3, 17], [64, 32], [5, 1000]]) {
  eachIsa(`logDecay() matches float64, rows=${rows} cols=${cols}, nmse<1e-12`, async (context) => {
    const numbers = random(rows + cols);
    using arena = new Arena(context);
    const x = arena.f32(numbers.floats(rows * cols, 20), "x"), y = arena.f32(rows * cols, "y");
    const aLog = arena.f32(numbers.floats(cols), "aLog"), bias = arena.f32(numbers.floats(cols), "bias");
    const expected = Float64Array.from(x.data, (v, i) => logDecay(v, aLog.data[i % cols], bias.data[i % cols]));
    await arena.run((ops) => ops.logDecay(y.address, x.address, aLog.address, bias.address, rows, cols));
    assertClose(y.data, expected, 1e-12);
    await arena.run((ops) => ops.logDecay(x.address, x.address, aLog.address, bias.address, rows, cols));
    assertClose(x.data, expected, 1e-12, "in place");
  });
}

eachIsa("logDecay() is right where exp overflows and where it vanishes, and keeps NaN", async (context) => {
  const values = [-200, -90, -40, -1e-8, 0, 1e-8, 40, 90, 200, 1e30, NaN];
  using arena = new Arena(context);
  const x = arena.f32(values, "x"), zero = arena.f32([0], "zero");
  await arena.run((ops) => ops.logDecay(x.address, x.address, zero.address, zero.address, values.length, 1));
  for (const [i, value] of values.entries()) {
    const expected = logDecay(value, 0, 0);
    if (Number.isNaN(value)) assert.ok(Number.isNaN(x.data[i]));
    else {assert.ok(
        Math.abs(x.data[i] - expected) <= 2e-7 * Math.abs(expected) + 1e-37,
        `${value}: ${x.data[i]}, expected ${expected}`,
      );}
  }
});
