import assert from "node:assert/strict";
import fs from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { AutoModel, findModelShards, openModelShards, predictModelShards } from "../../lib/auto_model.ts";
import { openCheckpoint } from "../../lib/checkpoint/checkpoint.ts";
import {
  chooseGguf,
  ggufModels,
  ggufModelsWithin,
  ggufParts,
  ggufShardFolder,
  ggufTag,
} from "../../lib/checkpoint/gguf_files.ts";
import { FormatError, UsageError } from "../../lib/errors.ts";
import { withTemporaryDirectory } from "../temporary_directory.ts";

const FIXTURES = fileURLToPath(new URL("../fixtures/gguf/", import.meta.url));

Deno.test("ggufTag() reads the quantization that a name ends with, whoever named it", () => {
  const tags: Record<string, string | undefined> = {
    "Llama-3.2-1B-Instruct-Q4_K_M": "Q4_K_M",
    "mistral-7b-instruct-v0.1.Q5_K_S": "Q5_K_S",
    "Qwen3-8B-UD-Q4_K_XL": "UD-Q4_K_XL",
    "X.i1-IQ3_XXS": "i1-IQ3_XXS",
    "Phi-3-mini-4k-instruct-q4": "q4",
    "gpt-oss-20b-mxfp4": "mxfp4",
    "gpt-oss-20b-MXFP4_MOE": "MXFP4_MOE",
    "BF16/DeepSeek-R1-BF16": "BF16",
    "Q2_K/model": "Q2_K",
    "Q8-tuned-llama": "Q8",
    "llama": undefined,
  };
  for (const [model, tag] of Object.entries(tags)) assert.equal(ggufTag(model), tag, model);
});

Deno.test("ggufModels() joins parts, and leaves out projectors and importance matrices", () => {
  const paths = [
    "Q4_K_M/x-00002-of-00002.gguf",
    "Q4_K_M/x-00001-of-00002.gguf",
    "x-Q8_0.gguf",
    "mmproj-x-f16.gguf",
    "x.imatrix.gguf",
    "mtp-x-Q8_0.gguf",
    "README.md",
  ];
  assert.deepEqual([...ggufModels(paths)], [
    ["Q4_K_M/x", ["Q4_K_M/x-00001-of-00002.gguf", "Q4_K_M/x-00002-of-00002.gguf"]],
    ["x-Q8_0", ["x-Q8_0.gguf"]],
  ]);
  for (const any of paths.slice(0, 2)) assert.deepEqual(ggufParts(any, paths), [paths[1], paths[0]]);
  assert.throws(() => ggufParts(paths[0], [paths[0]]), /part 1 of 2 is not beside it/);
});

Deno.test("chooseGguf() takes a quantization in any case, a file, or llama.cpp's default; else it lists what there is", () => {
  const models = ["x-Q2_K", "x-Q4_K_M", "x-UD-Q4_K_M", "x-Q8_0", "deep/x-BF16"];
  const choose = (asked?: string, among = models) => chooseGguf(among, asked, "model a/b", (model) => `${model} (1 GiB)`);
  assert.deepEqual([choose(), choose("q4_k_m"), choose("UD-Q4_K_M"), choose("bf16")], [
    models[1],
    models[1],
    models[2],
    models[4],
  ]);
  assert.deepEqual([choose("deep/x-BF16.gguf"), choose("X-q2_k.gguf")], [models[4], models[0]]);
  assert.equal(choose("deep/x-BF16-00001-of-00002.gguf"), models[4]);
  assert.equal(choose(undefined, ["x-Q8_0", "x-Q2_K"]), "x-Q8_0");
  assert.equal(choose(undefined, ["x-IQ1_S"]), "x-IQ1_S");
  assert.equal(choose("tuned", ["x-Q8-tuned", "x-Q8-plain"]), "x-Q8-tuned");
  assert.throws(() => choose("Q3_K_M"), (error) => {
    assert(error instanceof UsageError);
    const listed = models.map((model) => `${model} (1 GiB)`).join(", ");
    assert.equal(error.message, `Cannot choose a GGUF model of model a/b: none is Q3_K_M, there are: ${listed}`);
    return true;
  });
  assert.throws(
    () => choose(undefined, ["x-Q2_K", "x-Q3_K_S"]),
    /name one behind a colon, there are: x-Q2_K \(1 GiB\), x-Q3_K_S/,
  );
  assert.throws(() => choose("Q8_0", ["a-Q8_0", "b-Q8_0"]), /several are Q8_0; name a file behind the colon: a-Q8_0/);
  assert.throws(() => choose("y.gguf"), /it has no file y\.gguf, there are/);
});

