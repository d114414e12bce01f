import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { readdirSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { openModelShards } from "../../lib/auto_model.ts";
import { Context } from "../../lib/ffi/context.ts";
import type { Engine } from "../../lib/engine/engine.ts";
import { type Compression, paddedBytes } from "../../lib/shard/manifest.ts";
import { quantizeCheckpoint } from "../../lib/shard/quantizer.ts";
import { openShards } from "../../lib/shard/reader.ts";
import { expectedOf, greedy, logitRows, openExact, relativeError } from "../engine/tiny_models.ts";
import { TEST_KIND } from "../kernels/reference.ts";
import { dequantized, snrDb } from "../shard/dequantized.ts";
import { withTemporaryDirectory } from "../temporary_directory.ts";

const FIXTURES = fileURLToPath(new URL("../fixtures/encodings/", import.meta.url));

/** The fixtures, and the formats that their linear layers are kept in. */
const CHECKPOINTS: Record<string, string[]> = {
  bnb_nf4: ["bnb4-64x256-bf16"],
  bnb_fp4: ["bnb4-128-f16"],
  bnb_nf4_float32: ["bnb4-32x256-f32"],
  bnb_fp4_nested: ["bnb4-64x256-bf16"],
  llm_int8: ["int8-row-scb"],
  fp8_blocks: ["fp8-128x128"],
  fp8_tensor: ["fp8-1xrow"],
  fp8_powers: ["fp8-32x32"],
  mxfp8: ["fp8-1x32"],
  auto_fp8: ["fp8-1xrow"],
  fbgemm_fp8: ["bf16", "fp8-1xrow"],
  ct_int4: ["int4-32-bf16"],
  ct_int4_zero: ["int4-32-f16-zero"],
  ct_int8_packed: ["int8-row-bf16-zero"],
  ct_int8: ["int8-row-f32"],
  ct_fp8_channel: ["fp8-1xrow"],
  ct_fp8_tensor: ["fp8-1xrow"],
  ct_nvfp4: ["nvfp4"],
  ct_mxfp4: ["mxfp4"],
  ct_int2: ["int4-32-bf16-zero"],
  ct_int3: ["int4-32-bf16"],
  ct_int6: ["int8-row-f16-zero"],
  ct_int4_order: ["int4-32-bf16-order"],
  ct_fp8_group: ["fp8-1x32"],
  ct_mxfp8: ["fp8-1x32"],
  ct_mixed: ["fp8-1xrow", "int4-32-bf16", "int4-row-bf16-zero", "int8-row-bf16"],
  modelopt_fp8: ["fp8-1xrow"],
  modelopt_fp8_channel: ["fp8-1xrow"],
  modelopt_fp8_blocks: ["fp8-128x128"],
  modelopt_nvfp4: ["nvfp4-product"],
  modelopt_mxfp4: ["mxfp4"],
  modelopt_mxfp8: ["fp8-1x32"],
  modelopt_mixed: ["bf16", "fp8-1xrow", "nvfp4-product"],
  quark_fp8: ["fp8-1xrow"],
  quark_mxfp4: ["mxfp4"],
  gptq_int4: ["int4-32-f16-zero"],
  gptq_int4_zero: ["int4-row-f16-zero", "int4-64-f16-zero"],
  gptq_int4_borrow: ["int4-row-f16-zero", "int4-128-f16-zero-order"],
  gptq_int4_v2: ["int4-row-f16-zero"],
  gptq_act_order: ["int4-32-f16-zero-order"],
  gptq_int8: ["int8-row-f16-zero", "int8-128-f16-zero"],
  gptq_int8_v2: ["int8-row-f16-zero"],
  gptq_int8_act_order: ["int8-row-f16-zero", "int8-64-f16-zero-order"],
  awq: ["int4-32-f16-zero"],
  awq_64: ["int4-row-f16-zero", "int4-64-f16-zero"],
  awq_128: ["int4-row-f16-zero", "int4-128-f16-zero"],
  awq_row: ["int4-row-f16-zero"],
  gptq_int2: ["int4-32-f16-zero"],
  gptq_int3: ["int4-32-f16-zero"],
  gptq_int3_act_order: ["int4-64-f16-zero-order", "int4-row-f16-zero"],
  gptq_int3_v2: ["int4-128-f16-zero", "int4-row-f16-zero"],
  gptq_dynamic: ["f16", "int4-32-f16-zero", "int4-32-f16-zero-order", "int8-64-f16-zero"],
  awq_gemv: ["int4-32-f16-zero"],
  awq_gemv_64: ["int4-row-f16-zero", "int4-64-f16-zero"],
  auto_round: ["int4-32-f16-zero"],
  auto_round_zero: ["int4-32-f16-zero"],
  auto_round_int2: ["int4-32-f16-zero"],
  auto_round_int5: ["int8-32-f16-zero"],
  auto_round_awq: ["int4-32-f16-zero"],
  auto_round_mixed: ["f16", "int4-32-f16-zero", "int8-row-f16-zero"],
};

Deno.test("every fixture of an encoding is tested, as a checkpoint or as stacks of experts", () => {
  const checkpoints = readdirSync(FIXTURES).filter((name) => !name.endsWith("_experts"));
  assert.deepEqual(checkpoints.sort(), Object.keys(CHECKPOINTS).sort());
});

interface ExpectedTensor {
  shape: [number, number];
  sha256: string;
  first: number[];
}

function expectedTensors(name: string): Record<string, ExpectedTensor> {
  return JSON.parse(readFileSync(`${FIXTURES}${name}/expected.json`, "utf8")).tensors;
}

async function quantize(name: string, out: string, compression: Compression): Promise<void> {
  await quantizeCheckpoint({ source: FIXTURES + name, out, compression });
}

/** Whether the device that AIRKERN_TEST_KIND names has memory of its own; tests/device streams there. */
const DEVICE_MEMORY = TEST_KIND !== "cpu";

/** Checks that a pass reads each of the layers' extents as it is stored, once. */
async function readsWhatIsPacked(engine: Engine, directory: string): Promise<void> {
  const { manifest } = await openShards(directory);
  const stored = manifest.tensors.filter(({ rows, name }) => rows > 1 && name !== "model.embed_tokens.weight")
    .flatMap(({ extents }) => extents).reduce((sum, { bytes }) => sum + paddedBytes(bytes), 0);
  assert.equal(engine.plan.streamedBytesPerPass, stored);
  const { bytesRead, passes } = engine.statistics;
  assert.ok(bytesRead >= stored * passes, `${bytesRead} bytes in ${passes} passes of ${stored}`);
}

for (const [name, formats] of Object.entries(CHECKPOINTS)) {
  Deno.test(`${name} is kept packed, as ${formats.join(" and ")}, and dequantizes to the library's own values, bit for bit`, () =>
    withTemporaryDirectory(async (directory) => {
      await quantize(name, directory, "none");
      const shards = await openShards(directory);
      using context = Context.open();
      const found = new Set<string>();
      for (const [tensor, { shape, sha256, first }] of Object.entries(expectedTensors(name))) {
        const entry = shards.tensor(tensor);
        assert.deepEqual([entry.rows, entry.cols], shape, tensor);
        found.add(entry.format);
        const values = await dequantized(context, shards, entry);
        assert.deepEqual(values.slice(0, first.length), Float32Array.from(first), tensor);
        assert.equal(createHash("sha256").update(new Uint8Array(values.buffer as ArrayBuffer)).digest("hex"), sha256, tensor);
      }
      assert.deepEqual([...found].sort(), formats.toSorted());
    }));

  Deno.test(`${name} computes what transformers does with the library's values, resident and streamed packed: logits within 2e-5, 16 greedy tokens`, () =>
    withTemporaryDirectory(async (directory) => {
      await quantize(name, directory, "none");
      const [expected] = expectedOf(`../encodings/${name}`);
      for (const residentBytes of DEVICE_MEMORY ? [undefined] : [undefined, 0]) {
        await using engine = await openExact(directory, { logitRows: 64, residentBytes });
        using sequence = engine.openSequence();
        const [prompt] = await engine.pass([{ sequence, tokens: expected.promptIds, logits: "all" }]);
        assert.ok(relativeError(logitRows(engine, prompt.logits), expected.promptLogits) < 2e-5);
        assert.deepEqual(await greedy(engine, sequence, expected.greedyIds[0], 16), expected.greedyIds);
        if (residentBytes === 0) await readsWhatIsPacked(engine, directory);
      }
    }));

  Deno.test(`${name} is a source of quantize: q8 of it keeps 38 dB of its values`, () =>
    withTemporaryDirectory(async (directory) => {
      await quantize(name, `${directory}/packed`, "none");
      await quantize(name, `${directory}/q8`, "q8");
      const [packed, q8] = [await openShards(`${directory}/packed`), await openShards(`${directory}/q8`)];
      using context = Context.open();
      for (const tensor of Object.keys(expectedTensors(name))) {
        const exact = await dequantized(context, packed, packed.tensor(tensor)), entry = q8.tensor(tensor);
        const snr = snrDb(exact, await dequantized(context, q8, entry));
        assert.ok(snr > 38 && Math.abs(snr - entry.snrDb!) < 0.05, `${tensor}: ${snr} dB, reported ${entry.snrDb}`);
      }
    }));
}

Deno.test("a checkpoint that is quantized already is kept as it is where no format is named", () =>
  withTemporaryDirectory(async (directory) => {
    const shards = await openModelShards(`${FIXTURES}bnb_nf4`, { layerShardsPath: directory });
    assert.equal(shards.manifest.compression, "none");
    assert.equal(shards.tensor("model.layers.1.mlp.up_proj.weight").format, "bnb4-64x256-bf16");
  }));

for (
  const [name, format] of Object.entries({
    "gpt_oss/mxfp4": "mxfp4",
    "deepseek_v3/fp8": "fp8-128x128",
    "kimi_k2/int4": "int4-32-bf16",
  })
) {
  Deno.test(`experts of ${name} are kept packed, as ${format}, and are a source of quantize`, () =>
    withTemporaryDirectory(async (directory) => {
      const source = fileURLToPath(new URL(`../fixtures/architectures/${name}`, import.meta.url));
      await quantizeCheckpoint({ source, out: `${directory}/packed`, compression: "none" });
      await quantizeCheckpoint({ source, out: `${directory}/q8`, compression: "q8" });
      const [packed, q8] = [await openShards(`${directory}/packed`), await openShards(`${directory}/q8`)];
      using context = Context.open();
      const experts = packed.manifest.tensors.filter(({ name }) => /\.experts\.\d+\.\w+\.weight$/.test(name));
      assert.ok(experts.length > 0);
      for (const entry of experts) {
        assert.equal(entry.format, format, entry.name);
        const exact = await dequantized(context, packed, entry);
        const snr = snrDb(exact, await dequantized(context, q8, q8.tensor(entry.name)));
        assert.ok(snr > 38, `${entry.name}: ${snr} dB`);
      }
    }));
}
