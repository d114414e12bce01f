import { Arena, assertClose, eachIsa } from "./reference.ts";

/** What transformers gives: scripts/model/make_recurrent_fixtures.py. */
interface Fixture {
  shapes: {
    tokens: number;
    key_heads: number;
    value_heads: number;
    key_dim: number;
    value_dim: number;
    cols: number;
    kernel: number;
  };
  delta_rule: Record<
    "query" | "key" | "value" | "a" | "b" | "a_log" | "dt_bias" | "before" | "answers" | "after",
    number[]
  >;
  convolution: Record<"x" | "weight" | "y", number[]>;
}

const { shapes, delta_rule, convolution }: Fixture = JSON.parse(
  Deno.readTextFileSync(new URL("../fixtures/recurrent.json", import.meta.url)),
);
const { tokens, key_heads: keyHeads, value_heads: valueHeads, key_dim: keyDim, value_dim: valueDim, cols, kernel } = shapes;

/** One sequence in state 0. */
function oneSequence(arena: Arena, cached: number) {
  const sequences = arena.i32([0, tokens, cached, 0], "sequences").address, stateSlots = arena.i32([0, 0], "stateSlots").address;
  return { sequences, sequenceCount: 1, stateSlots, slots: 1, tokens };
}

eachIsa(
  "l2norm(), logDecay(), gated() and gatedDeltaRule() give transformers' Qwen3-Next answers and state, nmse<1e-12",
  async (context) => {
    using arena = new Arena(context);
    const place = (name: keyof Fixture["delta_rule"]) => arena.f32(delta_rule[name], name);
    const q = place("query"), k = place("key"), v = place("value"), a = place("a"), b = place("b"), state = place("before");
    const aLog = place("a_log"), dtBias = place("dt_bias"), y = arena.f32(tokens * valueHeads * valueDim, "y");
    const input = oneSequence(arena, 5);
    await arena.run((ops) => {
      for (const x of [q, k]) ops.l2norm(x.address, x.address, tokens * keyHeads, keyDim, 1e-6);
      ops.logDecay(a.address, a.address, aLog.address, dtBias.address, tokens, valueHeads);
      ops.gated(b.address, b.address, 0n, tokens * valueHeads, "sigmoid");
      ops.gatedDeltaRule(y.address, state.address, {
        q: q.address,
        qStride: keyHeads * keyDim,
        k: k.address,
        kStride: keyHeads * keyDim,
        v: v.address,
        vStride: valueHeads * valueDim,
        logDecay: a.address,
        beta: b.address,
        keyHeads,
        valueHeads,
        keyDim,
        valueDim,
        scale: 1 / Math.sqrt(keyDim),
      }, input);
    });
    assertClose(y.data, delta_rule.answers, 1e-12);
    assertClose(state.data, delta_rule.after, 1e-12, "state");
  },
);

eachIsa("causalConv1d() gives transformers' Qwen3-Next convolution of a sequence from its start, nmse<1e-12", async (context) => {
  using arena = new Arena(context);
  const x = arena.f32(convolution.x, "x"), weight = arena.f32(convolution.weight, "weight"), y = arena.f32(tokens * cols, "y");
  const state = arena.f32((kernel - 1) * cols, "state"), input = oneSequence(arena, 0);
  await arena.run((ops) =>
    ops.causalConv1d(y.address, x.address, weight.address, 0n, state.address, input, cols, kernel, "silu")
  );
  assertClose(y.data, convolution.y, 1e-12);
});
