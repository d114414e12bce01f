import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import fs from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { openModelShards } from "../../lib/auto_model.ts";
import { openCheckpoint } from "../../lib/checkpoint/checkpoint.ts";
import { localGguf, readGgufHeader } from "../../lib/checkpoint/gguf.ts";
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
  Q4_1: "q4_1",
  Q5_0: "q5_0",
  Q5_1: "q5_1",
  Q2_K: "q2_k",
  Q3_K: "q3_k",
  IQ4_XS: "iq4_xs",
  TQ1_0: "tq2_0",
  TQ2_0: "tq2_0",
  MXFP4: "mxfp4",
  IQ2_XXS: "iq2_xxs",
  IQ2_XS: "iq2_xs",
  IQ2_S: "iq2_s",
  IQ3_XXS: "iq3_xxs",
  IQ3_S: "iq3_s",
  IQ1_S: "iq1_s",
  IQ1_M: "iq1_m",
};

interface Expected {
  tensors: Record<string, { type: string; shape: number[]; sha256: string; first: number[] }>;
  texts: { text: string; ids: number[] }[];
}

function expectedFile(name: string): Expected {
  return JSON.parse(fs.readFileSync(join(FIXTURES, name, "expected.json"), "utf8"));
}

/** Fixtures, and the `model_type` of each. */
const MODELS: Record<string, string> = {
  ...{ llama: "llama", mixtral: "mixtral", qwen2: "qwen2", qwen2moe: "qwen2_moe", qwen3: "qwen3", qwen3moe: "qwen3_moe" },
  ...{ types: "llama", points: "llama", gemma: "gemma", gemma2: "gemma2", gemma3: "gemma3_text", phi3: "phi3" },
};

Deno.test("every fixture of GGUF is tested", () => {
  assert.deepEqual(Object.keys(MODELS).sort(), fs.readdirSync(FIXTURES).sort());
});

