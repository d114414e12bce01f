import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import fs from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { openModelShards } from "../../lib/auto_model.ts";
import { openCheckpoint } from "../../lib/checkpoint/checkpoint.ts";
import { readGgufHeader } from "../../lib/checkpoint/gguf.ts";
import { ggufConfig } from "../../lib/checkpoint/gguf_config.ts";
import { ggufTokenizerFiles } from "../../lib/checkpoint/gguf_tokenizer.ts";
import { FormatError, UnsupportedError } from "../../lib/errors.ts";
import { Context } from "../../lib/ffi/context.ts";
import { quantizeCheckpoint } from "../../lib/shard/quantizer.ts";
import { openShards } from "../../lib/shard/reader.ts";
import { loadTokenizer } from "../../lib/tokenizer/tokenizer.ts";
import { expectedOf, greedy, logitRows, openExact, relativeError } from "../engine/tiny_models.ts";
import { dequantized } from "../shard/dequantized.ts";
import { withTemporaryDirectory } from "../temporary_directory.ts";

const FIXTURES = fileURLToPath(new URL("../fixtures/gguf/", import.meta.url));
const FORMATS: Record<string, string> = {
  Q4_0: "int4-32-f16",
  Q8_0: "int8-32-f16",
  IQ4_NL: "iq4_nl",
  Q4_K: "q4_k",
  Q5_K: "q5_k",
  Q6_K: "q6_k",
};

interface Expected {
  tensors: Record<string, { type: string; shape: number[]; sha256: string; first: number[] }>;
  texts: { text: string; ids: number[] }[];
}

function expectedFile(name: string): Expected {
  return JSON.parse(fs.readFileSync(join(FIXTURES, name, "expected.json"), "utf8"));
}

for (const name of ["llama", "qwen3"]) {
  Deno.test(`GGUF of ${name} is kept packed, and dequantizes to gguf-py's values bit for bit`, () =>
    withTemporaryDirectory(async (directory) => {
      const shards = await openModelShards(join(FIXTURES, name), { layerShardsPath: directory });
      assert.equal(shards.manifest.compression, "none");
      using context = Context.open();
      for (const [tensor, { type, shape, sha256, first }] of Object.entries(expectedFile(name).tensors)) {
        const entry = shards.tensor(tensor);
        assert.deepEqual([entry.format, entry.rows, entry.cols], [FORMATS[type], ...shape], tensor);
        const values = await dequantized(context, shards, entry);
        assert.deepEqual(values.slice(0, first.length), Float32Array.from(first), tensor);
        assert.equal(createHash("sha256").update(new Uint8Array(values.buffer as ArrayBuffer)).digest("hex"), sha256, tensor);
      }
    }));

  Deno.test(`GGUF of ${name} computes what transformers does with gguf-py's values: logits within 2e-5, 16 greedy tokens`, () =>
    withTemporaryDirectory(async (directory) => {
      await quantizeCheckpoint({ source: join(FIXTURES, name), out: directory, compression: "none" });
      const [expected] = expectedOf(`../gguf/${name}`);
      await using engine = await openExact(directory, { logitRows: 64 });
      using sequence = engine.openSequence();
      const [prompt] = await engine.pass([{ sequence, tokens: expected.promptIds, logits: "all" }]);
      assert.ok(relativeError(logitRows(engine, prompt.logits), expected.promptLogits) < 2e-5);
      assert.deepEqual(await greedy(engine, sequence, expected.greedyIds[0], 16), expected.greedyIds);
    }));

  Deno.test(`GGUF of ${name} gives its tokenizer: ids as Hugging Face tokenizers, and the text again`, () =>
    withTemporaryDirectory(async (directory) => {
      await quantizeCheckpoint({ source: join(FIXTURES, name), out: directory, compression: "q8" });
      const { manifest } = await openShards(directory);
      const tokenizer = await loadTokenizer(directory, { config: manifest.config, generationConfig: null });
      for (const { text, ids } of expectedFile(name).texts) {
        assert.deepEqual(tokenizer.encode(text), ids, JSON.stringify(text));
        assert.equal(tokenizer.decode(ids), text.normalize(name === "qwen3" ? "NFC" : undefined));
      }
      assert.deepEqual([tokenizer.bosTokenId, tokenizer.eosTokenIds], [0, [1]]);
    }));
}

