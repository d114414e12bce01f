import assert from "node:assert/strict";
import { AutoModel } from "../../lib/auto_model.ts";
import { linkShippedModel, quantizeShippedModel } from "../shipped_model.ts";
import { withTemporaryDirectory } from "../temporary_directory.ts";
import { airkern } from "./airkern.ts";

const PROMPT = "In the beginning";

/** Fields of `run --json`. */
interface Results {
  text: string;
  promptTokens: number;
  generatedTokens: number;
  finishReason: string;
  passes: number;
  ttftSeconds: number;
  secondsPerToken: number;
  bytesRead: number;
  readBytesPerSecond: number;
  peakRssBytes: number;
  peakVramBytes: number;
  plan: { residentBytes: number; streamedBytesPerPass: number; slotBytes: number; kvCacheBytes: number };
}

Deno.test("run prints the continuation on stdout and nothing else; --stats adds plan and figures on stderr", async () => {
  await withTemporaryDirectory(async (directory) => {
    const shards = await quantizeShippedModel(`${directory}/q4o`, "q4o");
    let text: string;
    {
      await using model = await AutoModel.fromPretrained(shards);
      [text] = (await model.generate(model.tokenizer(PROMPT).inputIds, { maxNewTokens: 20 })).texts;
    }
    assert.deepEqual(await airkern(["run", shards, PROMPT, "--max-tokens", "20"]), { code: 0, stdout: text + "\n", stderr: "" });
    const withStats = await airkern(["run", shards, PROMPT, "--max-tokens", "20", "--stats"]);
    assert.equal(withStats.stdout, text + "\n");
    assert.match(
      withStats.stderr,
      /^plan\n {2}weights resident .*KV cache.*\nstatistics\n.*generated +20 tokens +ended by: length\n.*peak resident set .*\n$/s,
    );
  });
});

Deno.test("run --json prints one object with the documented fields, and stays within 192 MiB", async () => {
  await withTemporaryDirectory(async (directory) => {
    const shards = await quantizeShippedModel(`${directory}/none`, "none");
    const ramBytes = 192 * 2 ** 20;
    const { code, stdout, stderr } = await airkern(["run", shards, PROMPT, "--max-tokens", "12", "--ram", "192MiB", "--json"]);
    assert.deepEqual([code, stderr], [0, ""]);
    const results: Results = JSON.parse(stdout);
    assert.deepEqual(Object.keys(results), [
      ...["text", "promptTokens", "generatedTokens", "finishReason", "passes", "ttftSeconds", "secondsPerToken", "bytesRead"],
      ...["readBytesPerSecond", "peakRssBytes", "peakVramBytes", "plan"],
    ]);
    assert.deepEqual(Object.keys(results.plan), [
      ...[
        "residentBytes",
        "streamedBytesPerPass",
        "slotBytes",
        "kvCacheBytes",
        "stateBytes",
        "pinnedBytes",
        "deviceSlotBytes",
        "vramBytes",
      ],
    ]);
    assert.ok(results.text.length > 0);
    assert.equal(results.generatedTokens, 12);
    assert.equal(results.finishReason, "length");
    assert.equal(results.passes, 12);
    assert.equal(results.peakVramBytes, 0);
    assert.ok(results.promptTokens > 1 && results.ttftSeconds > 0 && results.secondsPerToken > 0);
    assert.ok(results.peakRssBytes <= ramBytes, `peak ${results.peakRssBytes}`);
    assert.ok(results.plan.kvCacheBytes > 0 && results.plan.residentBytes > 0);
    assert.ok(results.bytesRead >= results.plan.residentBytes + results.plan.streamedBytesPerPass);
  });
});

