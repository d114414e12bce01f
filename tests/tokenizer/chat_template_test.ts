import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { FormatError, UnsupportedError, UsageError } from "../../lib/errors.ts";
import { type ChatMessage, ChatTemplate, type ChatTemplateOptions } from "../../lib/tokenizer/chat_template.ts";
import { strftime } from "../../lib/tokenizer/strftime.ts";
import { readJson } from "./fixtures.ts";

/** What transformers renders: a text, a long one's hash, or an error, whose text is known where the template itself raised it. */
type Rendering = { text: string } | { length: number; sha256: string } | { error: string | null };

interface Fixture {
  now: string;
  special_tokens: Record<string, string>;
  conversations: Record<string, { messages: ChatMessage[]; options: Record<string, unknown> }>;
  renderings: Record<string, Record<string, Rendering>>;
}

const fixture = readJson<Fixture>("tests/fixtures/chat/renderings.json");
const now = new Date(fixture.now);

function readTemplate(name: string): string {
  return Deno.readTextFileSync(new URL(`../fixtures/chat/templates/${name}.jinja`, import.meta.url));
}

function optionsOf(options: Record<string, unknown>): ChatTemplateOptions {
  const {
    add_generation_prompt: addGenerationPrompt,
    continue_final_message: continueFinalMessage,
    tools,
    documents,
    ...variables
  } = options;
  return { addGenerationPrompt, continueFinalMessage, tools, documents, variables, now } as ChatTemplateOptions;
}

Deno.test("every template of the fixtures has renderings, and there are those of the families", () => {
  const names = [...Deno.readDirSync(new URL("../fixtures/chat/templates/", import.meta.url))].map(({ name }) =>
    name.replace(".jinja", "")
  );
  assert.deepEqual(names.sort(), Object.keys(fixture.renderings).sort());
  for (
    const family of [
      "llama",
      "mistral",
      "qwen",
      "gemma",
      "phi",
      "granite",
      "smollm",
      "glm",
      "internlm",
      "command",
      "deepseek",
      "gpt-oss",
      "yi",
      "olmo",
      "falcon",
      "stable",
      "kimi",
      "tinyllama",
      "mixtral",
      "chatglm",
      "exaone",
      "minimax",
      "ernie",
      "lfm",
      "seed-oss",
    ]
  ) {
    assert.ok(names.some((name) => name.startsWith(family)), family);
  }
});

for (const [name, renderings] of Object.entries(fixture.renderings)) {
  Deno.test(`ChatTemplate renders ${name} byte for byte as transformers`, async () => {
    const template = await ChatTemplate.parse(readTemplate(name), fixture.special_tokens);
    let texts = 0;
    for (const [conversation, expected] of Object.entries(renderings)) {
      const { messages, options } = fixture.conversations[conversation];
      const render = () => template.render(messages, optionsOf(options));
      if ("error" in expected) {
        assert.throws(render, (error: Error) => {
          assert.ok(error instanceof UsageError, `${conversation}: ${error.stack}`);
          if (expected.error !== null) assert.equal(error.message, `Cannot apply the chat template: ${expected.error}`);
          return true;
        });
        continue;
      }
      const text = render();
      texts++;
      if ("text" in expected) assert.equal(text, expected.text, conversation);
      else {
        assert.equal(new TextEncoder().encode(text).length, expected.length, conversation);
        assert.equal(createHash("sha256").update(text).digest("hex"), expected.sha256, conversation);
      }
    }
    assert.ok(texts >= 5);
  });
}

/** Returns what a template gives. */
async function render(source: string, variables: Record<string, unknown> = {}): Promise<string> {
  const template = await ChatTemplate.parse(source, {});
  return template.render([{ role: "user", content: "x" }], { variables, now });
}

