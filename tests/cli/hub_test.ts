import assert from "node:assert/strict";
import fs from "node:fs";
import { join } from "node:path";
import { filesOf } from "../hub/models.ts";
import { commitOf, HubServer, TOKEN } from "../hub/server.ts";
import { SHIPPED_MODEL } from "../shipped_model.ts";
import { withTemporaryDirectory } from "../temporary_directory.ts";
import { airkern, type Outcome } from "./airkern.ts";

const ID = "airkern/kjv-5m";
const PROMPT = "In the beginning";

/** A short template, so that few tokens make a prompt. */
const TEMPLATE = "{% for m in messages %}[{{ m.role }}] {{ m.content }}{{ eos_token }}{% endfor %}" +
  "{% if add_generation_prompt %}[assistant] {% endif %}";

interface HubTest {
  server: HubServer;
  directory: string;
  snapshot: string;
  /** Runs a command against the hub. */
  command: (args: string[], env?: Record<string, string>) => Promise<Outcome>;
}

function withHub(body: (test: HubTest) => Promise<void>): () => Promise<void> {
  return () =>
    withTemporaryDirectory(async (directory) => {
      await using server = await HubServer.start();
      const files = filesOf(SHIPPED_MODEL);
      const config = JSON.parse(new TextDecoder().decode(files.get("tokenizer_config.json")));
      files.set("tokenizer_config.json", new TextEncoder().encode(JSON.stringify({ ...config, chat_template: TEMPLATE })));
      const repository = { files, revisions: ["v1"] };
      server.repositories.set(ID, repository);
      const home = join(directory, "home");
      await body({
        server,
        directory,
        snapshot: join(home, "hub", "models--airkern--kjv-5m", "snapshots", commitOf(repository)),
        command: (args, env) => airkern(args, { env: server.environment(home, { HF_HUB_DOWNLOAD_TIMEOUT: "5", ...env }) }),
      });
    });
}

Deno.test(
  "plan, inspect, pull, run, quantize and perplexity take a name on the hub",
  withHub(async ({ server, directory, snapshot, command }) => {
    const plan = await command(["plan", ID, "--ram", "1GiB", "--device", "cpu"]);
    assert.deepEqual([plan.code, plan.stderr], [0, ""]);
    assert.match(
      plan.stdout,
      /^not quantized yet; will take about [\d.]+ MiB in .*airkern-q4o\nplan\n.*predicted .* a token\n$/s,
    );
    const inspected = await command(["inspect", ID, "--tensors"]);
    assert.match(
      inspected.stdout,
      /: checkpoint\n {2}source +airkern\/kjv-5m, revision [0-9a-f]{40}\n.*mlp\.up_proj\.weight +BF16/s,
    );
    // The header of the only file, and no weights.
    assert.deepEqual(server.requests.filter(({ host }) => host === "content").map(({ range }) => range), [
      "bytes=0-65535",
      "bytes=0-65535",
    ]);
    const pulled = await command(["pull", ID, "--revision", "v1", "--json"]);
    assert.deepEqual([pulled.code, pulled.stderr], [0, ""]);
    const report = JSON.parse(pulled.stdout);
    assert.deepEqual([report.id, report.path, report.weightFiles], [ID, snapshot, ["model.safetensors"]]);
    const local = await airkern([
      "run",
      SHIPPED_MODEL,
      PROMPT,
      "--max-tokens",
      "8",
      "--shards",
      join(directory, "own"),
      "--device",
      "cpu",
    ]);
    const run = await command(["run", ID, PROMPT, "--max-tokens", "8", "--device", "cpu"]);
    assert.deepEqual(run, local);
    assert.ok(fs.existsSync(join(snapshot, "airkern-q4o", "airkern.json")));
    const out = join(directory, "nf4");
    const quantized = await command(["quantize", ID, "--out", out, "--format", "nf4", "--delete-original", "--json"]);
    assert.deepEqual(JSON.parse(quantized.stdout).deletedFiles, [join(snapshot, "model.safetensors")]);
    assert.ok(!fs.existsSync(join(snapshot, "model.safetensors")));
    // The shards that were made before need neither originals nor a network.
    const text = join(directory, "text.txt");
    fs.writeFileSync(text, fs.readFileSync(`${SHIPPED_MODEL}/heldout.txt`, "utf8").slice(0, 600));
    const offline = await command(["perplexity", ID, text, "--device", "cpu"], { HF_HUB_OFFLINE: "1" });
    assert.match(offline.stdout, /^perplexity [\d.]+ over \d+ tokens/);
    assert.equal(offline.stderr, "");
  }),
);

Deno.test(
  "pull --format quantizes while it downloads; run --delete-original keeps the shards alone",
  withHub(async ({ snapshot, command }) => {
    const pulled = await command(["pull", ID, "--format", "q8", "--delete-original"]);
    assert.deepEqual([pulled.code, pulled.stdout, pulled.stderr], [0, `${snapshot}/airkern-q8\n`, ""]);
    assert.ok(!fs.existsSync(join(snapshot, "model.safetensors")));
    const run = await command([
      "run",
      ID,
      PROMPT,
      "--format",
      "none",
      "--delete-original",
      "--max-tokens",
      "2",
      "--device",
      "cpu",
    ]);
    assert.deepEqual([run.code, run.stderr], [0, ""]);
    assert.ok(
      !fs.existsSync(join(snapshot, "model.safetensors")) && fs.existsSync(join(snapshot, "airkern-none", "airkern.json")),
    );
  }),
);

