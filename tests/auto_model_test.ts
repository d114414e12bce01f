import assert from "node:assert/strict";
import { join } from "node:path";
import { AutoModel, type ModelProgress, openModelShards } from "../lib/auto_model.ts";
import { BudgetError, CancelledError, FormatError, UsageError } from "../lib/errors.ts";
import type { GenerateOptions } from "../lib/generate/model.ts";
import { linkShippedModel, quantizeShippedModel, SHIPPED_MODEL } from "./shipped_model.ts";
import { withTemporaryDirectory } from "./temporary_directory.ts";

const PROMPTS = ["In the beginning", "And it came to pass, when the king", "Blessed", "Let there be light: and there was light."];

Deno.test("AutoModel does what the README shows, and gives each prompt of a call the text it gets alone", async () => {
  await withTemporaryDirectory(async (directory) => {
    const shards = await quantizeShippedModel(`${directory}/q4o`, "q4o");
    await using model = await AutoModel.fromPretrained(shards, { ram: "1GiB" });
    const { inputIds } = model.tokenizer(PROMPTS);
    assert.equal(new Set(inputIds.map(({ length }) => length)).size, 4);
    for (
      const options of [{}, { temperature: 0.9, topP: 0.9, seed: 3 }, {
        temperature: 1,
        repetitionPenalty: 1.3,
        minP: 0.02,
        seed: 4,
      }]
    ) {
      const passesBefore = model.statistics.passes;
      const together = await model.generate(inputIds, { maxNewTokens: 24, ...options });
      assert.ok(model.statistics.passes - passesBefore <= 26);
      for (const [i, ids] of inputIds.entries()) {
        const alone = await model.generate([ids], { maxNewTokens: 24, ...options });
        assert.deepEqual(together.sequences[i], alone.sequences[0]);
        assert.deepEqual(together.sequences[i].slice(0, ids.length), ids);
        assert.equal(together.texts[i], alone.texts[0]);
        assert.equal(model.tokenizer.decode(together.sequences[i]), PROMPTS[i] + together.texts[i]);
        assert.equal(together.statistics[i].generatedTokens, together.sequences[i].length - ids.length);
        let streamed = "";
        for await (const piece of model.stream(PROMPTS[i], { maxNewTokens: 24, ...options })) streamed += piece;
        assert.equal(streamed, alone.texts[0]);
      }
    }
    const many = await model.generate([...inputIds, ...inputIds], { maxNewTokens: 5 });
    assert.deepEqual(many.sequences.slice(4), many.sequences.slice(0, 4));
    assert.ok(model.plan.totalBytes <= 2 ** 30 && model.statistics.peakRssBytes <= 2 ** 30);
  });
});

Deno.test("Model ends texts by length, stop strings, tokens and context, and can be cancelled", async () => {
  await withTemporaryDirectory(async (directory) => {
    const shards = await quantizeShippedModel(`${directory}/q4o`, "q4o");
    await using model = await AutoModel.fromPretrained(shards, { contextTokens: 64, maxSequences: 1 });
    const [ids] = model.tokenizer("In the beginning").inputIds;
    const generate = async (options: GenerateOptions) => {
      const { texts, finishReasons, sequences } = await model.generate([ids], options);
      return { text: texts[0], finishReason: finishReasons[0], newIds: sequences[0].slice(ids.length) };
    };
    const whole = await generate({ maxNewTokens: 20, eosTokenId: [] });
    assert.equal(whole.finishReason, "length");
    assert.equal(whole.newIds.length, 20);

    const stop = whole.text.slice(6, 11);
    const stopped = await generate({ maxNewTokens: 20, stop: ["never this", stop] });
    assert.deepEqual([stopped.text, stopped.finishReason], [whole.text.slice(0, whole.text.indexOf(stop)), "stop"]);
    assert.equal((await generate({ maxNewTokens: 20, stop })).text, stopped.text);

    const eosTokenId = whole.newIds[5];
    const ended = await generate({ maxNewTokens: 20, eosTokenId });
    assert.deepEqual(ended.newIds, whole.newIds.slice(0, whole.newIds.indexOf(eosTokenId) + 1));
    assert.equal(ended.finishReason, "stop");

    const full = await generate({ maxNewTokens: 1000, eosTokenId: [] });
    assert.equal(full.finishReason, "context");
    assert.equal(ids.length + full.newIds.length, 64);

    const abort = new AbortController();
    const pieces: string[] = [];
    await assert.rejects(async () => {
      for await (const piece of model.stream("In the beginning", { maxNewTokens: 50, signal: abort.signal })) {
        pieces.push(piece);
        if (pieces.length === 3) abort.abort();
      }
    }, CancelledError);
    assert.ok(full.text.startsWith(pieces.join("")));
    assert.equal((await generate({ maxNewTokens: 20, eosTokenId: [] })).text, whole.text);

    await assert.rejects(model.stream("").next(), /Cannot generate from an empty prompt/);
    await assert.rejects(model.generate([ids, []]), UsageError);
    await assert.rejects(model.generate([Array(64).fill(1)]), /the prompt has 64 tokens, the context holds 64/);
    await assert.rejects(model.generate([ids], { topK: -1 }), /topK is -1/);
  });
});

