import assert from "node:assert/strict";
import { FormatError, UnsupportedError } from "../../lib/errors.ts";
import { createTokenizer, loadTokenizer } from "../../lib/tokenizer/tokenizer.ts";
import { withTemporaryDirectory } from "../temporary_directory.ts";
import { digest } from "./digest.ts";
import { readJson } from "./fixtures.ts";
import { randomStrings } from "./random_strings.ts";

const fixture = readJson<{
  strings: number;
  chunk: number;
  file: string;
  texts: string[];
  kinds: Record<string, { ids: number[][]; random: string[] }>;
}>("tests/fixtures/tokenizer/tiktoken.json");
const file = new TextEncoder().encode(fixture.file);
const ADDED = {
  "700": { content: "[gMASK]", special: true },
  "701": { content: "<sop>", special: true },
  "702": { content: "<|user|>", special: true },
};

for (const [kind, { ids, random }] of Object.entries(fixture.kinds)) {
  Deno.test(`a tiktoken file gives tiktoken's ids with the pattern of ${kind}, for a corpus and 10000 random strings`, async () => {
    const tokenizerConfig = { tokenizer_class: kind, added_tokens_decoder: ADDED };
    const tokenizer = await createTokenizer({ sentencePiece: file, tokenizerConfig });
    const encode = (text: string) => tokenizer.encode(text, { addSpecialTokens: false });
    fixture.texts.forEach((text, i) => {
      assert.deepEqual(encode(text), ids[i], JSON.stringify(text));
      assert.equal(tokenizer.decode(ids[i]), text);
    });
    assert.equal(tokenizer.encode("x")[0] === 700, kind === "ChatGLM4Tokenizer");
    const strings = randomStrings(fixture.strings);
    for (let i = 0; i * fixture.chunk < strings.length; i++) {
      const found = strings.slice(i * fixture.chunk, (i + 1) * fixture.chunk).map(encode);
      assert.equal(digest(found), random[i], `ids of strings from ${i * fixture.chunk} on`);
    }
  });
}

Deno.test("a tiktoken file is read where there is no tokenizer.json, with the config's tokens; others are refused", () =>
  withTemporaryDirectory(async (directory) => {
    Deno.writeFileSync(`${directory}/tiktoken.model`, file);
    const write = (config: object) => Deno.writeTextFileSync(`${directory}/tokenizer_config.json`, JSON.stringify(config));
    write({ tokenizer_class: "TikTokenTokenizer", added_tokens_decoder: ADDED, eos_token: "<|user|>" });
    const tokenizer = await loadTokenizer(directory);
    assert.deepEqual(tokenizer.encode("<|user|>", { allowSpecialTokens: true }), [702]);
    assert.ok(!tokenizer.encode("<|user|>").includes(702));
    assert.deepEqual(tokenizer.eosTokenIds, [702]);
    write({ tokenizer_class: "OtherTokenizer" });
    await assert.rejects(
      loadTokenizer(directory),
      (error: Error) =>
        error instanceof UnsupportedError &&
        /tokenizer_class is "OtherTokenizer", known with a tiktoken file are TikTokenTokenizer/.test(error.message),
    );
    write({ tokenizer_class: "TikTokenTokenizer" });
    for (const text of ["YQ== 0\nYQ== 1\n", "YQ== 0\nYg== 0\n", "YQ== 0\nx\n", "YQ== 0\nY 1\n"]) {
      Deno.writeTextFileSync(`${directory}/tiktoken.model`, text);
      await assert.rejects(loadTokenizer(directory), (error) => error instanceof FormatError, text);
    }
  }));