Deno.test("ggufTokenizerFiles() makes merges of SentencePiece's scores, better pieces first", () => {
  const tokens = ["<unk>", "<s>", "</s>", "<0x41>", "▁", "a", "b", "ab", "▁a", "▁ab"];
  const metadata = new Map<string, string | boolean | number | (string | number)[]>([
    ["tokenizer.ggml.model", "llama"],
    ["tokenizer.ggml.tokens", tokens],
    ["tokenizer.ggml.scores", [0, 0, 0, 0, -4, -5, -6, -1, -2, -3]],
    ["tokenizer.ggml.token_type", [2, 3, 3, 6, 1, 1, 1, 1, 1, 1]],
    ["tokenizer.ggml.bos_token_id", 1],
    ["tokenizer.ggml.eos_token_id", 2],
  ]);
  const files = ggufTokenizerFiles(metadata, "test");
  const { model, added_tokens: added } = JSON.parse(files.get("tokenizer.json")!);
  assert.deepEqual(model.merges, [["a", "b"], ["▁", "a"], ["▁", "ab"], ["▁a", "b"]]);
  assert.deepEqual(added.map(({ content }: { content: string }) => content), ["<s>", "</s>"]);
  assert.deepEqual(JSON.parse(files.get("tokenizer_config.json")!), {
    bos_token: "<s>",
    add_bos_token: true,
    eos_token: "</s>",
    add_eos_token: false,
  });
  assert.throws(() => ggufTokenizerFiles(new Map([...metadata, ["tokenizer.ggml.model", "rwkv"]]), "test"), UnsupportedError);
  assert.throws(() => ggufTokenizerFiles(new Map([...metadata, ["tokenizer.ggml.scores", [1]]]), "test"), FormatError);
});

Deno.test("ggufConfig() refuses architectures and settings that it does not know, by name", async () => {
  const header = await readGgufHeader(join(FIXTURES, "llama/model.gguf"));
  const refuses = (key: string, value: string | number, pattern: RegExp) =>
    assert.throws(
      () => ggufConfig({ ...header, metadata: new Map(header.metadata).set(key, value) }, undefined, "x.gguf"),
      pattern,
    );
  refuses("general.architecture", "mamba", /architecture is "mamba", supported: llama, qwen2, qwen3/);
  refuses("llama.expert_count", 8, /llama\.expert_count is 8/);
  refuses("llama.rope.scaling.type", "yarn", /rope\.scaling\.type is "yarn"/);
  refuses("llama.block_count", "many", /block_count is "many", required a positive number/);
  const config = ggufConfig(header, undefined, "x.gguf");
  assert.deepEqual([config.model_type, config.rope_interleaved, config.tie_word_embeddings], ["llama", true, false]);
  assert.throws(() => ggufConfig(header, new Float32Array(32).fill(3), "x.gguf"), /rope_freqs\.weight holds factors/);
});

Deno.test("readGgufHeader() survives any cut and many flipped bytes: a header, a FormatError or an UnsupportedError", () =>
  withTemporaryDirectory(async (directory) => {
    const whole = fs.readFileSync(join(FIXTURES, "qwen3/model.gguf")), path = join(directory, "model.gguf");
    const { headerBytes } = await readGgufHeader(join(FIXTURES, "qwen3/model.gguf"));
    const check = async (content: Uint8Array) => {
      fs.writeFileSync(path, content);
      try {
        for (const { offset, bytes } of (await readGgufHeader(path)).tensors) {
          assert(offset >= 0 && offset + bytes <= content.length);
        }
      } catch (error) {
        assert(error instanceof FormatError || error instanceof UnsupportedError, `${error}`);
      }
    };
    for (let length = 0; length < whole.length; length += 1013) await check(whole.subarray(0, length));
    for (let at = 0; at < headerBytes; at += 31) {
      const damaged = new Uint8Array(whole);
      damaged[at] ^= 1 << at % 8;
      await check(damaged);
    }
  }));

Deno.test("openCheckpoint() refuses a directory of several GGUF files, and one that ends early", () =>
  withTemporaryDirectory(async (directory) => {
    const whole = fs.readFileSync(join(FIXTURES, "qwen3/model.gguf"));
    fs.writeFileSync(join(directory, "a.gguf"), whole.subarray(0, 100_000));
    await assert.rejects(openCheckpoint(directory), /ends at byte \d+, but the file has 100000/);
    fs.writeFileSync(join(directory, "b.gguf"), whole);
    await assert.rejects(openCheckpoint(directory), /several GGUF files \(a\.gguf, b\.gguf\)/);
  }));
