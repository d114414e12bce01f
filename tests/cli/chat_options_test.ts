import assert from "node:assert/strict";
import { Command } from "commander";
import { join } from "node:path";
import { addChatOptions, type ChatOptions, chatPrompt, checkChatOptions } from "../../lib/cli/chat_options.ts";
import { UsageError } from "../../lib/errors.ts";
import { createTokenizer, type Tokenizer } from "../../lib/tokenizer/tokenizer.ts";
import { withTemporaryDirectory } from "../temporary_directory.ts";
import { readJson } from "../tokenizer/fixtures.ts";

const CHAT = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}{{ '[assistant]' if add_generation_prompt }}";
const SHOW = "{{ tools | tojson }}{{ documents | tojson }}{{ style }}{{ fast is false }}";

/** Returns a tokenizer that takes each byte for a token, so that its text tells the prompt. */
async function bytes(): Promise<Tokenizer> {
  const { tokenizer } = readJson<{ tokenizer: Record<string, unknown> }>("tests/fixtures/chat/sources.json");
  const alphabet = Array.from({ length: 94 }, (_, i) => String.fromCharCode(33 + i));
  const vocab = Object.fromEntries(["\u0120", ...alphabet].map((piece, id) => [piece, id]));
  return await createTokenizer({
    tokenizer: {
      ...tokenizer,
      added_tokens: [],
      pre_tokenizer: { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: true },
      model: { ...tokenizer.model as object, vocab },
    },
    tokenizerConfig: { chat_template: [{ name: "default", template: CHAT }, { name: "show", template: SHOW }] },
  });
}

function parsed(...args: string[]): ChatOptions {
  return addChatOptions(new Command().exitOverride()).parse(args, { from: "user" }).opts();
}

Deno.test("chatPrompt makes a conversation of a prompt and files, and continues what an assistant began", () =>
  withTemporaryDirectory(async (directory) => {
    const tokenizer = await bytes();
    const file = (name: string, value: unknown) => {
      const path = join(directory, name);
      Deno.writeTextFileSync(path, typeof value === "string" ? value : JSON.stringify(value));
      return path;
    };
    const prompt = async (text: string | undefined, ...args: string[]) =>
      tokenizer.decode(await chatPrompt(tokenizer, text, parsed("--chat", ...args)));
    assert.equal(await prompt("Hi"), "[user]Hi[assistant]");
    assert.equal(await prompt("Hi", "--system", "Be brief."), "[system]Be brief.[user]Hi[assistant]");
    const messages = file("messages.json", [{ role: "user", content: "Count." }, { role: "assistant", content: "One, " }]);
    assert.equal(await prompt("Go on.", "--messages", messages), "[user]Count.[assistant]One, [user]Go on.[assistant]");
    assert.equal(await prompt(undefined, "--messages", messages), "[user]Count.[assistant]One, ");
    const list = file("list.json", [{ name: "f" }]);
    const show = (...args: string[]) => prompt("x", "--template", "show", ...args);
    assert.equal(await show(), "nullnullFalse");
    assert.equal(await show("--tools", list, "--documents", list), '[{"name": "f"}][{"name": "f"}]False');
    assert.equal(await show("--template-variable", "fast=false", "--template-variable", "style=a=b"), "nullnulla=bTrue");
    assert.equal(await show("--template-variable", 'fast="false"'), "nullnullFalse");
    const refused: [string | undefined, string[], RegExp][] = [
      ["x", ["--messages", file("object.json", {})], /^Cannot use --messages .*object.json: required is a JSON list of objects$/],
      [
        "x",
        ["--messages", file("texts.json", ["x"])],
        /^Cannot use --messages .*texts.json: required is a JSON list of objects$/,
      ],
      ["x", ["--tools", file("cut.json", "[")], /^Cannot use --tools .*cut.json: /],
      ["x", ["--documents", join(directory, "none")], /^Cannot use --documents .*ENOENT/],
      ["x", ["--template", "none"], /^Cannot use chat template "none": there are default, show/],
      ["x", ["--messages", file("nobody.json", [{ content: "x" }])], /role undefined of message 0/],
      [undefined, ["--messages", file("empty.json", [])], /there are no messages/],
    ];
    for (const [text, args, message] of refused) {
      await assert.rejects(prompt(text, ...args), (error: Error) => error instanceof UsageError && message.test(error.message));
    }
    assert.throws(() => parsed("--template-variable", "fast"), /Cannot use --template-variable "fast": required is NAME=VALUE/);
  }));

Deno.test("checkChatOptions refuses what is of no use without --chat", () => {
  for (const option of ["system", "messages", "tools", "documents", "template"]) {
    assert.throws(
      () => checkChatOptions(parsed(`--${option}`, "x")),
      new UsageError(`Cannot use --${option}: it needs --chat beside it`),
    );
    checkChatOptions(parsed("--chat", `--${option}`, "x"));
  }
  assert.throws(() => checkChatOptions(parsed("--template-variable", "x=1")), /Cannot use --template-variable: it needs --chat/);
  checkChatOptions(parsed());
});
