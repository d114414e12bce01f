import assert from "node:assert/strict";
import * as library from "@huggingface/tokenizers";
import { PRE_TOKENIZERS } from "../../lib/checkpoint/gguf_pre_tokenizers.ts";
import { ggufEndTokens, ggufTokenizerFiles } from "../../lib/checkpoint/gguf_tokenizer.ts";
import type { GgufValue } from "../../lib/checkpoint/gguf.ts";
import { UnsupportedError } from "../../lib/errors.ts";
import { preTokenizer } from "../../lib/tokenizer/pre_tokenizer.ts";
import { digest } from "../tokenizer/digest.ts";
import { readJson } from "../tokenizer/fixtures.ts";
import { randomStrings } from "../tokenizer/random_strings.ts";

interface Fixture {
  corpus: string[];
  strings: number;
  kinds: Record<string, { first: string[][]; corpus: string; random: string }>;
}

const { corpus, strings, kinds } = readJson<Fixture>("tests/fixtures/gguf_pre_tokenizers.json");

for (const [name, expected] of Object.entries(kinds)) {
  Deno.test(`tokenizer.ggml.pre ${name} cuts texts as Hugging Face tokenizers does, a corpus and ${strings} random strings`, () => {
    const cut = preTokenizer(PRE_TOKENIZERS[name].pre_tokenizer, library);
    const pieces = (texts: readonly string[]) => texts.map((text) => text === "" ? [] : cut(text, 0));
    assert.deepEqual(pieces(corpus.slice(12, 15)), expected.first);
    assert.equal(digest(pieces(corpus)), expected.corpus);
    assert.equal(digest(pieces(randomStrings(strings))), expected.random);
  });
}

Deno.test("every name of a pre-tokenizer is one that is tested, or another name of it", () => {
  const tested = Object.keys(kinds).map((name) => JSON.stringify(PRE_TOKENIZERS[name].pre_tokenizer));
  for (const [name, { pre_tokenizer }] of Object.entries(PRE_TOKENIZERS)) {
    assert.ok(tested.includes(JSON.stringify(pre_tokenizer)), name);
  }
});

const METADATA: [string, GgufValue][] = [
  ["tokenizer.ggml.model", "gpt2"],
  ["tokenizer.ggml.tokens", ["a", "b", "ab", "<|end|>", "<|return|>", "<|endoftext|>", "<|eot_id|>"]],
  ["tokenizer.ggml.token_type", [1, 1, 1, 3, 3, 3, 1]],
  ["tokenizer.ggml.merges", ["a b"]],
  ["tokenizer.ggml.bos_token_id", 5],
  ["tokenizer.ggml.eos_token_id", 4],
];

Deno.test("ggufTokenizerFiles() refuses a name that it does not know, and begins a text where llama.cpp does", () => {
  const files = (pre: GgufValue, ...others: [string, GgufValue][]) =>
    ggufTokenizerFiles(new Map([...METADATA, ["tokenizer.ggml.pre", pre], ...others]), "x.gguf");
  for (const name of ["bloom", "default", "constructor", 3]) {
    assert.throws(
      () => files(name),
      (error) =>
        error instanceof UnsupportedError &&
        error.message.includes(`tokenizer.ggml.pre is ${JSON.stringify(name)}, supported: gpt-2`),
    );
  }
  const begins = (...given: Parameters<typeof files>) => JSON.parse(files(...given).get("tokenizer_config.json")!).add_bos_token;
  assert.deepEqual([begins("llama-bpe"), begins("tekken"), begins("qwen2"), begins("gpt-4o")], [true, true, false, false]);
  assert.equal(begins("llama-bpe", ["tokenizer.ggml.add_bos_token", false]), false);
  const { normalizer, model } = JSON.parse(files("command-r").get("tokenizer.json")!);
  assert.deepEqual([normalizer, model.ignore_merges], [{ type: "NFC" }, false]);
});

Deno.test("ggufEndTokens() gives what ends a text or a turn, special tokens of known names among them", () => {
  const ends = (...others: [string, GgufValue][]) => ggufEndTokens(new Map([...METADATA, ...others]));
  assert.deepEqual(ends(), [4, 5]);
  assert.deepEqual(ends(["tokenizer.ggml.eot_token_id", 2]), [4, 2, 5]);
  assert.deepEqual(ends(["tokenizer.ggml.tokens", ["a", "b", "ab", "<|end|>", "x", "<|endoftext|>", "<|eot_id|>"]]), [4, 3, 5]);
});
