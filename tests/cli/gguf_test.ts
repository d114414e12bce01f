import assert from "node:assert/strict";
import fs from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { commitOf, HubServer } from "../hub/server.ts";
import { withTemporaryDirectory } from "../temporary_directory.ts";
import { airkern } from "./airkern.ts";

const MODEL = fileURLToPath(new URL("../fixtures/gguf/qwen3/model.gguf", import.meta.url));
const ID = "tiny/qwen-GGUF", PROMPT = "In the beginning";

Deno.test("plan, inspect, run, quantize and doctor take a GGUF file", () =>
  withTemporaryDirectory(async (directory) => {
    const file = join(directory, "qwen-Q4_0.gguf"), out = join(directory, "out");
    fs.copyFileSync(MODEL, file);
    const plan = await airkern(["plan", file, "--ram", "1GiB"]);
    assert.deepEqual([plan.code, plan.stderr], [0, ""]);
    assert.match(plan.stdout, /^not quantized yet; will take about [\d.]+ [KM]iB in .*\/airkern-none-qwen-Q4_0\nplan\n/);
    const inspected = await airkern(["inspect", file]);
    assert.match(
      inspected.stdout,
      /: checkpoint\n {2}source +qwen-Q4_0, revision [0-9a-f]{16}\n {2}architecture +qwen3, 2 layers/,
    );
    const run = await airkern(["run", file, PROMPT, "--max-tokens", "3", "--json"]);
    assert.deepEqual([run.code, run.stderr], [0, ""]);
    assert.ok(fs.existsSync(join(directory, "airkern-none-qwen-Q4_0/airkern.json")));
    assert.equal((await airkern(["doctor", file])).code, 0);
    const quantized = await airkern(["quantize", file, "--out", out, "--format", "q8", "--delete-original", "--json"]);
    assert.deepEqual(JSON.parse(quantized.stdout).deletedFiles, [file]);
    const again = await airkern(["run", file, PROMPT, "--max-tokens", "3", "--json"]);
    assert.equal(JSON.parse(again.stdout).text, JSON.parse(run.stdout).text);
    const missing = await airkern(["run", join(directory, "other.gguf"), PROMPT]);
    assert.deepEqual([missing.code, missing.stderr], [1, `airkern: Cannot open model ${directory}/other.gguf: no such file\n`]);
  }));

Deno.test("plan, inspect, pull, run and quantize take one of a repository's GGUF models", () =>
  withTemporaryDirectory(async (directory) => {
    await using server = await HubServer.start();
    const content = new Uint8Array(fs.readFileSync(MODEL));
    const files = new Map([["qwen-Q4_0.gguf", content], ["qwen-Q6_K.gguf", new Uint8Array(10)], [
      "mmproj.gguf",
      new Uint8Array(10),
    ]]);
    const repository = { files };
    server.repositories.set(ID, repository);
    const env = server.environment(join(directory, "home"));
    const command = (...args: string[]) => airkern(args, { env });
    const snapshot = join(directory, "home/hub/models--tiny--qwen-GGUF/snapshots", commitOf(repository));
    const unnamed = await command("run", ID, PROMPT);
    assert.match(
      unnamed.stderr,
      /^airkern: Cannot choose a GGUF model of model tiny\/qwen-GGUF: name one behind a colon, there are: qwen-Q4_0 \(0\.1 MiB\), qwen-Q6_K \(0\.0 MiB\)\n$/,
    );
    const plan = await command("plan", `${ID}:Q4_0`, "--ram", "1GiB");
    assert.deepEqual([plan.code, plan.stderr], [0, ""]);
    const inspected = await command("inspect", `${ID}:Q4_0`);
    assert.match(inspected.stdout, /source +tiny\/qwen-GGUF:qwen-Q4_0, revision [0-9a-f]{40}:qwen-Q4_0\n/);
    assert.ok(!fs.existsSync(join(snapshot, "qwen-Q4_0.gguf")));
    const pulled = await command("pull", `${ID}:q4_0`, "--json");
    assert.deepEqual([pulled.code, pulled.stderr], [0, ""]);
    assert.deepEqual(JSON.parse(pulled.stdout).weightFiles, ["qwen-Q4_0.gguf"]);
    const run = await command("run", `${ID}:Q4_0`, PROMPT, "--max-tokens", "3");
    const local = await airkern(["run", MODEL, PROMPT, "--max-tokens", "3", "--shards", join(directory, "own")]);
    assert.deepEqual([run, run.code], [local, 0]);
    const quantized = await command(
      "quantize",
      `${ID}:qwen-Q4_0.gguf`,
      "--out",
      join(directory, "out"),
      "--delete-original",
      "--json",
    );
    assert.deepEqual(JSON.parse(quantized.stdout).deletedFiles, [join(snapshot, "qwen-Q4_0.gguf")]);
    const offline = await airkern(["run", `${ID}:Q4_0`, PROMPT, "--max-tokens", "3"], { env: { ...env, HF_HUB_OFFLINE: "1" } });
    assert.deepEqual(offline, local);
  }));