Deno.test("run repeats itself with a seed, ends before --stop, and knows when the context is full", async () => {
  await withTemporaryDirectory(async (directory) => {
    const shards = await quantizeShippedModel(`${directory}/q4o`, "q4o");
    const results = async (...options: string[]): Promise<Results> =>
      JSON.parse((await airkern(["run", shards, PROMPT, "--json", "--max-tokens", "16", ...options])).stdout);
    const sampled = [
      "--temperature",
      "0.9",
      "--top-k",
      "50",
      "--top-p",
      "0.95",
      "--min-p",
      "0.01",
      "--repetition-penalty",
      "1.1",
    ];
    const [first, again, other] = [
      await results(...sampled, "--seed", "5"),
      await results(...sampled, "--seed", "5"),
      await results(...sampled, "--seed", "6"),
    ];
    assert.equal(first.text, again.text);
    assert.notEqual(first.text, other.text);
    const stop = first.text.slice(5, 9);
    const stopped = await results(...sampled, "--seed", "5", "--stop", "never this", "--stop", stop);
    assert.equal(stopped.text, first.text.slice(0, first.text.indexOf(stop)));
    assert.equal(stopped.finishReason, "stop");
    const full = await results("--context", "12");
    assert.equal(full.finishReason, "context");
    assert.equal(full.promptTokens + full.generatedTokens, 12);
    const others = await results("--threads", "1", "--precision", "fast", "--kv-cache-type", "f32");
    assert.equal(others.generatedTokens, 16);
  });
});

Deno.test("run takes special tokens written in the prompt for ordinary text", async () => {
  await withTemporaryDirectory(async (directory) => {
    const shards = await quantizeShippedModel(`${directory}/q4o`, "q4o");
    const { stdout } = await airkern(["run", shards, "<|end_of_text|>", "--json", "--max-tokens", "1"]);
    assert.ok((JSON.parse(stdout) as Results).promptTokens > 5);
  });
});

Deno.test("run quantizes a checkpoint on first use, beside it or under --shards", async () => {
  await withTemporaryDirectory(async (directory) => {
    const path = linkShippedModel(`${directory}/model`);
    const first = await airkern(["run", path, PROMPT, "--max-tokens", "4", "--format", "nf4"]);
    assert.deepEqual([first.code, first.stderr], [0, ""]);
    assert.ok(Deno.statSync(`${path}/airkern-nf4/airkern.json`).isFile);
    const second = await airkern(["run", path, PROMPT, "--max-tokens", "4", "--shards", `${directory}/shards`]);
    assert.equal(second.code, 0);
    assert.match([...Deno.readDirSync(`${directory}/shards`)].map(({ name }) => name).join(), /^model-[0-9a-f]{16}-q4o$/);
  });
});

Deno.test("run stops at SIGINT and SIGTERM with exit code 130, and keeps the text so far", async () => {
  await withTemporaryDirectory(async (directory) => {
    const shards = await quantizeShippedModel(`${directory}/q4o`, "q4o");
    const whole = await airkern(["run", shards, PROMPT, "--max-tokens", "400"]);
    for (const signal of ["SIGINT", "SIGTERM"] as const) {
      const { code, stdout, stderr } = await airkern(["run", shards, PROMPT, "--max-tokens", "400"], {
        onOutput: (child) => child.kill(signal),
      });
      assert.equal(code, 130, signal);
      assert.ok(stdout.length > 1 && stdout.length < whole.stdout.length && stdout.endsWith("\n"));
      assert.ok(whole.stdout.startsWith(stdout.slice(0, -1)));
      assert.equal(stderr, "airkern: Stopped\n");
    }
  });
});

Deno.test("run ends quietly when nobody reads its output any more", async () => {
  await withTemporaryDirectory(async (directory) => {
    const shards = await quantizeShippedModel(`${directory}/q4o`, "q4o");
    const command = `"${Deno.execPath()}" run -A mod.ts run ${shards} "${PROMPT}" --max-tokens 300 --device cpu | head -c 3`;
    const { code, stdout, stderr } = await new Deno.Command("bash", { args: ["-c", `set -o pipefail; ${command}`] }).output();
    assert.deepEqual([code, stdout.length, new TextDecoder().decode(stderr)], [0, 3, ""]);
  });
});
