import assert from "node:assert/strict";
import { Tokenizer as HuggingFaceTokenizer } from "@huggingface/tokenizers";
import { Random } from "../../lib/generate/random.ts";
import { fixture, LAYOUTS, makeTokenizer } from "./fixtures.ts";

for (const layout of LAYOUTS) {
  Deno.test(`Detokenizer's pieces joined are the text of all tokens, ${layout}, fixtures and 2000 random sequences`, async () => {
    const { files, cases } = fixture(layout);
    const tokenizer = await makeTokenizer(layout);
    const library = new HuggingFaceTokenizer(files.tokenizer, { ...files.tokenizerConfig, clean_up_tokenization_spaces: false });
    const random = new Random(2);
    const sequences = cases.map(({ ids }) => ids);
    for (let i = 0; i < 2000; i++) {
      // Half of them of few tokens, so that bytes meet often.
      const range = i % 2 === 0 ? tokenizer.vocabSize : Math.min(tokenizer.vocabSize, 262);
      sequences.push(Array.from({ length: 1 + random.uint32() % 12 }, () => random.uint32() % range));
    }
    for (const ids of sequences) {
      for (const skipSpecialTokens of [true, false]) {
        const detokenizer = tokenizer.detokenizer({ skipSpecialTokens });
        const pieces = ids.map((id) => detokenizer.push(id));
        const text = pieces.join("") + detokenizer.flush();
        assert.equal(text, tokenizer.decode(ids, { skipSpecialTokens }));
        assert.equal(text, library.decode(ids, { skip_special_tokens: skipSpecialTokens }), JSON.stringify(ids));
      }
    }
  });
}

Deno.test("Detokenizer gives out a character only when all its tokens are there", async () => {
  const tokenizer = await makeTokenizer("kjv");
  const ids = tokenizer.encode("a🙂é", { addSpecialTokens: false });
  assert.ok(ids.length > 5);
  const detokenizer = tokenizer.detokenizer();
  const pieces = ids.map((id) => detokenizer.push(id));
  assert.deepEqual(pieces.filter((piece) => piece !== ""), ["a", "🙂", "é"]);
  assert.equal(detokenizer.flush(), "");
});

Deno.test("Detokenizer gives U+FFFD for a character that stays incomplete, and starts anew after it", async () => {
  for (const layout of ["kjv", "prepend"] as const) {
    const tokenizer = await makeTokenizer(layout);
    const ids = tokenizer.encode("🙂", { addSpecialTokens: false });
    const [x] = tokenizer.encode("x", { addSpecialTokens: false }).slice(-1);
    const detokenizer = tokenizer.detokenizer({ continuation: true });
    const bytes = ids.slice(-4);
    assert.deepEqual(bytes.slice(0, 3).map((id) => detokenizer.push(id)), ["", "", ""], layout);
    assert.equal(detokenizer.flush(), "\uFFFD");
    assert.equal(detokenizer.push(x), "x");
    detokenizer.push(bytes[0]);
    assert.equal(detokenizer.push(x), "\uFFFDx");
  }
});

Deno.test("Detokenizer keeps the space at the start of a continuation, which a text of its own loses", async () => {
  for (const layout of ["prepend", "metaspace"] as const) {
    const tokenizer = await makeTokenizer(layout);
    const ids = tokenizer.encode("the world");
    for (let cut = 2; cut < ids.length; cut++) {
      const own = tokenizer.decode(ids.slice(0, cut));
      const detokenizer = tokenizer.detokenizer({ continuation: true });
      const rest = ids.slice(cut).map((id) => detokenizer.push(id)).join("");
      assert.equal(own + rest, "the world", layout);
    }
    assert.equal(tokenizer.decode(tokenizer.encode("world")), "world");
  }
});

Deno.test("Detokenizer leaves special tokens out, also in the middle of a character", async () => {
  const tokenizer = await makeTokenizer("kjv");
  const ids = tokenizer.encode("é", { addSpecialTokens: false });
  const detokenizer = tokenizer.detokenizer();
  assert.deepEqual([ids[0], 2046, ids[1]].map((id) => detokenizer.push(id)), ["", "", "é"]);
});