for (const [name, modelType] of Object.entries(MODELS)) {
  Deno.test(`GGUF of ${name} is kept packed, and dequantizes to gguf-py's values bit for bit`, () =>
    withTemporaryDirectory(async (directory) => {
      const shards = await openModelShards(join(FIXTURES, name), { layerShardsPath: directory });
      assert.deepEqual([shards.manifest.compression, shards.manifest.config.model_type], ["none", modelType]);
      using context = Context.open();
      for (const [tensor, { type, shape, sha256, first }] of Object.entries(expectedFile(name).tensors)) {
        const entry = shards.tensor(tensor);
        assert.deepEqual([entry.format, entry.rows, entry.cols], [FORMATS[type], ...shape], tensor);
        const values = await dequantized(context, shards, entry);
        assert.deepEqual(values.slice(0, first.length), Float32Array.from(first), tensor);
        assert.equal(createHash("sha256").update(new Uint8Array(values.buffer as ArrayBuffer)).digest("hex"), sha256, tensor);
      }
    }));

  Deno.test(`GGUF of ${name} computes what transformers does with gguf-py's values, resident and streamed: logits within 2e-5, 16 greedy tokens`, () =>
    withTemporaryDirectory(async (directory) => {
      await quantizeCheckpoint({ source: join(FIXTURES, name), out: directory, compression: "none" });
      const [expected] = expectedOf(`../gguf/${name}`);
      for (const residentBytes of [undefined, 0]) {
        await using engine = await openExact(directory, {
          logitRows: 64,
          residentBytes,
          ...(residentBytes === 0 && { expertCacheBytes: 1 }),
        });
        using sequence = engine.openSequence();
        const [prompt] = await engine.pass([{ sequence, tokens: expected.promptIds, logits: "all" }]);
        assert.ok(relativeError(logitRows(engine, prompt.logits), expected.promptLogits) < 2e-5);
        assert.deepEqual(await greedy(engine, sequence, expected.greedyIds[0], 16), expected.greedyIds);
      }
    }));

  Deno.test(`GGUF of ${name} is a source of quantize with its tokenizer: ids as Hugging Face tokenizers, and the text again`, () =>
    withTemporaryDirectory(async (directory) => {
      await quantizeCheckpoint({ source: join(FIXTURES, name), out: directory, compression: "q8" });
      const { manifest } = await openShards(directory);
      const quantized = manifest.tensors.filter(({ format }) => format === "q8");
      assert.ok(quantized.length >= 7 && quantized.every(({ snrDb }) => snrDb! > 38));
      const tokenizer = await loadTokenizer(directory, { config: manifest.config, generationConfig: null });
      for (const { text, ids } of expectedFile(name).texts) {
        assert.deepEqual(tokenizer.encode(text), ids, JSON.stringify(text));
        assert.equal(tokenizer.decode(ids), text.normalize(name.startsWith("qwen") ? "NFC" : undefined));
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
  const templates = (...more: [string, string | string[]][]) => {
    const files = ggufTokenizerFiles(new Map([...metadata, ...more]), "test");
    return JSON.parse(files.get("tokenizer_config.json")!).chat_template;
  };
  assert.equal(templates(["tokenizer.chat_template", "D"]), "D");
  const named: [string, string | string[]][] = [["tokenizer.chat_templates", ["tool_use", "x"]], [
    "tokenizer.chat_template.tool_use",
    "T",
  ]];
  assert.deepEqual(templates(...named), [{ name: "tool_use", template: "T" }]);
  assert.deepEqual(templates(["tokenizer.chat_template", "D"], ...named), [
    { name: "default", template: "D" },
    { name: "tool_use", template: "T" },
  ]);
  assert.throws(() => ggufTokenizerFiles(new Map([...metadata, ["tokenizer.ggml.model", "rwkv"]]), "test"), UnsupportedError);
  assert.throws(() => ggufTokenizerFiles(new Map([...metadata, ["tokenizer.ggml.scores", [1]]]), "test"), FormatError);
});

Deno.test("ggufConfig() refuses architectures and settings that it does not know, by name", async () => {
  const header = await readGgufHeader(localGguf(join(FIXTURES, "llama/model.gguf"))), none = new Map<string, Float32Array>();
  const refuses = (key: string, value: string | number, pattern: RegExp) =>
    assert.throws(
      () => ggufConfig({ ...header, metadata: new Map(header.metadata).set(key, value) }, none, "x.gguf"),
      pattern,
    );
  refuses(
    "general.architecture",
    "mamba",
    /architecture is "mamba", supported: llama, qwen2, qwen2moe, qwen3, .*, deepseek2, gpt-oss, .*, llama4/,
  );
  refuses("general.architecture", "constructor", /architecture is "constructor", supported/);
  refuses("llama.expert_count", 8, /llama\.expert_used_count is undefined/);
  refuses("llama.expert_weights_scale", 2, /llama\.expert_weights_scale is 2, which is not supported/);
  refuses("llama.rope.scaling.type", "yarn", /rope\.scaling\.type is "yarn" with factor undefined/);
  refuses("llama.rope.scaling.type", "spiral", /rope\.scaling\.type is "spiral"/);
  refuses("llama.block_count", "many", /block_count is "many", required a positive number/);
  const config = ggufConfig(header, none, "x.gguf");
  assert.deepEqual([config.model_type, config.rope_interleaved, config.tie_word_embeddings], ["llama", true, false]);
  const factors = new Float32Array(32).fill(3);
  const { rope_scaling: scaling } = ggufConfig(header, new Map([["rope_freqs.weight", factors]]), "x.gguf") as {
    rope_scaling: Record<string, unknown>;
  };
  assert.deepEqual([scaling.rope_type, scaling.attention_factor, scaling.long_factor], ["longrope", 1, [...factors]]);
  assert.throws(
    () => ggufConfig(header, new Map([["rope_factors_long.weight", factors]]), "x.gguf"),
    /without rope_factors_short/,
  );
});

Deno.test("readGgufHeader() survives any cut and many flipped bytes: a header, a FormatError or an UnsupportedError", () =>
  withTemporaryDirectory(async (directory) => {
    const whole = fs.readFileSync(join(FIXTURES, "qwen3/model.gguf")), path = join(directory, "model.gguf");
    const { headerBytes } = await readGgufHeader(localGguf(join(FIXTURES, "qwen3/model.gguf")));
    const check = async (content: Uint8Array) => {
      fs.writeFileSync(path, content);
      try {
        for (const { offset, bytes } of (await readGgufHeader(localGguf(path))).tensors) {
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

Deno.test("openCheckpoint() refuses a GGUF model of which a part is missing, is another's or says to be another", () =>
  withTemporaryDirectory(async (directory) => {
    const parts = fs.readdirSync(join(FIXTURES, "qwen2")).filter((name) => name.endsWith(".gguf")).sort();
    assert.equal(parts.length > 2, true);
    const copy = (from: string, to: string) => fs.copyFileSync(join(FIXTURES, "qwen2", from), join(directory, to));
    for (const name of parts) copy(name, name);
    using checkpoint = await openCheckpoint(directory);
    assert.equal(checkpoint.files.length, parts.length);
    fs.rmSync(join(directory, parts[1]));
    await assert.rejects(openCheckpoint(directory), /part 2 of \d+ is not beside it/);
    copy(parts[2], parts[1]);
    await assert.rejects(openCheckpoint(directory), /it says that it is part 3 of \d+, and is taken as 2 of/);
    fs.writeFileSync(join(directory, parts[1]), fs.readFileSync(join(FIXTURES, "qwen3/model.gguf")));
    await assert.rejects(openCheckpoint(directory), /it says that it is part 1 of 1, and is taken as 2 of/);
  }));