Deno.test(
  "verify and doctor take the name of a model that is cached, and download nothing",
  withHub(async ({ server, snapshot, command }) => {
    for (const name of ["verify", "doctor"]) {
      const missing = await command([name, ID]);
      assert.equal(missing.code, 1);
      assert.match(
        missing.stderr,
        /^airkern: Cannot use model airkern\/kjv-5m: it is not in .*, and the network may not be used for this/,
      );
    }
    assert.equal((await command(["pull", ID, "--format", "q8"])).code, 0);
    const requests = server.requests.length;
    const unmade = await command(["verify", ID]);
    assert.match(
      unmade.stderr,
      /^airkern: Cannot find shards of airkern\/kjv-5m: there is no .*airkern-q4o; quantize, pull or run makes it/,
    );
    const verified = await command(["verify", ID, "--format", "q8"]);
    assert.deepEqual([verified.code, verified.stderr], [0, ""]);
    assert.ok(verified.stdout.startsWith(`${snapshot}/airkern-q8: whole, `), verified.stdout);
    const doctor = await command(["doctor", ID]);
    assert.match(doctor.stdout, new RegExp(`^ {2}direct reads +(work|are refused), tried on ${snapshot}/`, "m"));
    assert.equal(server.requests.length, requests);
  }),
);

Deno.test(
  "run --chat answers in the model's template; special tokens in it are text",
  withHub(async ({ server, command, directory }) => {
    const count = async (...args: string[]): Promise<number> => {
      const { code, stdout, stderr } = await command(["run", ID, ...args, "--max-tokens", "1", "--json", "--device", "cpu"]);
      assert.deepEqual([code, stderr], [0, ""]);
      return JSON.parse(stdout).promptTokens;
    };
    const plain = await count("Hello"), chat = await count("Hello", "--chat");
    const system = await count("Hello", "--chat", "--system", "Be brief.");
    assert.ok(plain < chat && chat < system, `${plain} ${chat} ${system}`);
    assert.ok(await count("<|end_of_text|>", "--chat") > chat + 5);
    const refused = await command(["run", ID, "Hello", "--system", "x"]);
    assert.deepEqual([refused.code, refused.stderr], [1, "airkern: Cannot use --system: it needs --chat beside it\n"]);
    // A conversation in a file counts as that on the command line.
    const messages = join(directory, "messages.json");
    fs.writeFileSync(messages, JSON.stringify([{ role: "system", content: "Be brief." }, { role: "user", content: "Hello" }]));
    assert.equal(await count("--chat", "--messages", messages), system);
    const alone = await command(["run", ID, "--chat"]);
    assert.deepEqual([alone.code, alone.stderr], [
      1,
      "airkern: missing required argument 'prompt'\n",
    ]);
    const files = new Map(server.repositories.get(ID)!.files);
    files.set("additional_chat_templates/long.jinja", new TextEncoder().encode("{{ style * 100 }}"));
    server.repositories.set("airkern/named", { files: new Map(files) });
    const named = ["run", "airkern/named", "Hello", "--chat", "--template", "long", "--max-tokens", "1", "--json"];
    const { stdout, stderr } = await command([...named, "--template-variable", "style=word "]);
    assert.ok(JSON.parse(stdout).promptTokens >= 100, stderr);
    files.delete("additional_chat_templates/long.jinja");
    const config = JSON.parse(new TextDecoder().decode(files.get("tokenizer_config.json")));
    files.set("tokenizer_config.json", new TextEncoder().encode(JSON.stringify({ ...config, chat_template: undefined })));
    server.repositories.set("airkern/plain", { files });
    const none = await command(["run", "airkern/plain", "Hello", "--chat"]);
    assert.match(none.stderr, /^airkern: Cannot apply a chat template: the tokenizer has none; this is no chat model\n$/);
  }),
);

Deno.test(
  "what the hub refuses is one line, with what was tried",
  withHub(async ({ server, command }) => {
    const fails = async (args: string[], message: RegExp, env?: Record<string, string>) => {
      const { code, stdout, stderr } = await command(args, env);
      assert.deepEqual([code, stdout], [1, ""], stderr);
      assert.match(stderr, message);
      assert.equal(stderr.trimEnd().split("\n").length, 1);
    };
    await fails(
      ["run", "airkern/none", "x"],
      /no such repository; if it is private, set HF_TOKEN .*; nor is there a directory airkern\/none\n$/,
    );
    await fails(["pull", "models/kjv-5m"], /Cannot pull models\/kjv-5m: there is a directory of that name here/);
    await fails(["pull", "/models/kjv-5m"], /required is organisation\/name/);
    await fails(["pull", ID, "--delete-original"], /with --delete-original: it needs --format beside it/);
    await fails(["pull", ID, "--revision", "v2"], /at revision v2: the repository has no such revision/);
    await fails(["run", "models/kjv-5m", "x", "--revision", "v1"], /it is a directory, revisions are of models on the hub/);
    await fails(["run", ID, "x"], /it is not in .*hub, and the network may not be used \(HF_HUB_OFFLINE\)/, {
      HF_HUB_OFFLINE: "1",
    });
    server.repositories.get(ID)!.gated = true;
    await fails(["pull", ID], new RegExp(`it is gated; accept its terms on ${server.endpoint}/${ID}, then set HF_TOKEN`));
    assert.equal((await command(["pull", ID], { HF_TOKEN: TOKEN })).code, 0);
  }),
);
