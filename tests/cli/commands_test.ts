import assert from "node:assert/strict";
import { linkShippedModel, quantizeShippedModel, SHIPPED_MODEL } from "../shipped_model.ts";
import { withTemporaryDirectory } from "../temporary_directory.ts";
import { airkern, run } from "./airkern.ts";

Deno.test("--help of every command says what it does, with an example; no command prints the help and fails", async () => {
  const root = await airkern(["--help"]);
  assert.equal(root.code, 0);
  for (const command of ["run", "pull", "quantize", "plan", "inspect", "verify", "perplexity", "bench", "doctor"]) {
    assert.match(root.stdout, new RegExp(`^ {2}${command} `, "m"));
    const { code, stdout, stderr } = await airkern([command, "--help"]);
    assert.deepEqual([code, stderr], [0, ""]);
    assert.match(stdout, new RegExp(`^Usage: airkern ${command} .*\\n.*Examples?:\\n {2}deno run -A mod.ts ${command} `, "s"));
  }
  const none = await airkern([]);
  assert.deepEqual([none.code, none.stdout], [1, ""]);
  assert.match(none.stderr, /^Usage: airkern/);
});

Deno.test("quantize reports bits, outliers and SNR; the task's script does the same; a second run finds it done", async () => {
  await withTemporaryDirectory(async (directory) => {
    const out = `${directory}/q4o`;
    const made = await airkern(["quantize", SHIPPED_MODEL, "--out", out]);
    assert.deepEqual([made.code, made.stderr], [0, ""]);
    assert.match(
      made.stdout,
      /q4o: q4o, [\d.]+ MiB, quantized in .*\n {2}tensors +format +count +weights +bits\/weight +outliers % +SNR dB\n/,
    );
    assert.match(made.stdout, /\n {2}self_attn\.q_proj\.weight +q4o +\d+ +\d+ +4\.\d{3} +\d\.\d{3} +\d\d\.\d\d\n/);
    assert.match((await airkern(["quantize", SHIPPED_MODEL, "--out", out])).stdout, /was quantized before/);
    const script = await run([
      "scripts/quantize.ts",
      SHIPPED_MODEL,
      "--out",
      `${directory}/nf4`,
      "--format",
      "nf4",
      "--threads",
      "1",
      "--json",
    ]);
    const report = JSON.parse(script.stdout);
    assert.equal(report.compression, "nf4");
    assert.ok(report.total.bitsPerWeight > 4 && report.total.bitsPerWeight < 6);
  });
});

Deno.test("quantize --delete-original removes the source once it is verified", async () => {
  await withTemporaryDirectory(async (directory) => {
    const source = `${directory}/model`;
    Deno.mkdirSync(source);
    for (const { name, isFile } of Deno.readDirSync(SHIPPED_MODEL)) {
      if (isFile) Deno.copyFileSync(`${SHIPPED_MODEL}/${name}`, `${source}/${name}`);
    }
    const { code, stdout } = await airkern(["quantize", source, "--out", `${directory}/out`, "--delete-original"]);
    assert.equal(code, 0);
    assert.match(stdout, /\nremoved .*\/model\/model\.safetensors\n$/);
    assert.throws(() => Deno.statSync(`${source}/model.safetensors`), Deno.errors.NotFound);
    assert.equal((await airkern(["verify", `${directory}/out`])).code, 0);
  });
});

Deno.test("verify finds a flipped byte, names it and fails", async () => {
  await withTemporaryDirectory(async (directory) => {
    const shards = await quantizeShippedModel(`${directory}/q8`, "q8");
    const whole = await airkern(["verify", shards]);
    assert.equal(whole.code, 0);
    assert.match(whole.stdout, /: whole, \d+ extents in \d+ files, [\d.]+ MiB, read in /);
    using file = Deno.openSync(`${shards}/layer-0001.safetensors`, { read: true, write: true });
    const { size } = file.statSync();
    const byte = new Uint8Array(1);
    file.seekSync(size - 5000, Deno.SeekMode.Start);
    file.readSync(byte);
    byte[0] ^= 4;
    file.seekSync(size - 5000, Deno.SeekMode.Start);
    file.writeSync(byte);
    const damaged = await airkern(["verify", shards]);
    assert.equal(damaged.code, 1);
    assert.match(damaged.stdout, /^model\.layers\.1\..* of layer-0001\.safetensors is damaged: .*\n$/);
    assert.match(damaged.stderr, /^airkern: Cannot vouch for .*: 1 of \d+ extents or files are damaged; quantize it again\n$/);
    const json = await airkern(["verify", shards, "--json"]);
    assert.equal(JSON.parse(json.stdout).damages.length, 1);
    assert.equal(json.code, 1);
  });
});

Deno.test("inspect describes a checkpoint and a shard directory, in lines or as JSON", async () => {
  await withTemporaryDirectory(async (directory) => {
    const shards = await quantizeShippedModel(`${directory}/q4o`, "q4o");
    const checkpoint = await airkern(["inspect", SHIPPED_MODEL, "--tensors"]);
    assert.match(
      checkpoint.stdout,
      /: checkpoint\n.*architecture +llama, \d+ layers.*model\.layers\.0\.mlp\.up_proj\.weight +BF16/s,
    );
    const text = await airkern(["inspect", shards]);
    assert.match(text.stdout, /: shard directory, q4o\n.*mlp\.up_proj\.weight +q4o/s);
    assert.match((await airkern(["inspect", shards, "--tensors"])).stdout, /model\.layers\.0\.mlp\.up_proj\.weight +q4o/);
    const json = JSON.parse((await airkern(["inspect", shards, "--json"])).stdout);
    assert.deepEqual([json.kind, json.compression], ["shards", "q4o"]);
    const unknown = linkShippedModel(`${directory}/unknown`);
    const config = JSON.parse(Deno.readTextFileSync(`${unknown}/config.json`));
    Deno.removeSync(`${unknown}/config.json`);
    Deno.writeTextFileSync(`${unknown}/config.json`, JSON.stringify({ ...config, model_type: "guess" }));
    assert.match((await airkern(["inspect", unknown])).stdout, /architecture +not supported: Cannot use architecture "guess"/);
  });
});

