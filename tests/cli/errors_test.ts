import assert from "node:assert/strict";
import { linkShippedModel, quantizeShippedModel, SHIPPED_MODEL } from "../shipped_model.ts";
import { withTemporaryDirectory } from "../temporary_directory.ts";
import { airkern } from "./airkern.ts";

/** Runs a command that must fail with one line on stderr, nothing on stdout, and exit code 1. */
async function assertFails(args: string[], message: string | RegExp, env?: Record<string, string>): Promise<void> {
  const { code, stdout, stderr } = await airkern(args, { env });
  const what = `airkern ${args.join(" ")}\n${stdout}${stderr}`;
  assert.deepEqual([code, stdout], [1, ""], what);
  const [line, rest] = [stderr.slice(0, stderr.indexOf("\n")), stderr.slice(stderr.indexOf("\n") + 1)];
  assert.equal(rest, "", what);
  if (typeof message === "string") assert.equal(line, `airkern: ${message}`);
  else assert.match(line, message);
}

Deno.test("every command says in one line that a path is missing", async () => {
  const missing = "Cannot open model /no/such/model: no such directory";
  await assertFails(["run", "/no/such/model", "text"], missing);
  await assertFails(["quantize", "/no/such/model", "--out", "/tmp/airkern-never"], missing);
  await assertFails(["plan", "/no/such/model", "--ram", "1GiB"], missing);
  await assertFails(["inspect", "/no/such/model"], missing);
  await assertFails(["verify", "/no/such/model"], missing);
  await assertFails(["bench", "/no/such/model"], missing);
  await assertFails(["perplexity", "/no/such/model", `${SHIPPED_MODEL}/heldout.txt`], missing);
  await assertFails(["perplexity", SHIPPED_MODEL, "/no/such/text"], "Cannot read the text /no/such/text: no such file");
});

Deno.test("usage errors are one line and exit code 1", async () => {
  await assertFails(["run", "model"], "missing required argument 'prompt'");
  await assertFails(["guess"], "unknown command 'guess'");
  await assertFails(["run", "model", "text", "--max-token", "3"], "unknown option '--max-token' (Did you mean --max-tokens?)");
  await assertFails(["quantize", "model"], "required option '--out <dir>' not specified");
  const invalid = (option: string, value: string, required: string) =>
    assertFails(
      ["run", "model", "text", option.split(" ")[0], value],
      `option '${option}' argument '${value}' is invalid. ${required}`,
    );
  await invalid("--max-tokens <n>", "0", "Required is a whole number from 1.");
  await invalid("--max-tokens <n>", "2.5", "Required is a whole number from 1.");
  await invalid("--threads <n>", "two", "Required is a whole number from 1.");
  await invalid("--temperature <x>", "-1", "Required is a number from 0.");
  await invalid("--top-p <x>", "1.5", "Required is a number from 0 to 1.");
  await invalid("--repetition-penalty <x>", "0", "Required is a number above 0.");
  await invalid("--seed <n>", "", "Required is a whole number from 0.");
  await invalid("--format <name>", "q5", "Allowed choices are q4o, nf4, q8, none.");
  await assertFails(
    ["run", "model", "text", "--ram", "8GB!"],
    /'--ram <size>' argument '8GB!' is invalid. Cannot read "8GB!" as a size/,
  );
});

Deno.test("run refuses prompts, budgets and contexts that cannot work", async () => {
  await withTemporaryDirectory(async (directory) => {
    const shards = await quantizeShippedModel(`${directory}/q4o`, "q4o");
    await assertFails(["run", shards, ""], "Cannot continue an empty prompt: required at least one character");
    await assertFails(
      ["run", shards, "In the beginning was the Word", "--context", "4"],
      /^airkern: Cannot generate: the prompt has \d+ tokens, the context holds 4 including at least one new token$/,
    );
    await assertFails(
      ["run", shards, "And the LORD said ".repeat(400)],
      /^airkern: Cannot generate: the prompt has \d+ tokens, the context holds 512 including at least one new token$/,
    );
    await assertFails(["run", shards, "text", "--context", "513"], "Cannot use contextTokens 513: the model was made for 512");
    await assertFails(
      ["run", shards, "text", "--ram", "10MiB"],
      /^airkern: Cannot plan \d+ tokens of context: need at least [\d.]+ MiB, the budget is 10.0 MiB; most is for the process itself/,
    );
    await assertFails(["run", shards, "text", "--stop", ""], "Cannot stop at an empty string: required at least one character");
    await assertFails(["run", shards, "text", "--format", "nf4"], `Cannot open ${shards} as nf4: its weights are stored as q4o`);
  });
});

Deno.test("run names what is wrong with a model's files", async () => {
  await withTemporaryDirectory(async (directory) => {
    const model = (name: string, change: (path: string) => void): string => {
      const path = linkShippedModel(`${directory}/${name}`);
      change(path);
      return path;
    };
    const editConfig = (path: string, change: object) => {
      const config = JSON.parse(Deno.readTextFileSync(`${path}/config.json`));
      Deno.removeSync(`${path}/config.json`);
      Deno.writeTextFileSync(`${path}/config.json`, JSON.stringify({ ...config, ...change }));
    };
    const truncated = model("truncated", (path) => {
      const bytes = Deno.readFileSync(`${path}/model.safetensors`);
      Deno.removeSync(`${path}/model.safetensors`);
      Deno.writeFileSync(`${path}/model.safetensors`, bytes.subarray(0, bytes.length - 100));
    });
    await assertFails(["run", truncated, "text"], /model\.safetensors/);
    const unknown = model("unknown", (path) => editConfig(path, { model_type: "guess" }));
    await assertFails(["run", unknown, "text"], /^airkern: Cannot use architecture "guess": supported: llama/);
    const rope = model(
      "rope",
      (path) => editConfig(path, { rope_parameters: null, rope_scaling: { rope_type: "twisted", factor: 2 } }),
    );
    await assertFails(["run", rope, "text"], /"twisted"/);
    const untokenized = model("untokenized", (path) => Deno.removeSync(`${path}/tokenizer.json`));
    await assertFails(["run", untokenized, "text"], /^airkern: Cannot load the tokenizer: .*tokenizer\.json is not there$/);
    const empty = `${directory}/empty`;
    Deno.mkdirSync(empty);
    await assertFails(
      ["run", empty, "text"],
      `Cannot read model ${empty}: it holds neither model.safetensors nor model.safetensors.index.json, ` +
        `nor pytorch_model.bin or its index, nor a .gguf file`,
    );
  });
});

Deno.test("run says how to build the native library where it is not there", async () => {
  await withTemporaryDirectory(async (directory) => {
    const shards = await quantizeShippedModel(`${directory}/q4o`, "q4o");
    await assertFails(
      ["run", shards, "text"],
      `Cannot load the cpu library: ${directory}/libairkern_cpu.so is not there; build it with \`make\` or set AIRKERN_LIBRARY_PATH`,
      { AIRKERN_LIBRARY_PATH: directory },
    );
  });
});

Deno.test("a stack trace is shown only with AIRKERN_DEBUG=1, above the same line", async () => {
  const { code, stderr } = await airkern(["run", "/no/such/model", "text"], { env: { AIRKERN_DEBUG: "1", NO_COLOR: "1" } });
  assert.equal(code, 1);
  assert.match(stderr, /^FormatError: .*\n {4}at .*\nairkern: Cannot open model \/no\/such\/model: no such directory\n$/s);
});
