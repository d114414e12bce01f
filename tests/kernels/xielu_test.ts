import assert from "node:assert/strict";
import { Arena, assertClose, eachIsa, random } from "./reference.ts";

const f32 = Math.fround;

/** Its parameters as Apertus stores them in bfloat16: a factor of 0.8 above 0 and of 0.3 + beta below, and others. */
const PARAMETERS = [[0.203125, -1.046875, 0.5, -9.98378e-7], [3.5, -4, 0.25, -1e-3], [30, 25, 0, -0.5]].map((list) =>
  list.map(f32)
);

const softplus = (v: number) => Math.max(v, 0) + Math.log1p(Math.exp(-Math.abs(v)));

function reference(x: number, [alphaP, alphaN, beta, eps]: readonly number[]): number {
  return (x > 0 ? softplus(alphaP) * x * x : (beta + softplus(alphaN)) * (Math.expm1(Math.min(x, eps)) - x)) + beta * x;
}

for (const [index, parameters] of PARAMETERS.entries()) {
  for (const count of [1, 3, 17, 255, 4095, 100_003]) {
    eachIsa(`xielu() matches float64, parameters ${index}, count=${count}, nmse<1e-12`, async (context) => {
      using arena = new Arena(context);
      const x = arena.f32(random(count).floats(count, 6), "x"), y = arena.f32(count, "y");
      const [alphaP, alphaN, beta, eps] = parameters.map((value, i) => arena.f32([value], `parameter ${i}`).address);
      if (count > 9) x.data.set([0, -0, 1e-8, -1e-8, -1e-3, -0.34, -90, 1e10, -1e10]);
      const expected = Float64Array.from(x.data, (v) => reference(v, parameters));
      await arena.run((ops) => ops.xielu(y.address, x.address, { alphaP, alphaN, beta, eps }, count));
      // Below 0 two terms of the size of x may cancel.
      const negative = 1 + parameters[2] + softplus(parameters[1]);
      y.data.forEach((value, i) => {
        const most = 4e-7 * (Math.abs(expected[i]) + negative * Math.abs(x.data[i]));
        assert.ok(Math.abs(value - expected[i]) <= most, `x ${x.data[i]}: ${value}, required ${expected[i]}`);
      });
      assertClose(y.data, expected, 1e-12);
      await arena.run((ops) => ops.xielu(x.address, x.address, { alphaP, alphaN, beta, eps }, count));
      assertClose(x.data, expected, 1e-12, "in place");
    });
  }
}

eachIsa("xielu() keeps NaN", async (context) => {
  using arena = new Arena(context);
  const x = arena.f32([NaN, 1], "x");
  const [alphaP, alphaN, beta, eps] = PARAMETERS[0].map((value, i) => arena.f32([value], `parameter ${i}`).address);
  await arena.run((ops) => ops.xielu(x.address, x.address, { alphaP, alphaN, beta, eps }, 2));
  assert.ok(Number.isNaN(x.data[0]) && !Number.isNaN(x.data[1]));
});
