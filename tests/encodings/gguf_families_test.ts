/** Families as llama.cpp's conversion writes them, against transformers: the fixtures of scripts/model/make_gguf_family_fixtures.py. */
import assert from "node:assert/strict";
import { readdirSync } from "node:fs";
import { fileURLToPath } from "node:url";
import type { Engine } from "../../lib/engine/engine.ts";
import { openShards } from "../../lib/shard/reader.ts";
import {
  casesOf,
  greedy,
  logitRows,
  openExact,
  openStreamed,
  type ParityCase,
  relativeError,
  shardCheckpoint,
} from "../engine/tiny_models.ts";

const FIXTURES = fileURLToPath(new URL("../fixtures/gguf_families/", import.meta.url));
const TOLERANCE = 1e-4;

/** `model_type` of each fixture. */
const MODELS: Record<string, string> = {
  ...{
    deepseek_v2: "deepseek_v2",
    deepseek_v2_lite: "deepseek_v2",
    deepseek_v3: "deepseek_v3",
    deepseek_v3_merged: "deepseek_v3",
  },
  ...{ gpt_oss: "gpt_oss", glm4_moe: "glm4_moe", glm4: "glm4", granite: "granite", granitemoe: "granitemoe" },
  ...{ command_r: "cohere", cohere2: "cohere2", llama4_scout: "llama4_text", llama4_maverick: "llama4_text", olmo2: "olmo2" },
  ...{ stablelm: "stablelm", stablelm_parallel: "stablelm", starcoder2: "starcoder2" },
  ...{ falcon: "falcon", falcon_one_norm: "falcon", falcon_multi_query: "falcon" },
  ...{ internlm2: "internlm2", baichuan: "baichuan", smollm3: "smollm3", qwen2_yarn: "qwen2", qwen3_next: "qwen3_next" },
  ...{ qwen35: "qwen3_5_text", qwen35moe: "qwen3_5_moe_text" },
};

Deno.test("every fixture of a family in GGUF is tested", () => {
  assert.deepEqual(Object.keys(MODELS).sort(), readdirSync(FIXTURES).sort());
});

async function check(engine: Engine, { promptIds, promptLogits, greedyIds, decodeLogits }: ParityCase): Promise<void> {
  using sequence = engine.openSequence();
  const [prompt] = await engine.pass([{ sequence, tokens: promptIds, logits: "all" }]);
  const error = relativeError(logitRows(engine, prompt.logits), promptLogits);
  assert.ok(error < TOLERANCE, `prompt of ${promptIds.length}: relative error ${error}`);
  const steps: Float32Array[] = [];
  for (const token of greedyIds.slice(0, decodeLogits.length)) {
    const [step] = await engine.pass([{ sequence, tokens: [token], logits: "last" }]);
    steps.push(...logitRows(engine, step.logits));
  }
  assert.ok(relativeError(steps, decodeLogits) < TOLERANCE);
  const keepsStates = engine.config.layers.some(({ attention }) => attention.deltaNet);
  sequence.truncate(keepsStates ? 0 : promptIds.length);
  if (keepsStates) await engine.pass([{ sequence, tokens: promptIds, logits: "last" }]);
  assert.deepEqual(await greedy(engine, sequence, greedyIds[0], greedyIds.length), greedyIds);
}

for (const [name, modelType] of Object.entries(MODELS)) {
  const cases = casesOf(FIXTURES + name), options = { maxSequences: 1, logitRows: 96, passTokens: 96 };

  Deno.test(`GGUF of ${name} matches transformers: prompts, cached steps, ${cases[0].greedyIds.length} greedy tokens, resident and streamed`, async () => {
    using shards = await shardCheckpoint(`${FIXTURES}${name}/model.gguf`);
    assert.equal((await openShards(shards.path)).manifest.config.model_type, modelType);
    {
      await using engine = await openExact(shards.path, options);
      for (const expected of cases) await check(engine, expected);
    }
    await using engine = await openStreamed(shards.path, options);
    await check(engine, cases[0]);
  });
}