/** Writes two models into one directory: one file, and one of several parts; and a projector. */
function twoModels(directory: string): { single: string; parts: string[] } {
  const parts = fs.readdirSync(join(FIXTURES, "qwen2")).filter((name) => name.endsWith(".gguf")).sort();
  for (const name of parts) fs.copyFileSync(join(FIXTURES, "qwen2", name), join(directory, name.replace("model", "two-Q4_0")));
  const single = join(directory, "one-Q4_0.gguf");
  fs.copyFileSync(join(FIXTURES, "qwen3/model.gguf"), single);
  fs.writeFileSync(join(directory, "mmproj-one.gguf"), "no model");
  fs.writeFileSync(join(directory, "tokenizer.model"), "another model's");
  return { single, parts: parts.map((name) => join(directory, name.replace("model", "two-Q4_0"))) };
}

Deno.test("openModelShards() takes a GGUF file by its path, any part of one, and keeps each one's shards apart", () =>
  withTemporaryDirectory(async (directory) => {
    const { single, parts } = twoModels(directory);
    await assert.rejects(
      openModelShards(directory),
      (error) =>
        error instanceof FormatError &&
        /several GGUF files \(one-Q4_0\.gguf, two-Q4_0-00001-of-\d+\.gguf\); name one of them/.test(error.message),
    );
    const predicted = await predictModelShards(single);
    assert.deepEqual([predicted.filesExist, predicted.directory], [false, join(directory, "airkern-none-one-Q4_0")]);
    const one = await openModelShards(single);
    assert.deepEqual([one.path, one.manifest.compression], [predicted.directory, "none"]);
    assert.deepEqual([one.manifest.source.name, one.manifest.config.model_type], ["one-Q4_0", "qwen3"]);
    assert.deepEqual(one.manifest.tokenizerFiles.map(({ name }) => name), ["tokenizer.json", "tokenizer_config.json"]);
    const two = await openModelShards(parts[1], { compression: "q8" });
    assert.equal(two.path, join(directory, "airkern-q8-two-Q4_0"));
    assert.equal((await openModelShards(parts[0], { compression: "q8" })).path, two.path);
    // The sources go; what was made of them is found by the same names.
    await openModelShards(parts.at(-1)!, { compression: "q8", deleteOriginal: true });
    assert.deepEqual(parts.filter((part) => fs.existsSync(part)), []);
    assert.equal((await openModelShards(parts[0], { compression: "q8" })).path, two.path);
    assert.equal(await findModelShards(parts[2], { compression: "q8" }), two.path);
    // Alone in the directory now, the other is what its name means.
    assert.equal((await openModelShards(directory)).path, one.path);
    await openModelShards(single, { deleteOriginal: true });
    assert.equal((await openModelShards(directory)).path, one.path);
    assert.deepEqual(ggufModelsWithin(directory), new Map([["one-Q4_0", []], ["two-Q4_0", []]]));
    await assert.rejects(openModelShards(join(directory, "three.gguf")), /Cannot open model .*three\.gguf: no such file$/);
    await assert.rejects(openModelShards(single, { revision: "v1" }), /it is a file, revisions are of models on the hub/);
    await assert.rejects(
      openCheckpoint(join(directory, "tokenizer.model")),
      /it is a file; give the directory that holds it, or a \.gguf file/,
    );
  }));

Deno.test("openModelShards() with layerShardsPath names shards of GGUF files by file and content", () =>
  withTemporaryDirectory(async (directory) => {
    const { single, parts } = twoModels(directory), layerShardsPath = join(directory, "shards");
    const paths = await Promise.all(
      [single, parts[0]].map(async (path) => (await openModelShards(path, { layerShardsPath })).path),
    );
    assert.deepEqual(paths.map((path) => [dirname(path), /\/(one|two)-Q4_0-[0-9a-f]{16}-none$/.exec(path)?.[1]]), [
      [layerShardsPath, "one"],
      [layerShardsPath, "two"],
    ]);
    assert.equal(fs.existsSync(ggufShardFolder(single, "none")), false);
  }));

Deno.test("AutoModel.fromPretrained() generates from a GGUF file", () =>
  withTemporaryDirectory(async (directory) => {
    const { single } = twoModels(directory);
    const { cases: [expected] } = JSON.parse(fs.readFileSync(join(FIXTURES, "qwen3/expected.json"), "utf8"));
    await using model = await AutoModel.fromPretrained(single, { device: "cpu", ram: "2GiB", kvCacheType: "f32" });
    const { sequences } = await model.generate([expected.prompt_ids], { maxNewTokens: 8 });
    assert.deepEqual(sequences[0].slice(-8), expected.greedy_ids.slice(0, 8));
  }));
