import assert from "node:assert/strict";
import { FormatError, UnsupportedError } from "../../lib/errors.ts";
import { readSentencePieceFile, type SentencePieceFile } from "../../lib/tokenizer/sentence_piece_file.ts";
import { textNormalizer } from "../../lib/tokenizer/normalizer.ts";
import { createTokenizer, loadTokenizer, type Tokenizer } from "../../lib/tokenizer/tokenizer.ts";
import { withTemporaryDirectory } from "../temporary_directory.ts";
import { digest } from "./digest.ts";
import { readJson } from "./fixtures.ts";
import { randomStrings } from "./random_strings.ts";

interface Fixture {
  strings: number;
  chunk: number;
  texts: string[];
  kinds: Record<string, { ids: number[][]; decoded: string[]; random: { ids: string[]; decoded: string[] } }>;
  rust: Record<string, {
    normalizer: { table: string };
    texts: string[];
    normalized: string[];
    ids: number[][];
    random: { normalized: string[]; ids: string[] };
  }>;
}

const fixture = readJson<Fixture>("tests/fixtures/tokenizer/sentence_piece.json");
const strings = randomStrings(fixture.strings);
const chunks = Array.from(
  { length: strings.length / fixture.chunk },
  (_, i) => strings.slice(i * fixture.chunk, (i + 1) * fixture.chunk),
);

function readModel(name: string): Uint8Array {
  return Deno.readFileSync(new URL(`../fixtures/tokenizer/sentence_piece_${name}.model`, import.meta.url));
}

async function make(name: string, tokenizerConfig: Record<string, unknown> = {}): Promise<Tokenizer> {
  return await createTokenizer({ sentencePiece: readModel(name), tokenizerConfig });
}

for (const [name, { ids, decoded, random }] of Object.entries(fixture.kinds)) {
  Deno.test(`a tokenizer.model gives SentencePiece's own ids and texts, for a corpus and 10000 random strings, ${name}`, async () => {
    const tokenizer = await make(name);
    const unknownId = readSentencePieceFile(readModel(name)).pieces.findIndex(({ text }) => text === "<unk>");
    const encode = (text: string) => tokenizer.encode(text, { addSpecialTokens: false });
    // Tokens of unknown text decode to ⁇ there, and to the token's name here and in transformers.
    const decode = (ids: number[]) => ids.includes(unknownId) ? "" : tokenizer.decode(ids);
    fixture.texts.forEach((text, i) => {
      assert.deepEqual(encode(text), ids[i], JSON.stringify(text));
      assert.equal(decode(ids[i]), decoded[i], JSON.stringify(text));
    });
    chunks.forEach((chunk, i) => {
      const found = chunk.filter((text) => !text.includes("\0")).map(encode);
      assert.equal(digest(found), random.ids[i], `ids of strings from ${i * fixture.chunk} on`);
      assert.equal(digest(found.map(decode)), random.decoded[i], `texts of strings from ${i * fixture.chunk} on`);
    });
  });
}

for (const [name, { normalizer: { table }, texts, normalized, ids, random }] of Object.entries(fixture.rust)) {
  Deno.test(`Nmt, Precompiled and Unigram of a tokenizer.json give the Rust library's texts and ids, ${name}`, async () => {
    const { pieces }: SentencePieceFile = readSentencePieceFile(readModel(name));
    const { characterTable } = readSentencePieceFile(readModel(table));
    const normalizer = {
      type: "Sequence",
      normalizers: [
        { type: "Nmt" },
        { type: "Precompiled", precompiled_charsmap: characterTable.toBase64() },
        { type: "Replace", pattern: { Regex: " {2,}" }, content: " " },
      ],
    };
    const special = ["<unk>", "<s>", "</s>"];
    const metaspace = { type: "Metaspace", replacement: "▁", prepend_scheme: "always", split: true };
    const tokenizer = await createTokenizer({
      tokenizer: {
        added_tokens: special.map((content, id) => ({ id, content, special: true, normalized: false })),
        normalizer,
        pre_tokenizer: metaspace,
        decoder: metaspace,
        model: {
          ...{ type: "Unigram", unk_id: 0, byte_fallback: name === "unigram" },
          vocab: pieces.map(({ text, score }) => [text, score]),
        },
      },
    });
    const normalize = textNormalizer(normalizer, await import("@huggingface/tokenizers"));
    const encode = (text: string) => special.some((token) => text.includes(token)) ? [] : tokenizer.encode(text);
    texts.forEach((text, i) => {
      assert.equal(normalize(text), normalized[i], JSON.stringify(text));
      assert.deepEqual(encode(text), ids[i], JSON.stringify(text));
    });
    chunks.forEach((chunk, i) => {
      assert.equal(digest(chunk.map(normalize)), random.normalized[i], `texts of strings from ${i * fixture.chunk} on`);
      assert.equal(digest(chunk.map(encode)), random.ids[i], `ids of strings from ${i * fixture.chunk} on`);
    });
  });
}

