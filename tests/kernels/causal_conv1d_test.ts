import assert from "node:assert/strict";
import { NativeError } from "../../lib/errors.ts";
import { layOut, PASSES, place, REFUSED } from "./recurrent_pass.ts";
import { Arena, assertClose, assertSameBits, eachIsa, random } from "./reference.ts";

const silu = (x: number) => x / (1 + Math.exp(-x));

for (const [index, pass] of PASSES.entries()) {
  for (const [cols, kernel] of [[1, 2], [17, 4], [1000, 4], [300, 16]]) {
    eachIsa(`causalConv1d() matches float64, pass ${index} cols=${cols} kernel=${kernel}, nmse<1e-12`, async (context) => {
      const numbers = random(cols + kernel), { tokens, first } = layOut(pass), history = kernel - 1;
      using arena = new Arena(context);
      const x = arena.f32(numbers.floats(tokens * cols), "x"), y = arena.f32(tokens * cols, "y");
      const weight = arena.f32(numbers.floats(cols * kernel), "weight"), bias = arena.f32(numbers.floats(cols), "bias");
      const state = arena.f32(numbers.floats(pass.slots * history * cols), "state"), input = place(arena, pass);
      const before = state.data.slice();
      for (const [biased, activation] of [[true, "silu"], [false, undefined]] as const) {
        y.data.fill(NaN);
        state.data.set(before);
        const expected = Float64Array.from(y.data), expectedState = Float32Array.from(before);
        for (const [i, { cached, tokens: own, from, to }] of pass.sequences.entries()) {
          const at = (position: number, c: number) =>
            // from `history` tokens before the pass on
            position >= history
              ? x.data[(first[i] + position - history) * cols + c]
              : cached === 0
              ? 0
              : before[(from * history + position) * cols + c];
          for (let c = 0; c < cols; c++) {
            for (let t = 0; t < own; t++) {
              let sum = biased ? bias.data[c] : 0;
              for (let j = 0; j < kernel; j++) sum += weight.data[c * kernel + j] * at(t + j, c);
              expected[(first[i] + t) * cols + c] = activation ? silu(sum) : sum;
            }
            for (let j = 0; own > 0 && j < history; j++) expectedState[(to * history + j) * cols + c] = at(own + j, c);
          }
        }
        await arena.run((ops) =>
          ops.causalConv1d(
            y.address,
            x.address,
            weight.address,
            biased ? bias.address : 0n,
            state.address,
            input,
            cols,
            kernel,
            activation,
          )
        );
        const own = (values: ArrayLike<number>) =>
          pass.sequences.flatMap(({ tokens }, i) => Array.from(values).slice(first[i] * cols, (first[i] + tokens) * cols));
        assertClose(own(y.data), own(expected), 1e-12);
        // Tokens of nobody.
        assert.ok(y.data.subarray(0, cols).every(Number.isNaN) && y.data.subarray(-cols).every(Number.isNaN));
        assertSameBits(state.data, expectedState, "state");
      }
    });
  }
}

eachIsa("causalConv1d() in parts has the bits of the whole", async (context) => {
  const cols = 40, kernel = 4, numbers = random(3);
  using arena = new Arena(context);
  const x = arena.f32(numbers.floats(12 * cols), "x"),
    whole = arena.f32(12 * cols, "whole"),
    parts = arena.f32(12 * cols, "parts");
  const weight = arena.f32(numbers.floats(cols * kernel), "weight"), state = arena.f32((kernel - 1) * cols, "state");
  const slots = arena.i32([0, 0], "slots");
  const cuts = [[0, 12], [0, 1], [1, 2], [3, 9]];
  const tables = cuts.map(([cached, tokens]) => arena.i32([0, tokens, cached, 0], "sequences"));
  await arena.run((ops) => {
    for (const [i, [cached, tokens]] of cuts.entries()) {
      const offset = BigInt(cached * cols * 4), y = (i === 0 ? whole : parts).address + offset;
      const input = { sequences: tables[i].address, sequenceCount: 1, stateSlots: slots.address, slots: 1, tokens };
      ops.causalConv1d(y, x.address + offset, weight.address, 0n, state.address, input, cols, kernel, "silu");
    }
  });
  assertSameBits(parts.data, whole.data);
});

for (const [what, pass, message] of REFUSED) {
  eachIsa(`causalConv1d() refuses ${what} and writes nothing`, async (context) => {
    using arena = new Arena(context);
    const x = arena.f32(random(1).floats(12), "x"),
      y = arena.f32(12, "y"),
      state = arena.f32(12, "state"),
      input = place(arena, pass);
    await assert.rejects(
      arena.run((ops) => ops.causalConv1d(y.address, x.address, x.address, 0n, state.address, input, 2, 3, undefined)),
      (error) => error instanceof NativeError && /causal_conv1d/.test(error.message) && message.test(error.message),
    );
    assert.ok(y.data.every(Number.isNaN) && state.data.every(Number.isNaN));
  });
}
