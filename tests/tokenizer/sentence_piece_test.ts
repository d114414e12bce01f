import assert from "node:assert/strict";
import { FormatError, UnsupportedError } from "../../lib/errors.ts";
import { convertSentencePiece } from "../../lib/tokenizer/sentence_piece.ts";
import { createTokenizer, loadTokenizer, type Tokenizer } from "../../lib/tokenizer/tokenizer.ts";
import { withTemporaryDirectory } from "../temporary_directory.ts";
import { readJson } from "./fixtures.ts";

interface Fixture {
  texts: string[];
  kinds: Record<string, { ids: number[][]; decoded: string[] }>;
}

const fixture = readJson<Fixture>("tests/fixtures/tokenizer/sentence_piece.json");

function readModel(name: string): Uint8Array {
  return Deno.readFileSync(new URL(`../fixtures/tokenizer/sentence_piece_${name}.model`, import.meta.url));
}

async function convert(name: string, tokenizerConfig: Record<string, unknown> = {}): Promise<Tokenizer> {
  return await createTokenizer({ tokenizer: convertSentencePiece(readModel(name), tokenizerConfig), tokenizerConfig });
}

for (const [name, { ids, decoded }] of Object.entries(fixture.kinds)) {
  Deno.test(`convertSentencePiece() gives a tokenizer with SentencePiece's own ids and texts, ${name}`, async () => {
    const tokenizer = await convert(name);
    assert.ok(fixture.texts.length > 150);
    fixture.texts.forEach((text, i) => {
      assert.deepEqual(tokenizer.encode(text, { addSpecialTokens: false }), ids[i], JSON.stringify(text));
      // Tokens of unknown text decode to ⁇ there, and to the token's name here and in transformers.
      if (!ids[i].includes(0)) assert.equal(tokenizer.decode(ids[i]), decoded[i], JSON.stringify(text));
    });
  });
}

Deno.test("convertSentencePiece() adds the beginning of a text unless the config says otherwise, and the config's tokens", async () => {
  assert.equal((await convert("llama")).encode("a")[0], 1);
  const config = {
    add_bos_token: false,
    added_tokens_decoder: { "560": { content: "<|end|>", special: true } },
    eos_token: "<|end|>",
  };
  const tokenizer = await convert("llama", config);
  assert.notEqual(tokenizer.encode("a")[0], 1);
  assert.deepEqual(tokenizer.eosTokenIds, [560]);
  assert.deepEqual(tokenizer.encode("<|end|>", { allowSpecialTokens: true }), [560]);
  assert.ok(!tokenizer.encode("<|end|>").includes(560));
  assert.throws(() => convertSentencePiece(readModel("llama"), { added_tokens_decoder: { x: {} } }), FormatError);
});

Deno.test("convertSentencePiece() refuses other types and tables of characters by name, and damaged files", () => {
  const refuses = (file: Uint8Array, pattern: RegExp) =>
    assert.throws(
      () => convertSentencePiece(file),
      (error: Error) => error instanceof UnsupportedError && pattern.test(error.message),
    );
  refuses(readModel("refused_unigram"), /is of type unigram, supported is bpe; save it as tokenizer.json with transformers/);
  refuses(readModel("refused_table"), /normalizes with "nfkc", supported is identity/);
  const whole = readModel("llama");
  const damages = [
    new Uint8Array(0),
    whole.subarray(0, 100),
    whole.subarray(0, whole.length - 3),
    whole.subarray(1),
    new TextEncoder().encode("{}"),
  ];
  for (const file of damages) assert.throws(() => convertSentencePiece(file), FormatError);
});

Deno.test("loadTokenizer takes tokenizer.model where there is no tokenizer.json", () =>
  withTemporaryDirectory(async (directory) => {
    Deno.writeFileSync(`${directory}/tokenizer.model`, readModel("llama"));
    const i = fixture.texts.indexOf("Hello, world!");
    assert.deepEqual((await loadTokenizer(directory)).encode("Hello, world!"), [1, ...fixture.kinds.llama.ids[i]]);
    Deno.writeTextFileSync(`${directory}/tokenizer.json`, "{");
    await assert.rejects(loadTokenizer(directory), /tokenizer.json: it is not a JSON object/);
  }));
