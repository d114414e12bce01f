import assert from "node:assert/strict";
import { NativeError } from "../../lib/errors.ts";
import type { DeltaRuleInput } from "../../lib/ffi/ops.ts";
import { layOut, PASSES, place, REFUSED } from "./recurrent_pass.ts";
import { Arena, assertClose, assertSameBits, eachIsa, random } from "./reference.ts";

interface Heads {
  keyHeads: number;
  valueHeads: number;
  keyDim: number;
  valueDim: number;
  keyHeadsTakeTurns?: boolean;
}

const HEADS: Heads[] = [
  { keyHeads: 1, valueHeads: 1, keyDim: 1, valueDim: 1 },
  { keyHeads: 2, valueHeads: 4, keyDim: 20, valueDim: 33 },
  { keyHeads: 1, valueHeads: 2, keyDim: 128, valueDim: 128 },
  { keyHeads: 1, valueHeads: 1, keyDim: 200, valueDim: 70 },
  { keyHeads: 2, valueHeads: 6, keyDim: 20, valueDim: 33, keyHeadsTakeTurns: true },
];

/** Keys of unit length and decays below 1, as models have them: else the state grows without bounds. */
function inputs(arena: Arena, heads: Heads, tokens: number, between: number, seed: number) {
  const { keyHeads, valueHeads, keyDim, valueDim } = heads, numbers = random(seed);
  const qStride = keyHeads * keyDim + between, kStride = qStride + 1, vStride = valueHeads * valueDim + between;
  const unit = (stride: number) => numbers.floats((tokens - 1) * stride + keyHeads * keyDim, 1 / Math.sqrt(keyDim));
  const q = arena.f32(unit(qStride), "q"), k = arena.f32(unit(kStride), "k");
  const v = arena.f32(numbers.floats((tokens - 1) * vStride + valueHeads * valueDim), "v");
  const logDecay = arena.f32(numbers.floats(tokens * valueHeads).map((x) => -Math.abs(x) / 4), "logDecay");
  const beta = arena.f32(numbers.floats(tokens * valueHeads).map((x) => 1 / (1 + Math.exp(-x))), "beta");
  const input: DeltaRuleInput = {
    q: q.address,
    qStride,
    k: k.address,
    kStride,
    v: v.address,
    vStride,
    logDecay: logDecay.address,
    beta: beta.address,
    ...heads,
    scale: 1 / Math.sqrt(keyDim),
  };
  return { input, q: q.data, k: k.data, v: v.data, logDecay: logDecay.data, beta: beta.data };
}

/** The rule itself, and gated linear attention, of which Mamba 2 adds its values to the answers. */
const RULES = [{ corrects: true, skips: false }, { corrects: false, skips: false }, { corrects: false, skips: true }];

for (const [index, pass] of PASSES.entries()) {
  for (const [heads, { corrects, skips }] of HEADS.flatMap((heads) => RULES.map((rule) => [heads, rule] as const))) {
    const { keyHeads, valueHeads, keyDim, valueDim, keyHeadsTakeTurns } = heads;
    const rule = `${corrects ? "" : ", adding"}${skips ? ", skipping" : ""}`;
    eachIsa(`gatedDeltaRule() matches float64, pass ${index} ${JSON.stringify(heads)}${rule}, nmse<1e-11`, async (context) => {
      const { tokens, first } = layOut(pass), states = valueHeads * keyDim * valueDim;
      using arena = new Arena(context, 8 << 20);
      const given = inputs(arena, heads, tokens, 3, index), scale = Math.fround(given.input.scale);
      const skip = arena.f32(random(4).floats(valueHeads), "skip");
      const input = { ...given.input, corrects, ...skips && { skip: skip.address } };
      const y = arena.f32(tokens * valueHeads * valueDim, "y"), state = arena.f32(random(9).floats(pass.slots * states), "state");
      const expected = Float64Array.from(y.data), expectedState = Float64Array.from(state.data);
      for (const [i, { cached, tokens: own, from, to }] of pass.sequences.entries()) {
        for (let h = 0; h < valueHeads; h++) {
          const stateOf = (slot: number) => slot * states + h * keyDim * valueDim;
          if (own > 0) expectedState.copyWithin(stateOf(to), stateOf(from), stateOf(from) + keyDim * valueDim);
          const s = expectedState.subarray(stateOf(to), stateOf(to) + keyDim * valueDim);
          const keyHead = keyHeadsTakeTurns ? h % keyHeads : Math.floor(h / (valueHeads / keyHeads));
          if (cached === 0 && own > 0) s.fill(0);
          for (let t = first[i]; t < first[i] + own; t++) {
            const gate = t * valueHeads + h, decay = Math.exp(given.logDecay[gate]);
            const q = t * given.input.qStride + keyHead * keyDim, k = t * given.input.kStride + keyHead * keyDim;
            for (let j = 0; j < valueDim; j++) {
              let recalled = 0, answer = 0;
              for (let d = 0; d < keyDim; d++) recalled += (s[d * valueDim + j] *= decay) * given.k[k + d];
              const value = given.v[t * given.input.vStride + h * valueDim + j];
              const change = given.beta[gate] * (corrects ? value - recalled : value);
              for (let d = 0; d < keyDim; d++) answer += (s[d * valueDim + j] += change * given.k[k + d]) * given.q[q + d];
              expected[gate * valueDim + j] = scale * answer + (skips ? skip.data[h] * value : 0);
            }
          }
        }
      }
      const recurrent = place(arena, pass);
      await arena.run((ops) => ops.gatedDeltaRule(y.address, state.address, input, recurrent));
      const width = valueHeads * valueDim;
      const own = (values: ArrayLike<number>) =>
        pass.sequences.flatMap(({ tokens }, i) => Array.from(values).slice(first[i] * width, (first[i] + tokens) * width));
      assertClose(own(y.data), own(expected), 1e-11);
      assertClose(state.data, expectedState, 1e-11, "state");
      // Tokens of nobody.
      assert.ok(y.data.subarray(0, width).every(Number.isNaN) && y.data.subarray(-width).every(Number.isNaN));
    });
  }
}

