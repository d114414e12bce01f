import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { byExpert, route, type RouterConfig } from "../../lib/layers/router.ts";

interface Case {
  logits: number[];
  correction: number[] | null;
  experts: number[][];
  weights: number[][];
}
const fixture: { numExperts: number; cases: Record<string, Case> } = JSON.parse(
  readFileSync(new URL("../fixtures/routers.json", import.meta.url), "utf8"),
);

const plain = { numExperts: fixture.numExperts, topK: 4, normalize: false, normalizeEpsilon: 0, scale: 1, scalesInput: false };
const groups = { count: 4, kept: 2 };
const ROUTERS: Record<string, RouterConfig> = {
  mixtral: { ...plain, score: "softmax", normalize: true },
  qwen2_moe: { ...plain, score: "softmax" },
  qwen3_moe: { ...plain, score: "softmax", normalize: true },
  granitemoe: { ...plain, score: "topk_softmax" },
  gpt_oss: { ...plain, score: "topk_softmax" },
  deepseek_v2_greedy: { ...plain, score: "softmax" },
  deepseek_v2_groups: { ...plain, score: "softmax", scale: 16, groups: { ...groups, score: "max" } },
  deepseek_v3: {
    ...{ ...plain, score: "sigmoid", normalize: true, normalizeEpsilon: 1e-20, scale: 2.5 },
    groups: { ...groups, score: "top2" },
  },
  glm4_moe: { ...plain, score: "sigmoid", normalize: true, normalizeEpsilon: 1e-20, scale: 1.5 },
  llama4: { ...plain, topK: 1, score: "topk_sigmoid", scalesInput: true },
  ernie4_5_moe: { ...plain, score: "softmax", normalize: true, normalizeLeast: 0.7 },
  phimoe: { ...plain, topK: 2, score: "sparsemixer", jitter: 0.25 },
  mistral4: {
    ...{ ...plain, score: "softmax", normalize: true, normalizeEpsilon: 1e-20, scale: 1.5 },
    groups: { ...groups, score: "top2" },
  },
};

Deno.test("every router of the fixtures has a test", () => {
  assert.deepEqual(Object.keys(fixture.cases).sort(), Object.keys(ROUTERS).sort());
});

for (const [name, config] of Object.entries(ROUTERS)) {
  Deno.test(`route() chooses as transformers' ${name} router, weights within 1e-6 relative`, () => {
    const { logits, correction, experts, weights } = fixture.cases[name];
    const routing = route(
      config,
      Float32Array.from(logits),
      experts.length,
      correction ? { correction: Float32Array.from(correction) } : {},
    );
    assert.deepEqual([...routing.experts], experts.flat());
    weights.flat().forEach((weight, i) => {
      assert.ok(Math.abs(routing.weights[i] - weight) <= 1e-6 * weight, `${routing.weights[i]} for ${weight}`);
    });
  });
}

Deno.test("route() gives the first of equal experts, and as many as asked for even where all are equal", () => {
  const routing = route({ ...ROUTERS.qwen2_moe, numExperts: 6, topK: 3 }, new Float32Array(6), 1);
  assert.deepEqual([...routing.experts], [0, 1, 2]);
});

Deno.test("byExpert() lists each expert once, ascending, with the routing's entries in order", () => {
  const routing = { experts: Int32Array.of(1, 5, 0, 5, 1, 2), weights: new Float32Array(6) };
  assert.deepEqual(byExpert(routing), [
    { expert: 0, entries: [2] },
    { expert: 1, entries: [0, 4] },
    { expert: 2, entries: [5] },
    { expert: 5, entries: [1, 3] },
  ]);
});
