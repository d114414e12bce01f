import assert from "node:assert/strict";
import { NativeError } from "../../lib/errors.ts";
import type { Activation } from "../../lib/ffi/ops.ts";
import { Arena, assertClose, eachIsa, random } from "./reference.ts";

/** erfc in float64 (positive side by its continued fraction, near 0 by its series), to 1e-15 of itself. */
function erfc(x: number): number {
  if (x < 0) return 2 - erfc(-x);
  if (x < 2) {
    let term = x, sum = x;
    for (let n = 1; Math.abs(term) > 1e-18; n++) {
      term *= -x * x / n;
      sum += term / (2 * n + 1);
    }
    return 1 - 2 / Math.sqrt(Math.PI) * sum;
  }
  let fraction = 0;
  for (let k = 120; k > 0; k--) fraction = k / 2 / (x + fraction);
  return Math.exp(-x * x) / ((x + fraction) * Math.sqrt(Math.PI));
}

const sigmoid = (x: number) => 1 / (1 + Math.exp(-x));
const relu = (x: number) => Math.max(x, 0);

const PLAIN: Record<Exclude<Activation, "swiglu_oai">, (x: number) => number> = {
  silu: (x) => x * sigmoid(x),
  gelu: (x) => 0.5 * x * erfc(-x / Math.SQRT2),
  gelu_tanh: (x) => x * sigmoid(2 * Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3)),
  relu,
  relu2: (x) => relu(x) ** 2,
  sigmoid,
  tanh: Math.tanh,
};

const GATED: Record<Activation, (gate: number, up: number) => number> = {
  ...Object.fromEntries(
    Object.entries(PLAIN).map(([name, f]) => [name, (gate: number, up: number) => f(gate) * up]),
  ) as Record<keyof typeof PLAIN, (gate: number, up: number) => number>,
  swiglu_oai(gate, up) {
    const g = Math.min(gate, 7), u = Math.min(Math.max(up, -7), 7);
    return g * sigmoid(1.702 * g) * (u + 1);
  },
};

for (const activation of Object.keys(GATED) as Activation[]) {
  for (const count of activation === "silu" ? [1, 3, 17, 255, 4095, 100_003] : [1, 3, 17, 4095]) {
    eachIsa(`gated() ${activation} matches float64, count=${count}, nmse<1e-13`, async (context) => {
      const numbers = random(count);
      using arena = new Arena(context);
      const gate = arena.f32(numbers.floats(count, 4), "gate");
      const up = arena.f32(numbers.floats(count, 4), "up");
      const y = arena.f32(count, "y");
      const expected = Float64Array.from(gate.data, (g, i) => GATED[activation](g, up.data[i]));
      await arena.run((ops) => ops.gated(y.address, gate.address, up.address, count, activation));
      assertClose(y.data, expected, 1e-13);
      if (activation !== "swiglu_oai") {
        const alone = Float64Array.from(gate.data, PLAIN[activation]);
        await arena.run((ops) => ops.gated(y.address, gate.address, 0n, count, activation));
        assertClose(y.data, alone, 1e-13, "without up");
      }
      await arena.run((ops) => ops.gated(gate.address, gate.address, up.address, count, activation));
      assertClose(gate.data, expected, 1e-13, "in place");
    });
  }
}

for (const activation of Object.keys(PLAIN) as (keyof typeof PLAIN)[]) {
  // The exponential of a large argument carries that argument's rounding: 2^-24 of 50 and more.
  const bound = activation.startsWith("gelu") ? 3e-5 : 1e-6;
  eachIsa(`gated() ${activation} is right at every size of argument, relative error < ${bound}`, async (context) => {
    const values = Array.from({ length: 4001 }, (_, i) => Math.fround((i - 2000) / 20));
    for (let exponent = -40; exponent < 0; exponent++) values.push(2 ** exponent, -(2 ** exponent) * 1.3);
    const finite = values.filter((x) => !activation.startsWith("gelu") || x > -12).map(Math.fround);
    using arena = new Arena(context);
    const gate = arena.f32(finite, "gate");
    const y = arena.f32(finite.length, "y");
    await arena.run((ops) => ops.gated(y.address, gate.address, 0n, finite.length, activation));
    for (const [i, x] of finite.entries()) {
      const expected = PLAIN[activation](x);
      // Beyond -88 the exponential overflows float32 and silu, below 1e-36, is 0.
      const error = Math.abs(y.data[i] - expected) / Math.max(Math.abs(expected), 1e-30);
      assert.ok(error < bound, `${activation}(${x}) is ${y.data[i]}, expected ${expected}`);
    }
  });

  eachIsa(`gated() ${activation} handles NaN and infinities`, async (context) => {
    using arena = new Arena(context);
    const gate = arena.f32([NaN, Infinity, -200, 200, 0], "gate");
    await arena.run((ops) => ops.gated(gate.address, gate.address, 0n, 5, activation));
    const expected = [NaN, Infinity, -200, 200, 0].map((x) => Math.fround(PLAIN[activation](x)));
    assert.deepEqual(Array.from(gate.data, (v) => v + 0), expected.map((v) => (Math.abs(v) < 1e-40 ? 0 : v) + 0));
  });
}

eachIsa("gated() swiglu_oai clamps both sides and keeps NaN", async (context) => {
  using arena = new Arena(context);
  const gate = arena.f32([NaN, 1, 100, 1, 1, -100], "gate"), up = arena.f32([1, NaN, 1, 100, -100, 1], "up");
  await arena.run((ops) => ops.gated(gate.address, gate.address, up.address, 6, "swiglu_oai"));
  assert.ok(Number.isNaN(gate.data[0]) && Number.isNaN(gate.data[1]));
  const expected = [[7, 1], [1, 7], [1, -7], [-100, 1]].map(([g, u]) => GATED.swiglu_oai(g, u));
  assertClose(gate.data.slice(2), expected, 1e-12);
});

eachIsa("gated() without an activation multiplies, to the bit, and needs up", async (context) => {
  using arena = new Arena(context);
  const gate = arena.f32(random(1).floats(70), "gate"), up = arena.f32(random(2).floats(70), "up"), y = arena.f32(70, "y");
  await arena.run((ops) => ops.gated(y.address, gate.address, up.address, 70, undefined));
  assert.deepEqual(y.data, gate.data.map((value, i) => value * up.data[i]));
  await assert.rejects(
    arena.run((ops) => ops.gated(y.address, gate.address, 0n, 70, undefined)),
    (error) => error instanceof NativeError && /`up` is null, activation -1 requires a tensor/.test(error.message),
  );
});

eachIsa("gated() refuses swiglu_oai without up", (context) => {
  using arena = new Arena(context);
  const gate = arena.f32([1], "gate");
  return assert.rejects(
    arena.run((ops) => ops.gated(gate.address, gate.address, 0n, 1, "swiglu_oai")),
    (error) => error instanceof NativeError && /`up` is null/.test(error.message),
  );
});
