/**
 * What a model with gated delta nets is stored as: its projections in the format asked for, what decides how states change more exactly.
 */
import assert from "node:assert/strict";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { openCheckpoint } from "../../lib/checkpoint/checkpoint.ts";
import { Engine } from "../../lib/engine/engine.ts";
import { Context } from "../../lib/ffi/context.ts";
import { quantizeCheckpoint } from "../../lib/shard/quantizer.ts";
import { openShards } from "../../lib/shard/reader.ts";
import { verifyShards } from "../../lib/shard/verify.ts";
import { casesOf, logitRows, relativeError } from "../engine/tiny_models.ts";
import { withTemporaryDirectory } from "../temporary_directory.ts";
import { dequantized } from "./dequantized.ts";

const FIXTURES = fileURLToPath(new URL("../fixtures/architectures/", import.meta.url));
const SOURCE = `${FIXTURES}qwen3_5_moe/base`;
/** Without experts, which rounding makes tokens choose otherwise. */
const DENSE = `${FIXTURES}qwen3_5_text/base`;

for (const [compression, leastSnr] of [["q8", 38], ["nf4", 19], ["q4o", 19]] as const) {
  Deno.test(`quantizeCheckpoint() as ${compression} of a hybrid keeps convolutions, decays and norms, and gates at 8 bits`, () =>
    withTemporaryDirectory(async (directory) => {
      const out = join(directory, "shards");
      await quantizeCheckpoint({ source: SOURCE, out, compression });
      assert.deepEqual((await verifyShards(out)).damages, []);
      const shards = await openShards(out);
      const formatOf = (name: string) => shards.tensor(`model.layers.0.${name}`).format;
      for (const name of ["in_proj_q", "in_proj_k", "in_proj_v", "in_proj_z", "out_proj"]) {
        assert.equal(formatOf(`linear_attn.${name}.weight`), compression, name);
        assert.ok(shards.tensor(`model.layers.0.linear_attn.${name}.weight`).snrDb! > leastSnr, name);
      }
      for (const name of ["in_proj_a", "in_proj_b"]) assert.equal(formatOf(`linear_attn.${name}.weight`), "q8", name);
      for (const name of ["A_log", "dt_bias", "norm.weight", "conv1d_q.weight", "conv1d_k.weight", "conv1d_v.weight"]) {
        assert.equal(formatOf(`linear_attn.${name}`), "f32", name);
      }
      assert.equal(formatOf("mlp.experts.0.up_proj.weight"), compression);
      assert.equal(formatOf("mlp.gate.weight"), "bf16");
      assert.equal(formatOf("input_layernorm.weight"), "f32");
      assert.equal(shards.tensor("model.layers.3.self_attn.gate_proj.weight").format, compression);

      using context = Context.open();
      using checkpoint = await openCheckpoint(SOURCE);
      const stored = checkpoint.tensors.get("model.language_model.layers.0.linear_attn.conv1d.weight")!;
      const bytes = new Uint8Array(stored.bytes);
      await checkpoint.read(stored, 0, bytes);
      const bits = Uint32Array.from(new Uint16Array(bytes.buffer), (half) => half << 16);
      const parts = [];
      for (const part of ["q", "k", "v"]) {
        parts.push(...await dequantized(context, shards, shards.tensor(`model.layers.0.linear_attn.conv1d_${part}.weight`)));
      }
      assert.deepEqual(parts, [...new Float32Array(bits.buffer)]);

      const reasons = Map.groupBy(shards.manifest.ignoredTensors, ({ reason }) => reason);
      assert.deepEqual([...reasons.keys()], ["images are not used"]);
    }));
}

Deno.test("a hybrid quantized as q8 gives logits near those of transformers", () =>
  withTemporaryDirectory(async (out) => {
    await quantizeCheckpoint({ source: DENSE, out, compression: "q8" });
    await using engine = await Engine.open(out, { device: "cpu", contextTokens: 64, threads: 2, logitRows: 16 });
    using sequence = engine.openSequence();
    const { promptIds, promptLogits } = casesOf(DENSE)[1];
    const [{ logits }] = await engine.pass([{ sequence, tokens: promptIds, logits: "all" }]);
    const errors = logitRows(engine, logits).map((row, i) => relativeError([row], [promptLogits[i]])).sort((a, b) => a - b);
    // Of random weights some answers are nearly nothing, of which the norm behind them makes much.
    const median = errors[Math.floor(errors.length / 2)];
    assert.ok(median > 1e-3 && median < 0.2, `${errors}`);
  }));