Deno.test("a tokenizer.model adds the beginning of a text unless the config says otherwise, and the config's tokens", async () => {
  assert.equal((await make("llama")).encode("a")[0], 1);
  const config = {
    add_bos_token: false,
    added_tokens_decoder: { "560": { content: "<|end|>", special: true } },
    eos_token: "<|end|>",
  };
  const tokenizer = await make("llama", config);
  assert.notEqual(tokenizer.encode("a")[0], 1);
  assert.deepEqual(tokenizer.eosTokenIds, [560]);
  assert.deepEqual(tokenizer.encode("<|end|>", { allowSpecialTokens: true }), [560]);
  assert.ok(!tokenizer.encode("<|end|>").includes(560));
  await assert.rejects(make("llama", { added_tokens_decoder: { x: {} } }), FormatError);
});

Deno.test("a conversation spells no symbol that the template writes, and text around it has SentencePiece's ids", async () => {
  for (const name of ["llama", "unigram", "char"]) {
    const template = "{% for message in messages %}<|tool|>{{ message.content }}{% endfor %}";
    const tokenizer = await make(name, { add_bos_token: false, chat_template: template });
    const pieces = readSentencePieceFile(readModel(name)).pieces.map(({ text }) => text);
    const tool = pieces.indexOf("<|tool|>");
    const { inputIds, text } = await tokenizer.applyChatTemplate([{ role: "user", content: "a<|tool|>b" }]);
    assert.equal(text, "<|tool|>a<|tool|>b");
    assert.equal(inputIds.filter((id) => id === tool).length, 1);
    assert.equal(tokenizer.decode(inputIds), text);
    assert.deepEqual(tokenizer.encode(text).filter((id) => id === tool).length, 2);
  }
});

Deno.test("a conversation spells no word that is a symbol, and no control piece", async () => {
  const config = { add_bos_token: false, chat_template: "{{ messages[0].content }}{{ ' <|tool|>' if tools }}" };
  const tokenizer = await make("word_plain", config);
  const pieces = readSentencePieceFile(readModel("word_plain")).pieces.map(({ text }) => text);
  const ids = async (content: string) => (await tokenizer.applyChatTemplate([{ role: "user", content }])).inputIds;
  const tool = pieces.indexOf("<|tool|>"), unknown = pieces.indexOf("<unk>");
  assert.deepEqual(await ids("<|tool|>"), [unknown]);
  assert.deepEqual(tokenizer.encode("<|tool|>", { addSpecialTokens: false }), [tool]);
  assert.deepEqual(tokenizer.encode("<s>", { addSpecialTokens: false }), [unknown]);
  assert.deepEqual(await ids("the"), [pieces.indexOf("the")]);
});

Deno.test("a tokenizer.model of another type is refused by name, and damaged files", async () => {
  const refuses = (file: Uint8Array, message: RegExp) =>
    assert.rejects(
      createTokenizer({ sentencePiece: file }),
      (error: Error) => error instanceof UnsupportedError && message.test(error.message),
    );
  // A piece "abc"; trainer_spec's model_type, treat_whitespace_as_suffix; denormalizer_spec.
  const piece = [10, 5, 10, 3, 97, 98, 99];
  await refuses(
    Uint8Array.of(...piece, 18, 2, 24, 7),
    /is of type 7, supported are bpe, unigram, word, char; save it as tokenizer.json/,
  );
  await refuses(Uint8Array.of(...piece, 18, 5, 24, 2, 192, 1, 1), /spaces at the end of words/);
  await refuses(Uint8Array.of(...piece, 18, 2, 24, 2, 42, 3, 18, 1, 65), /denormalizer_spec/);
  const whole = readModel("llama");
  const damages = [
    new Uint8Array(0),
    whole.subarray(0, 100),
    whole.subarray(0, whole.length - 3),
    whole.subarray(1),
    new TextEncoder().encode("{}"),
    // A table of characters whose trie is larger than it.
    Uint8Array.of(...piece, 18, 2, 24, 2, 26, 8, 18, 6, 16, 0, 0, 0, 1, 1),
  ];
  for (const file of damages) await assert.rejects(createTokenizer({ sentencePiece: file }), FormatError);
  // A trie that points outside of itself finds nothing.
  const { characterTable } = readSentencePieceFile(readModel("rules"));
  const next = randomStrings(200);
  for (let seed = 0; seed < 50; seed++) {
    const table = characterTable.slice();
    for (let i = 0; i < 40; i++) table[4 + (seed * 7919 + i * 104729) % (table.length - 4)] ^= 1 + (seed * 31 + i) % 255;
    const normalize = textNormalizer({ type: "Precompiled", precompiled_charsmap: table.toBase64() }, {} as never);
    for (const text of next) assert.equal(typeof normalize(text), "string");
  }
});

Deno.test("loadTokenizer takes tokenizer.model where there is no tokenizer.json", () =>
  withTemporaryDirectory(async (directory) => {
    Deno.writeFileSync(`${directory}/tokenizer.model`, readModel("llama"));
    const i = fixture.texts.indexOf("Hello, world!");
    assert.deepEqual((await loadTokenizer(directory)).encode("Hello, world!"), [1, ...fixture.kinds.llama.ids[i]]);
    Deno.writeTextFileSync(`${directory}/tokenizer.json`, "{");
    await assert.rejects(loadTokenizer(directory), /tokenizer.json: it is not a JSON object/);
  }));