Deno.test("plan divides a budget and predicts seconds a token from measured speeds", async () => {
  await withTemporaryDirectory(async (directory) => {
    const shards = await quantizeShippedModel(`${directory}/none`, "none");
    const { code, stdout } = await airkern(["plan", shards, "--ram", "1GiB", "--context", "256", "--json"]);
    assert.equal(code, 0);
    const plan = JSON.parse(stdout);
    assert.equal(plan.contextTokens, 256);
    assert.ok(plan.totalBytes <= 2 ** 30);
    const { residentBytes, streamedBytesPerPass, diskBytesPerSecond, memoryBytesPerSecond } = plan;
    const expected = Math.max(
      streamedBytesPerPass / diskBytesPerSecond,
      (residentBytes + streamedBytesPerPass) / memoryBytesPerSecond,
    );
    assert.ok(Math.abs(plan.predictedSecondsPerToken - expected) < 1e-9 && expected > 0);
    assert.match(
      (await airkern(["plan", shards])).stdout,
      /weights resident .*disk reads .*memory reads .*predicted .* a token\n$/s,
    );
  });
});

Deno.test("plan --vram plans for a GPU that is not there, says what it takes it to be, and not where the CPU is named", async () => {
  await withTemporaryDirectory(async (directory) => {
    const shards = await quantizeShippedModel(`${directory}/none`, "none");
    const budgets = ["--vram", "9MiB", "--ram", "1GiB", "--context", "256", "--device", "auto"];
    const env = { CUDA_VISIBLE_DEVICES: "" };
    const { code, stdout, stderr } = await airkern(["plan", shards, ...budgets, "--json"], { env });
    assert.equal(code, 0, stderr);
    const plan = JSON.parse(stdout);
    assert.equal(plan.assumedDevice, true);
    assert.ok(plan.device.totalBytes <= 9 * 2 ** 20 && plan.residentBytes > 0 && plan.pinnedBytes > 0);
    assert.equal(plan.streamedBytesPerPass, 0);
    assert.ok(Math.abs(plan.predictedSecondsPerToken - plan.pinnedBytes / plan.busBytesPerSecond) < 1e-9);
    assert.match(
      (await airkern(["plan", shards, ...budgets], { env })).stdout,
      /weights in device memory .*of the GPU assumed: copies to the device 12\.0 GiB\/s, memory reads 220 GiB\/s\npredicted /s,
    );
    const refused = await airkern(["plan", shards, ...budgets.slice(0, -1), "cpu"], { env });
    assert.equal(refused.code, 1);
    assert.match(refused.stderr, /Cannot use a budget of \d+ bytes of device memory/);
  });
});

Deno.test("perplexity measures a model, and against a reference", async () => {
  await withTemporaryDirectory(async (directory) => {
    const text = `${directory}/text.txt`;
    Deno.writeTextFileSync(text, Deno.readTextFileSync(`${SHIPPED_MODEL}/heldout.txt`).slice(0, 4000));
    const [q4o, none] = [
      await quantizeShippedModel(`${directory}/q4o`, "q4o"),
      await quantizeShippedModel(`${directory}/none`, "none"),
    ];
    const plain = JSON.parse((await airkern(["perplexity", q4o, text, "--json"])).stdout);
    const compared = JSON.parse((await airkern(["perplexity", q4o, text, "--against", none, "--json"])).stdout);
    assert.equal(plain.perplexity, compared.perplexity);
    assert.ok(compared.reference.perplexity > 1 && compared.klDivergence > 0 && compared.topOneAgreement > 0.8);
    const lines = await airkern(["perplexity", q4o, text, "--against", none, "--window", "64"]);
    assert.match(
      lines.stdout,
      /window 64\n {2}perplexity +[\d.]+\n.*KL divergence, nats a token +\d\.\d+\n {2}top-1 agreement % +\d/s,
    );
    assert.match((await airkern(["perplexity", q4o, text])).stdout, /^perplexity [\d.]+ over \d+ tokens, window 512\n$/);
  });
});

Deno.test("bench compares prefill and decode with the machine's ceilings", async () => {
  await withTemporaryDirectory(async (directory) => {
    const shards = await quantizeShippedModel(`${directory}/q4o`, "q4o");
    const { code, stdout } = await airkern(["bench", shards, "--prompt-tokens", "40", "--max-tokens", "4", "--json"]);
    assert.equal(code, 0);
    const figures = JSON.parse(stdout);
    assert.deepEqual([figures.promptTokens, figures.generatedTokens], [40, 4]);
    for (
      const name of [
        "prefillTokensPerSecond",
        "secondsPerToken",
        "memoryShare",
        "diskBytesPerSecondBefore",
        "diskBytesPerSecondAfter",
      ]
    ) {
      assert.ok(figures[name] > 0, name);
    }
    assert.equal(
      figures.diskShare,
      figures.readBytesPerSecond / ((figures.diskBytesPerSecondBefore + figures.diskBytesPerSecondAfter) / 2),
    );
  });
});