Deno.test("ChatTemplate gives what Python's Jinja gives for each expression of the fixture", async () => {
  const { variables, expressions } = readJson<{ variables: Record<string, unknown>; expressions: [string, string | null][] }>(
    "tests/fixtures/chat/expressions.json",
  );
  assert.ok(expressions.length > 550);
  for (const [source, expected] of expressions) {
    const refused = (error: Error) => error instanceof UsageError || error instanceof FormatError;
    if (expected === null) await assert.rejects(render(source, variables), refused, source);
    else assert.equal(await render(source, variables), expected, source);
  }
});

Deno.test("ChatTemplate refuses what it does not know by name, and templates that are none or do not end", async () => {
  await assert.rejects(
    render("{{ 'a' | urlize }}"),
    (error: Error) => error instanceof UnsupportedError && /filter "urlize"/.test(error.message),
  );
  await assert.rejects(
    render("{{ 'a' is pretty }}"),
    (error: Error) => error instanceof UnsupportedError && /test "pretty"/.test(error.message),
  );
  await assert.rejects(
    render("{{ strftime_now('%Q') }}"),
    (error: Error) => error instanceof UnsupportedError && /%Q/.test(error.message),
  );
  await assert.rejects(ChatTemplate.parse("{% if x %}", {}), FormatError);
  await assert.rejects(ChatTemplate.parse("{{ 'a }}", {}), FormatError);
  await assert.rejects(render("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}"), /maximum recursion depth/);
  await assert.rejects(render("{% for i in range(100001) %}{% endfor %}"), /Range too big/);
  await assert.rejects(
    render("{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{{ 1 }}{% endfor %}"),
    /does not come to an end/,
  );
});

Deno.test("ChatTemplate refuses what its parser does not read, rather than giving it another meaning", async () => {
  for (
    const source of [
      "{{ 1, 2 }}",
      "{% raw %}{{ x }}{% endraw %}",
      "{%+ if true %}{% endif %}",
      "{% include 'x' %}",
      "{{ '\\d' }}",
    ]
  ) {
    await assert.rejects(render(source), FormatError, source);
  }
  await assert.rejects(
    render("{{ '{:e}'.format(1.0) }}"),
    (error: Error) => error instanceof UnsupportedError && /format "e"/.test(error.message),
  );
  await assert.rejects(render("{% for x in [[]] recursive %}{{ loop([x]) }}{% endfor %}"), /maximum recursion depth/);
});

Deno.test("ChatTemplate refuses no messages, roles that are no words, and options that contradict each other", async () => {
  const template = await ChatTemplate.parse("{% for m in messages %}{{ m.role }}:{{ m.content }}{% endfor %}", {});
  assert.throws(() => template.render([]), /there are no messages/);
  for (const role of ["", "user|>", "a b", "<x>"]) {
    assert.throws(() => template.render([{ role, content: "x" }]), /role ".*" of message 0, required is a plain word/);
  }
  assert.throws(
    () => template.render([{ role: "user", content: "x" }], { addGenerationPrompt: true, continueFinalMessage: true }),
    UsageError,
  );
  const open = (message: ChatMessage, continueFinalMessage: boolean | string = true) => () =>
    template.render([message], { continueFinalMessage });
  assert.throws(open({ role: "user" }), /it has no "content"/);
  assert.throws(open({ role: "user", content: [{ type: "image" }] }), /it has no text/);
  assert.throws(open({ role: "user", content: "x", reasoning: "y" }, "reasoning"), /the chat template does not read "reasoning"/);
  assert.throws(open({ role: "user", content: "x" }, "reasoning"), /it has no "reasoning"/);
  assert.throws(() => template.render([{ role: "user", content: "x", when: new Date() }]), /required is what JSON can hold/);
});

Deno.test("strftime() formats as Python's in the C locale", () => {
  const { times } = readJson<{ times: { time: string; format: string; text: string }[] }>("tests/fixtures/chat/expressions.json");
  assert.ok(times.length >= 20);
  for (const { time, format, text } of times) assert.equal(strftime(new Date(time), format), text, `${time} ${format}`);
});
