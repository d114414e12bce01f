import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { inverseFrequencies, RotaryTable } from "../../lib/layers/rope.ts";
import type { RopeConfig } from "../../lib/layers/model_config.ts";
import { LLAMA } from "../../lib/models/families/llama.ts";

interface RopeCase {
  name: string;
  head_dim: number;
  max_position_embeddings: number;
  rope_parameters: Record<string, unknown>;
  seq_len: number | null;
  attention_scaling: number;
  inv_freq: number[];
}

const { cases } = JSON.parse(readFileSync(new URL("../fixtures/rope.json", import.meta.url), "utf8")) as { cases: RopeCase[] };

function configOf({ head_dim, max_position_embeddings, rope_parameters }: RopeCase): RopeConfig {
  return LLAMA.parseConfig({
    head_dim,
    max_position_embeddings,
    rope_parameters,
    hidden_size: head_dim,
    num_attention_heads: 1,
    intermediate_size: 1,
    num_hidden_layers: 1,
    vocab_size: 1,
  }).ropes[0];
}

for (const rope of cases) {
  // Powers of a base are not correctly rounded; where a result goes through several roundings, they may differ in the last bits.
  const { rope_type: type } = rope.rope_parameters;
  const stretched = type === "dynamic" && rope.seq_len! > rope.max_position_embeddings;
  const tolerance = stretched || type === "yarn" || type === "longrope" ? 3e-7 : 0;
  Deno.test(`inverseFrequencies() match transformers, ${rope.name}, relative error <= ${tolerance}`, () => {
    const frequencies = inverseFrequencies(configOf(rope), rope.seq_len ?? 1);
    const { scaling } = configOf(rope);
    assert.ok(Math.abs(("attentionFactor" in scaling ? scaling.attentionFactor : 1) - rope.attention_scaling) < 1e-12);
    assert.equal(frequencies.length, rope.inv_freq.length);
    rope.inv_freq.forEach((expected, i) => {
      const error = Math.abs(frequencies[i] - Math.fround(expected)) / expected;
      assert.ok(error <= tolerance, `element ${i}: ${frequencies[i]}, expected ${expected}`);
    });
  });
}

Deno.test("RotaryTable.fill() writes the row of a position, its angle rounded to float32, and no other", () => {
  const config = configOf(cases[0]), pairs = config.dim / 2;
  const cos = new Float32Array(3 * pairs).fill(7), sin = new Float32Array(3 * pairs).fill(7);
  new RotaryTable(config).fill(cos, sin, 1, 3001, 3002);
  const frequencies = inverseFrequencies(config, 1);
  for (let i = 0; i < pairs; i++) {
    const angle = Math.fround(3001 * frequencies[i]);
    assert.equal(cos[pairs + i], Math.fround(Math.cos(angle)));
    assert.equal(sin[pairs + i], Math.fround(Math.sin(angle)));
  }
  for (const untouched of [cos, sin]) {
    assert.ok(untouched.subarray(0, pairs).every((value) => value === 7));
    assert.ok(untouched.subarray(2 * pairs).every((value) => value === 7));
  }
});

Deno.test("RotaryTable.fill() stretches dynamic rope by each sequence's own length, also back again", () => {
  const rope = cases.find(({ name }) => name === "dynamic 2 at 8192")!;
  const config = configOf(rope), table = new RotaryTable(config), pairs = config.dim / 2;
  const row = (spanTokens: number): number[] => {
    const cos = new Float32Array(pairs), sin = new Float32Array(pairs);
    table.fill(cos, sin, 0, 100, spanTokens);
    return [...cos, ...sin];
  };
  const short = row(50), long = row(8192);
  assert.notDeepEqual(long, short);
  assert.deepEqual(row(4096), short);
  assert.deepEqual(row(8192), long);
});

Deno.test("RotaryTable.fill() multiplies cos and sin by the attention factor of YaRN, and follows LongRoPE's two lengths", () => {
  const yarn = configOf(cases.find(({ name }) => name === "yarn with its own attention factor")!);
  const fill = (config: RopeConfig, position: number, spanTokens: number): { cos: Float32Array; sin: Float32Array } => {
    const cos = new Float32Array(config.dim / 2), sin = new Float32Array(config.dim / 2);
    new RotaryTable(config).fill(cos, sin, 0, position, spanTokens);
    return { cos, sin };
  };
  assert.equal(fill(yarn, 0, 1).cos[0], 0.75);
  const turned = fill(yarn, 3, 4);
  assert.ok(turned.cos.every((cos, i) => Math.abs(Math.hypot(cos, turned.sin[i]) - 0.75) < 1e-6));

  const longrope = configOf(cases.find(({ name }) => name === "phi-3.5 longrope at 1")!);
  const at = (spanTokens: number) => fill(longrope, 100, spanTokens).sin[40];
  assert.equal(at(4096), at(101));
  assert.notEqual(at(4097), at(4096));
  assert.equal(at(131072), at(4097));
});
