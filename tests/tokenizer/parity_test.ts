import assert from "node:assert/strict";
import { createTokenizer, type Tokenizer } from "../../lib/tokenizer/tokenizer.ts";
import { digest } from "./digest.ts";
import { readJson } from "./fixtures.ts";
import { randomStrings } from "./random_strings.ts";

const PARTS = ["ids", "untrusted", "decoded", "skipped"] as const;
type Part = typeof PARTS[number];

interface Fixture {
  strings: number;
  chunk: number;
  strings_sha256: string;
  corpus: string[];
  vocabularies: Record<string, Record<string, unknown>>;
  kinds: Record<string, {
    tokenizer: Record<string, unknown>;
    model: Record<string, unknown>;
    vocabulary: string;
    untrusted_leaves_out: string[];
    corpus: Record<Exclude<Part, "ids">, string> & { ids: number[][] };
    random: Record<Part, string[]>;
  }>;
}

const fixture = readJson<Fixture>("tests/fixtures/tokenizer/parity.json");

async function makeTokenizer(kind: string): Promise<Tokenizer> {
  const { tokenizer, model, vocabulary } = fixture.kinds[kind];
  return await createTokenizer({ tokenizer: { ...tokenizer, model: { ...model, ...fixture.vocabularies[vocabulary] } } });
}

/** Returns what the Rust library's results are compared with; decoding token by token, as a stream. */
function results(tokenizer: Tokenizer, texts: readonly string[], leftOut: readonly string[]): Record<Part, unknown[]> {
  const ids = texts.map((text) => tokenizer.encode(text, { allowSpecialTokens: true }));
  const decode = (skipSpecialTokens: boolean) =>
    ids.map((ids) => {
      const detokenizer = tokenizer.detokenizer({ skipSpecialTokens });
      return ids.map((id) => detokenizer.push(id)).join("") + detokenizer.flush();
    });
  return {
    ids,
    untrusted: texts.map((text) =>
      leftOut.some((token) => text.includes(token)) ? [] : tokenizer.encode(text, { addSpecialTokens: false })
    ),
    decoded: decode(false),
    skipped: decode(true),
  };
}

Deno.test("the fixture has the tokenizers of the families, and its random strings are made again", () => {
  const kinds = [
    "llama-3",
    "llama-2",
    "qwen2",
    "gemma",
    "deepseek-v3",
    "mistral-nemo",
    "mistral-v0.3",
    "qwen3.5",
    "kimi-k2",
    "gpt-oss",
    "gemma-3",
    "phi-3",
    "phi-4",
    "unigram",
    "bert",
  ];
  for (const kind of kinds) assert.ok(kind in fixture.kinds, kind);
  assert.equal(fixture.strings, 10_000);
  const strings = randomStrings(fixture.strings);
  assert.equal(digest(strings), fixture.strings_sha256);
  assert.ok(new Set(strings).size > 9000);
});

for (const [kind, expected] of Object.entries(fixture.kinds)) {
  Deno.test(`Tokenizer ${kind} gives the Rust library's ids and texts, for a corpus and 10000 random strings`, async () => {
    const tokenizer = await makeTokenizer(kind);
    const leftOut = expected.untrusted_leaves_out;
    const corpus = results(tokenizer, fixture.corpus, leftOut);
    fixture.corpus.forEach((text, i) => assert.deepEqual(corpus.ids[i], expected.corpus.ids[i], JSON.stringify(text)));
    for (const part of ["untrusted", "decoded", "skipped"] as const) {
      assert.equal(digest(corpus[part]), expected.corpus[part], part);
    }
    const strings = randomStrings(fixture.strings);
    for (let i = 0; i * fixture.chunk < strings.length; i++) {
      const found = results(tokenizer, strings.slice(i * fixture.chunk, (i + 1) * fixture.chunk), leftOut);
      for (const part of PARTS) {
        assert.equal(digest(found[part]), expected.random[part][i], `${part} of strings from ${i * fixture.chunk} on`);
      }
    }
  });

  Deno.test(`Tokenizer ${kind} goes on with a text where it was, token by token, and decodes to whole characters`, async () => {
    const tokenizer = await makeTokenizer(kind);
    for (const text of fixture.corpus) {
      const ids = tokenizer.encode(text, { addSpecialTokens: false });
      const whole = tokenizer.decode(ids);
      const pieces = [];
      const detokenizer = tokenizer.detokenizer();
      for (const id of ids) pieces.push(detokenizer.push(id));
      pieces.push(detokenizer.flush());
      if (!whole.includes("\ufffd")) assert.ok(pieces.every((piece) => !piece.includes("\ufffd")), JSON.stringify(text));
      for (let cut = 1; cut < ids.length; cut++) {
        const own = tokenizer.decode(ids.slice(0, cut));
        // In the middle of a character, or before a text has begun, there is nothing to go on from.
        if (own.endsWith("\ufffd") || own === "" || !whole.startsWith(own)) continue;
        const rest = tokenizer.detokenizer({ continuation: true });
        assert.equal(
          own + ids.slice(cut).map((id) => rest.push(id)).join("") + rest.flush(),
          whole,
          `${JSON.stringify(text)} at ${cut}`,
        );
      }
    }
  });
}

Deno.test("Tokenizer makes no special token of any text that a user writes, whatever its kind", async () => {
  for (const [kind, { tokenizer: described }] of Object.entries(fixture.kinds)) {
    const tokenizer = await makeTokenizer(kind);
    const added = described.added_tokens as { id: number; content: string; special: boolean }[];
    const special = added.filter(({ special }) => special);
    // What stands for the unknown is not a token that a text could forge anything with.
    const ids = new Set(special.filter(({ content }) => !/unk/i.test(content)).map(({ id }) => id));
    for (const { content } of special) {
      for (const text of [content, `a ${content} b`, content + content]) {
        assert.ok(!tokenizer.encode(text, { addSpecialTokens: false }).some((id) => ids.has(id)), `${kind} ${text}`);
      }
    }
  }
});
