/**
 * The commands on models that keep states, with experts and within one that sees images.
 */
import assert from "node:assert/strict";
import fs from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { withTemporaryDirectory } from "../temporary_directory.ts";
import { airkern } from "./airkern.ts";

const FIXTURES = fileURLToPath(new URL("../fixtures/architectures/", import.meta.url));

/** Copies a fixture and gives it a tokenizer of 96 characters, without BOS, as Qwen's are. */
function withTokenizer(fixture: string, path: string): string {
  fs.cpSync(FIXTURES + fixture, path, { recursive: true });
  const vocab = Object.fromEntries(
    ["<end>", ...Array.from({ length: 95 }, (_, i) => String.fromCharCode(32 + i))].map((c, i) => [c, i]),
  );
  const model = {
    type: "BPE",
    unk_token: "<end>",
    byte_fallback: false,
    fuse_unk: false,
    ignore_merges: false,
    vocab,
    merges: [],
  };
  fs.writeFileSync(
    join(path, "tokenizer.json"),
    JSON.stringify({
      ...{ version: "1.0", truncation: null, padding: null, normalizer: null, pre_tokenizer: null, post_processor: null, model },
      added_tokens: [{
        id: 0,
        content: "<end>",
        single_word: false,
        lstrip: false,
        rstrip: false,
        normalized: false,
        special: true,
      }],
      decoder: { type: "Fuse" },
    }),
  );
  fs.writeFileSync(
    join(path, "tokenizer_config.json"),
    JSON.stringify({ tokenizer_class: "Qwen2Tokenizer", eos_token: "<end>" }),
  );
  return path;
}

for (const [fixture, ignored] of [["qwen3_next/base", "mtp.fc.weight"], ["qwen3_5_moe/base", "model.visual.pos_embed.weight"]]) {
  Deno.test(`${fixture}: inspect, plan, run and perplexity work, before and after it is quantized`, () =>
    withTemporaryDirectory(async (directory) => {
      const model = withTokenizer(fixture, join(directory, "model")), text = join(directory, "text.txt");
      fs.writeFileSync(text, "In the beginning was the Word.");
      assert.match((await airkern(["inspect", model])).stdout, /4 layers, 3 of them with a state, hidden 32/);
      const before = JSON.parse((await airkern(["plan", model, "--context", "64", "--json"])).stdout);
      // One sequence: two states of each of 3 layers.
      assert.equal(before.stateBytes, 3 * (3 * 80 + 4 * 96) * 4 * 2);
      assert.match((await airkern(["plan", model])).stdout, /states of recurrent layers +14\.6 KiB +whatever the context\n/);
      const run = JSON.parse((await airkern(["run", model, "In the", "--max-tokens", "5", "--ram", "600MB", "--json"])).stdout);
      assert.equal(run.generatedTokens, 5);
      assert.equal(run.plan.stateBytes, before.stateBytes);
      const shards = join(model, "airkern-q4o");
      assert.match((await airkern(["inspect", shards])).stdout, new RegExp(`left out ${ignored}: `));
      const after = JSON.parse((await airkern(["plan", shards, "--context", "64", "--json"])).stdout);
      assert.deepEqual([after.stateBytes, after.kvCacheBytes], [before.stateBytes, before.kvCacheBytes]);
      const { perplexity, predictedTokens } = JSON.parse(
        (await airkern(["perplexity", shards, text, "--window", "8", "--json"])).stdout,
      );
      assert.ok(perplexity > 1 && predictedTokens === 30);
    }));
}
