import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { inverseFrequencies, RotaryTable } from "../../lib/layers/rope.ts";
import type { RopeConfig } from "../../lib/layers/model_config.ts";
import { LLAMA } from "../../lib/models/llama.ts";

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
  // transformers' dynamic base goes through a power that is not correctly rounded; all else agrees to the last bit.
  const tolerance = rope.rope_parameters.rope_type === "dynamic" && rope.seq_len! > rope.max_position_embeddings ? 3e-7 : 0;
  Deno.test(`inverseFrequencies() match transformers, ${rope.name}, relative error <= ${tolerance}`, () => {
    const frequencies = inverseFrequencies(configOf(rope), rope.seq_len ?? 1);
    assert.equal(rope.attention_scaling, 1);
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