eachIsa("gatedDeltaRule() in parts has the bits of the whole", async (context) => {
  const heads = { keyHeads: 2, valueHeads: 4, keyDim: 40, valueDim: 70 }, width = 4 * 70;
  using arena = new Arena(context);
  const { input } = inputs(arena, heads, 12, 0, 5);
  const whole = arena.f32(12 * width, "whole"), parts = arena.f32(12 * width, "parts"), state = arena.f32(4 * 40 * 70, "state");
  const slots = arena.i32([0, 0], "slots"), cuts = [[0, 12], [0, 1], [1, 2], [3, 9]];
  const tables = cuts.map(([cached, tokens]) => arena.i32([0, tokens, cached, 0], "sequences"));
  await arena.run((ops) => {
    for (const [i, [cached, tokens]] of cuts.entries()) {
      const shifted = (address: bigint, elements: number) => address + BigInt(cached * elements * 4);
      const own = {
        ...input,
        q: shifted(input.q, input.qStride),
        k: shifted(input.k, input.kStride),
        v: shifted(input.v, input.vStride),
        logDecay: shifted(input.logDecay, 4),
        beta: shifted(input.beta, 4),
      };
      const y = shifted((i === 0 ? whole : parts).address, width);
      ops.gatedDeltaRule(y, state.address, own, {
        sequences: tables[i].address,
        sequenceCount: 1,
        stateSlots: slots.address,
        slots: 1,
        tokens,
      });
    }
  });
  assertSameBits(parts.data, whole.data);
});

for (const [what, pass, message] of REFUSED) {
  eachIsa(`gatedDeltaRule() refuses ${what} and writes nothing`, async (context) => {
    using arena = new Arena(context);
    const { input } = inputs(arena, HEADS[0], 3, 0, 1), y = arena.f32(3, "y"), state = arena.f32(2, "state");
    const recurrent = place(arena, pass);
    await assert.rejects(
      arena.run((ops) => ops.gatedDeltaRule(y.address, state.address, input, recurrent)),
      (error) => error instanceof NativeError && /gated_delta_rule/.test(error.message) && message.test(error.message),
    );
    assert.ok(y.data.every(Number.isNaN) && state.data.every(Number.isNaN));
  });
}

for (
  const [change, message] of [
    [{ keyDim: 257, qStride: 257, kStride: 257 }, /key_dim is 257, required is at most 256/],
    [{ keyHeads: 3 }, /multiple of key_heads, 3/],
    [{ vStride: 0 }, /v_stride is 0, required is at least 1/],
    [{ scale: NaN }, /scale is -?nan/],
  ] as [Partial<DeltaRuleInput>, RegExp][]
) {
  eachIsa(`gatedDeltaRule() refuses ${JSON.stringify(change)}`, async (context) => {
    using arena = new Arena(context);
    const { input } = inputs(arena, { ...HEADS[0], keyHeads: 1 }, 3, 8, 1), y = arena.f32(3, "y");
    const recurrent = place(arena, PASSES[0]);
    await assert.rejects(
      arena.run((ops) => ops.gatedDeltaRule(y.address, y.address, { ...input, ...change }, recurrent)),
      (error) => error instanceof NativeError && message.test(error.message),
    );
  });
}