Deno.test("AutoModel quantizes on first use beside the model, and uses that again", async () => {
  await withTemporaryDirectory(async (directory) => {
    const path = linkShippedModel(`${directory}/model`);
    const phases = new Set<string>();
    const onProgress = ({ phase, doneBytes, totalBytes }: ModelProgress) => {
      phases.add(phase);
      assert.ok(doneBytes <= totalBytes);
    };
    const generate = async () => {
      await using model = await AutoModel.fromPretrained(path, { compression: "q8", onProgress });
      return (await model.generate(model.tokenizer("In the").inputIds, { maxNewTokens: 5 })).texts;
    };
    const texts = await generate();
    assert.deepEqual([...phases], ["quantize", "load"]);
    const made = Deno.statSync(`${path}/airkern-q8/airkern.json`);
    phases.clear();
    assert.deepEqual(await generate(), texts);
    assert.deepEqual([...phases], ["load"]);
    assert.deepEqual(Deno.statSync(`${path}/airkern-q8/airkern.json`), made);
    assert.deepEqual([...Deno.readDirSync(path)].filter(({ isDirectory }) => isDirectory).map(({ name }) => name), [
      "airkern-q8",
    ]);

    // The source may go once its shards are there.
    Deno.removeSync(`${path}/model.safetensors`);
    assert.deepEqual(await generate(), texts);
    await assert.rejects(openModelShards(path, { compression: "nf4" }), FormatError);
  });
});

Deno.test("openModelShards() puts shards under layerShardsPath, named by model, revision and compression", async () => {
  await withTemporaryDirectory(async (directory) => {
    const path = linkShippedModel(`${directory}/model`);
    const first = await openModelShards(path, { compression: "nf4", layerShardsPath: `${directory}/shards` });
    const { name, revision } = first.manifest.source;
    assert.equal(first.path, join(directory, "shards", `${name}-${revision}-nf4`));
    assert.equal(name, "model");
    assert.equal((await openModelShards(path, { compression: "nf4", layerShardsPath: `${directory}/shards` })).path, first.path);
    assert.deepEqual([...Deno.readDirSync(`${directory}/shards`)].length, 1);

    // Another config is another model.
    const config = JSON.parse(Deno.readTextFileSync(`${path}/config.json`));
    Deno.removeSync(`${path}/config.json`);
    Deno.writeTextFileSync(`${path}/config.json`, JSON.stringify({ ...config, rms_norm_eps: 1e-4 }));
    const second = await openModelShards(path, { compression: "nf4", layerShardsPath: `${directory}/shards` });
    assert.notEqual(second.path, first.path);
  });
});

Deno.test("openModelShards() refuses shards beside the model that were made of another revision of it", async () => {
  await withTemporaryDirectory(async (directory) => {
    const path = linkShippedModel(`${directory}/model`);
    await openModelShards(path);
    const config = JSON.parse(Deno.readTextFileSync(`${path}/config.json`));
    Deno.removeSync(`${path}/config.json`);
    Deno.writeTextFileSync(`${path}/config.json`, JSON.stringify({ ...config, rms_norm_eps: 1e-4 }));
    await assert.rejects(openModelShards(path), (error: Error) =>
      error instanceof UsageError &&
      /^Cannot use .*airkern-q4o: it was made from revision \w+, the checkpoint now is \w+; remove that directory$/.test(
        error.message,
      ));
  });
});

Deno.test("openModelShards() opens a shard directory as it is, and refuses to see it as another format", async () => {
  await withTemporaryDirectory(async (directory) => {
    const path = await quantizeShippedModel(`${directory}/shards`, "none");
    assert.equal((await openModelShards(path)).path, path);
    assert.equal((await openModelShards(path, { compression: "none" })).path, path);
    await assert.rejects(openModelShards(path, { compression: "q4o" }), /as q4o: its weights are stored as none$/);
  });
});

Deno.test("AutoModel stops a quantization at its signal, and takes it up again", async () => {
  await withTemporaryDirectory(async (directory) => {
    const path = linkShippedModel(`${directory}/model`);
    const abort = new AbortController();
    const onProgress = ({ doneBytes, totalBytes }: ModelProgress) => {
      if (doneBytes > totalBytes / 2) abort.abort();
    };
    await assert.rejects(AutoModel.fromPretrained(path, { onProgress, signal: abort.signal }), CancelledError);
    await assert.rejects(openModelShards(`${path}/airkern-q4o`), FormatError);
    const shares: number[] = [];
    await openModelShards(path, { onProgress: ({ doneBytes, totalBytes }) => shares.push(doneBytes / totalBytes) });
    assert.ok(shares[0] > 0.2, `went on at ${shares[0]}`);
  });
});

Deno.test("openModelShards() falls back to the user's cache directory where the model's own cannot be written", {
  ignore: Deno.uid() === 0, // The superuser can write everywhere.
}, async () => {
  await withTemporaryDirectory(async (directory) => {
    const path = linkShippedModel(`${directory}/model`);
    Deno.chmodSync(path, 0o555);
    Deno.env.set("XDG_CACHE_HOME", `${directory}/cache`);
    try {
      assert.ok((await openModelShards(path)).path.startsWith(`${directory}/cache/airkern/model-`));
    } finally {
      Deno.env.delete("XDG_CACHE_HOME");
      Deno.chmodSync(path, 0o755);
    }
  });
});

Deno.test("AutoModel refuses a path that is missing, and budgets that are no sizes or too small", async () => {
  await assert.rejects(
    AutoModel.fromPretrained("/no/such/model"),
    /^FormatError: Cannot open model \/no\/such\/model: no such directory$/,
  );
  for (const ram of ["lots", 0, -5, 1.5]) await assert.rejects(AutoModel.fromPretrained(SHIPPED_MODEL, { ram }), UsageError);
  await withTemporaryDirectory(async (directory) => {
    const shards = await quantizeShippedModel(`${directory}/q4o`, "q4o");
    await assert.rejects(AutoModel.fromPretrained(shards, { ram: "2MiB" }), BudgetError);
  });
});
