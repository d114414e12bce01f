import assert from "node:assert/strict";
import { UnsupportedError } from "../../lib/errors.ts";
import { readSentencePieceFile } from "../../lib/tokenizer/sentence_piece_file.ts";
import { createTokenizer, loadTokenizer } from "../../lib/tokenizer/tokenizer.ts";
import { withTemporaryDirectory } from "../temporary_directory.ts";
import { readJson } from "./fixtures.ts";

interface Kind {
  texts: string[];
  ids: number[][];
  decoded: string[];
  special_tokens?: Record<string, number>;
}

const fixture = readJson<Record<"chatglm_1" | "chatglm_3", Kind>>("tests/fixtures/tokenizer/chatglm.json");
const CONFIGS = {
  chatglm_1: { tokenizer_class: "ChatGLMTokenizer", num_image_tokens: 7, bos_token: "<sop>", eos_token: "<eop>" },
  chatglm_3: { tokenizer_class: "ChatGLMTokenizer" },
};

function readModel(name: string): Uint8Array {
  return Deno.readFileSync(new URL(`../fixtures/tokenizer/${name}.model`, import.meta.url));
}

for (const name of ["chatglm_1", "chatglm_3"] as const) {
  Deno.test(`${name}'s tokenizer gives the ids and texts of its published code`, async () => {
    const tokenizer = await createTokenizer({ sentencePiece: readModel(name), tokenizerConfig: CONFIGS[name] });
    const { texts, ids, decoded } = fixture[name];
    // What there spells a control token is one, of everyone.
    const control = ["[MASK]", "[gMASK]", "[sMASK]", "<sop>", "<eop>"];
    texts.forEach((text, i) => {
      const allowSpecialTokens = control.some((token) => text.includes(token)) && name === "chatglm_1";
      if (!allowSpecialTokens) {
        assert.deepEqual(tokenizer.encode(text, { addSpecialTokens: false }), ids[i], JSON.stringify(text));
      }
      assert.equal(tokenizer.decode(ids[i], { skipSpecialTokens: false }), decoded[i], JSON.stringify(text));
    });
    assert.ok(texts.length > 40);
  });
}

Deno.test("ChatGLM's tokenizers put its blank and start tokens where its generations have them, and know what ends a text", async () => {
  const first = await createTokenizer({ sentencePiece: readModel("chatglm_1"), tokenizerConfig: CONFIGS.chatglm_1 });
  const pieces = readSentencePieceFile(readModel("chatglm_1")).pieces.map(({ text }) => text);
  const id = (piece: string) => pieces.indexOf(piece) + 7;
  assert.deepEqual(first.encode("x").slice(-2), [id("[gMASK]"), id("<sop>")]);
  assert.deepEqual([first.bosTokenId, first.eosTokenIds], [id("<sop>"), [id("<eop>")]]);
  // A user writes none of them, unless it is allowed.
  assert.ok(!first.encode("a[gMASK]b", { addSpecialTokens: false }).includes(id("[gMASK]")));
  assert.ok(first.encode("a[MASK]b", { addSpecialTokens: false, allowSpecialTokens: true }).includes(id("[MASK]")));

  const third = await createTokenizer({ sentencePiece: readModel("chatglm_3"), tokenizerConfig: CONFIGS.chatglm_3 });
  const special = fixture.chatglm_3.special_tokens!;
  assert.deepEqual(third.encode("x").slice(0, 2), [special["[gMASK]"], special.sop]);
  const text = Object.keys(special).join("");
  assert.deepEqual(third.encode(text, { addSpecialTokens: false, allowSpecialTokens: true }), Object.values(special));
  assert.equal(third.decode(Object.values(special), { skipSpecialTokens: false }), text);
  assert.deepEqual(third.eosTokenIds, [2]);
});

Deno.test("ChatGLM's tokenizer is read from ice_text.model, and refuses settings that it does not know", () =>
  withTemporaryDirectory(async (directory) => {
    Deno.writeFileSync(`${directory}/ice_text.model`, readModel("chatglm_1"));
    const write = (changes: object) =>
      Deno.writeTextFileSync(`${directory}/tokenizer_config.json`, JSON.stringify({ ...CONFIGS.chatglm_1, ...changes }));
    write({});
    const i = fixture.chatglm_1.texts.indexOf("Hello, world!");
    assert.deepEqual(
      (await loadTokenizer(directory)).encode("Hello, world!", { addSpecialTokens: false }),
      fixture.chatglm_1.ids[i],
    );
    for (const changes of [{ do_lower_case: true }, { remove_space: true }, { num_image_tokens: -1 }]) {
      write(changes);
      await assert.rejects(loadTokenizer(directory), (error) => error instanceof UnsupportedError);
    }
  }));
