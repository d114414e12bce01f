import assert from "node:assert/strict";
import { FormatError, UnsupportedError, UsageError } from "../../lib/errors.ts";
import { createTokenizer, loadTokenizer } from "../../lib/tokenizer/tokenizer.ts";
import { fixture, LAYOUTS, makeTokenizer } from "./fixtures.ts";

for (const layout of LAYOUTS) {
  Deno.test(`Tokenizer encodes as Hugging Face's tokenizers, ${layout}`, async () => {
    const { cases } = fixture(layout);
    const tokenizer = await makeTokenizer(layout);
    assert.ok(cases.length >= 20);
    for (const { text, ids, untrusted, ids_without_special_tokens: bare } of cases) {
      assert.deepEqual(tokenizer.encode(text, { allowSpecialTokens: true }), ids, JSON.stringify(text));
      if (untrusted) assert.deepEqual(tokenizer.encode(text), untrusted, JSON.stringify(text));
      if (bare) assert.deepEqual(tokenizer.encode(text, { allowSpecialTokens: true, addSpecialTokens: false }), bare);
    }
  });

  Deno.test(`Tokenizer decodes as Hugging Face's tokenizers, ${layout}`, async () => {
    const { cases, decodeCases } = fixture(layout);
    const tokenizer = await makeTokenizer(layout);
    for (const { ids, decoded, decoded_skip_special_tokens } of [...cases, ...decodeCases]) {
      assert.equal(tokenizer.decode(ids, { skipSpecialTokens: false }), decoded);
      assert.equal(tokenizer.decode(ids), decoded_skip_special_tokens);
    }
  });

  Deno.test(`Tokenizer makes no special token of what a user writes, ${layout}`, async () => {
    const tokenizer = await makeTokenizer(layout);
    const added = fixture(layout).files.tokenizer.added_tokens as { id: number; content: string; special: boolean }[];
    const special = new Set(added.map(({ id }) => id));
    assert.ok(special.size >= 3);
    for (const { content } of added) {
      for (const text of [content, ` ${content}`, `a${content}b`, content + content, `${content}\n`]) {
        const ids = tokenizer.encode(text, { addSpecialTokens: false });
        assert.ok(ids.length > 0 && !ids.some((id) => special.has(id)), text);
        if (layout === "kjv") assert.equal(tokenizer.decode(ids), text);
        assert.ok(tokenizer.encode(text, { addSpecialTokens: false, allowSpecialTokens: true }).some((id) => special.has(id)));
      }
    }
  });
}

Deno.test("Tokenizer makes no special token of a whole word of the vocabulary either (ignore_merges)", async () => {
  const tokenizer = await createTokenizer({
    tokenizer: {
      model: { type: "BPE", vocab: { a: 0, b: 1, "@": 2, "@ab": 3 }, merges: [], ignore_merges: true },
      added_tokens: [{ id: 3, content: "@ab", special: true }],
      decoder: { type: "ByteLevel" },
    },
  });
  assert.deepEqual(tokenizer.encode("@ab"), [2, 0, 1]);
  assert.deepEqual(tokenizer.encode("@ab", { allowSpecialTokens: true }), [3]);
});

Deno.test("Tokenizer is callable with one text or several, and knows its special tokens", async () => {
  const tokenizer = await makeTokenizer("kjv");
  const texts = ["In the beginning", "And"];
  assert.deepEqual(tokenizer(texts), { inputIds: texts.map((text) => tokenizer.encode(text)) });
  assert.deepEqual(tokenizer("And").inputIds, [tokenizer.encode("And")]);
  assert.deepEqual(tokenizer("And", { addSpecialTokens: false }).inputIds, [tokenizer.encode("And").slice(1)]);
  assert.equal(tokenizer.bosTokenId, 2042);
  assert.equal(tokenizer.encode("And")[0], 2042);
  assert.deepEqual(tokenizer.eosTokenIds, [2043]);
  assert.equal(tokenizer.vocabSize, 2048);
});

Deno.test("Tokenizer takes the tokens that end a text from generation_config.json, else config.json, else its own", async () => {
  const { files } = fixture("kjv");
  const eos = async (config: unknown, generation: unknown) =>
    (await createTokenizer({
      ...files,
      config: { eos_token_id: config },
      generationConfig: { eos_token_id: generation },
    })).eosTokenIds;
  assert.deepEqual(await eos(5, [6, 7]), [6, 7]);
  assert.deepEqual(await eos([5], 6), [6]);
  assert.deepEqual(await eos(5, undefined), [5]);
  assert.deepEqual(await eos(null, null), [2043]);
  await assert.rejects(
    eos(5, "6"),
    /Cannot read generation_config.json: eos_token_id is "6", required a token id or a list of them/,
  );
  await assert.rejects(eos([1.5], undefined), FormatError);
});

Deno.test("Tokenizer follows add_bos_token and add_eos_token of tokenizer_config.json", async () => {
  const { files } = fixture("prepend");
  const encode = async (flags: Record<string, boolean>) =>
    (await createTokenizer({ ...files, tokenizerConfig: { ...files.tokenizerConfig, ...flags } })).encode("the");
  const [bos, the] = await encode({});
  assert.equal(bos, 1);
  assert.deepEqual(await encode({ add_bos_token: false }), [the]);
  assert.deepEqual(await encode({ add_bos_token: true, add_eos_token: true }), [1, the, 2]);
});

Deno.test("Tokenizer splits added tokens that are not special in any text, by their own rules on spaces and words", async () => {
  const added = (id: number, content: string, rules: object = {}) => ({
    id,
    content,
    special: false,
    normalized: false,
    ...rules,
  });
  const vocab = Object.fromEntries([..."abxyĠ"].map((token, id) => [token, id]));
  const tokenizer = await createTokenizer({
    tokenizer: {
      model: { type: "BPE", vocab, merges: [] },
      pre_tokenizer: { type: "ByteLevel", add_prefix_space: false, use_regex: false },
      decoder: { type: "ByteLevel" },
      added_tokens: [
        added(10, "xx"),
        added(11, "xxy"),
        added(12, "ab", { single_word: true }),
        added(13, "yy", { lstrip: true, rstrip: true }),
      ],
    },
  });
  assert.deepEqual(tokenizer.encode("axxa"), [0, 10, 0]);
  assert.deepEqual(tokenizer.encode("xxyx"), [11, 2]);
  assert.deepEqual(tokenizer.encode("ab aba"), [12, 4, 0, 1, 0]);
  assert.deepEqual(tokenizer.encode("a  yy b"), [0, 13, 1]);
});

Deno.test("Tokenizer refuses tokens beyond its vocabulary, models and decoders it does not know, and damaged files", async () => {
  const { files } = fixture("kjv");
  const tokenizer = await createTokenizer(files);
  assert.throws(
    () => tokenizer.decode([1, 2048]),
    (error: Error) =>
      error instanceof UsageError && error.message === "Cannot decode token 2048: the vocabulary holds ids from 0 to 2047",
  );
  const change = (parts: object) => createTokenizer({ ...files, tokenizer: { ...files.tokenizer, ...parts } });
  await assert.rejects(change({ model: { type: "WordLevel", vocab: {} } }), UnsupportedError);
  await assert.rejects(change({ decoder: { type: "CTC" } }), /decoder step "CTC"/);
  await assert.rejects(change({ decoder: null }), /tokenizer.json has no decoder/);
  await assert.rejects(
    change({ decoder: { type: "Sequence", decoders: [{ type: "Strip", content: " ", stop: 1 }] } }),
    UnsupportedError,
  );
  await assert.rejects(change({ pre_tokenizer: { type: "Guess" } }), /pre-tokenizer "Guess"; known are Sequence, Split/);
  await assert.rejects(
    change({ pre_tokenizer: { type: "Punctuation", behavior: "Guess" } }),
    /behavior "Guess" of its Punctuation/,
  );
  await assert.rejects(
    change({ normalizer: { type: "Sequence", normalizers: [{ type: "Guess" }] } }),
    /normalizer "Guess"; known are Sequence, NFC/,
  );
  await assert.rejects(change({ model: undefined }), FormatError);

  const directory = await Deno.makeTempDir();
  try {
    await assert.rejects(loadTokenizer(directory), /Cannot load the tokenizer: .*tokenizer\.json is not there/);
    for (const text of ["{", "[]", "3", "null"]) {
      Deno.writeTextFileSync(`${directory}/tokenizer.json`, text);
      await assert.rejects(loadTokenizer(directory), /tokenizer\.json: it is not a JSON object/);
    }
    Deno.writeTextFileSync(`${directory}/tokenizer.json`, JSON.stringify(files.tokenizer));
    Deno.writeTextFileSync(`${directory}/config.json`, `{ "eos_token_id": 9 }`);
    const loaded = await loadTokenizer(directory);
    assert.deepEqual(loaded.eosTokenIds, [9]);
    assert.equal(loaded.bosTokenId, undefined);
    assert.deepEqual((await loadTokenizer(directory, { config: {}, generationConfig: { eos_token_id: [7, 8] } })).eosTokenIds, [
      7,
      8,
    ]);
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
});
