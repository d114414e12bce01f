import assert from "node:assert/strict";
import { join } from "node:path";
import { AutoModel, loadModelTokenizer, openModelShards } from "../../lib/auto_model.ts";
import { Engine } from "../../lib/engine/engine.ts";
import { openShards } from "../../lib/shard/reader.ts";
import { comparePerplexity, perplexity } from "../../lib/generate/perplexity.ts";
import { linkShippedModel, quantizeShippedModel, ROOT, SHIPPED_MODEL } from "../shipped_model.ts";
import { withTemporaryDirectory } from "../temporary_directory.ts";

/** What transformers gives for the shipped model. */
interface Golden {
  prompts: { name: string; text: string; ids: number[]; greedy_ids: number[]; greedy_text: string }[];
  held_out: { text: string; window: number; predicted_tokens: number; mean_nll: number };
}

const golden: Golden = JSON.parse(Deno.readTextFileSync(`${ROOT}/tests/fixtures/golden/kjv-5m.json`));

Deno.test("generate() of the unquantized shipped model gives transformers' greedy tokens, all prompts in one call and each alone", async () => {
  await withTemporaryDirectory(async (directory) => {
    const shards = await quantizeShippedModel(join(directory, "none"), "none");
    await using model = await AutoModel.fromPretrained(shards, { kvCacheType: "f32", maxSequences: golden.prompts.length });
    assert.ok(golden.prompts.length >= 5);
    const maxNewTokens = golden.prompts[0].greedy_ids.length;
    const together = await model.generate(golden.prompts.map(({ ids }) => ids), { maxNewTokens, eosTokenId: [] });
    for (const [i, { name, text, ids, greedy_ids, greedy_text }] of golden.prompts.entries()) {
      assert.deepEqual(model.tokenizer.encode(text, { allowSpecialTokens: true }), ids, name);
      const alone = await model.generate([ids], { maxNewTokens, eosTokenId: [] });
      assert.deepEqual(alone.sequences[0].slice(ids.length), greedy_ids, name);
      assert.deepEqual(together.sequences[i], alone.sequences[0], name);
      assert.equal(model.tokenizer.decode(greedy_ids, { skipSpecialTokens: false }), greedy_text, name);
    }
  });
});

Deno.test("perplexity() of the shipped model on its held-out text is transformers', relative difference < 1e-5", async () => {
  const { text, window, predicted_tokens, mean_nll } = golden.held_out;
  await withTemporaryDirectory(async (directory) => {
    const shards = await openShards(await quantizeShippedModel(join(directory, "none"), "none"));
    const tokenizer = await loadModelTokenizer(shards);
    const tokenIds = tokenizer.encode(Deno.readTextFileSync(join(ROOT, text)), { addSpecialTokens: false });
    const options = { maxSequences: 1, contextTokens: window, logitRows: window, kvCacheType: "f32" as const };
    await using engine = await Engine.open(shards, options);
    const result = await perplexity(engine, {
      tokenIds,
      bosTokenId: tokenizer.bosTokenId!,
      windowTokens: window,
      logitRows: window,
    });
    assert.equal(result.predictedTokens, predicted_tokens);
    assert.ok(Math.abs(result.meanNll / mean_nll - 1) < 1e-5, `${result.meanNll}, transformers ${mean_nll}`);
  });
});

Deno.test("perplexity() over a q8 cache is that over an f32 cache, relative difference < 1e-3", async () => {
  const { text, window } = golden.held_out;
  await withTemporaryDirectory(async (directory) => {
    const shards = await openShards(await quantizeShippedModel(join(directory, "none"), "none"));
    const tokenizer = await loadModelTokenizer(shards);
    const tokenIds = tokenizer.encode(Deno.readTextFileSync(join(ROOT, text)), { addSpecialTokens: false });
    const score = async (kvCacheType: "f32" | "q8") => {
      await using engine = await Engine.open(shards, { maxSequences: 1, contextTokens: window, logitRows: window, kvCacheType });
      const given = { tokenIds, bosTokenId: tokenizer.bosTokenId!, windowTokens: window, logitRows: window };
      return { nll: (await perplexity(engine, given)).meanNll, bytes: engine.plan.kvCacheBytes };
    };
    const exact = await score("f32"), narrow = await score("q8");
    assert.notEqual(narrow.nll, exact.nll);
    assert.ok(Math.abs(narrow.nll / exact.nll - 1) < 1e-3, `${narrow.nll}, over f32 ${exact.nll}`);
    assert.equal(narrow.bytes / exact.bytes, 34 / 128);
  });
});

Deno.test("q4o raises the shipped model's perplexity less than nf4, with fewer bits a weight", async () => {
  await withTemporaryDirectory(async (directory) => {
    const path = linkShippedModel(join(directory, "model"));
    const [none, q4o, nf4] = [
      await openModelShards(path, { compression: "none" }),
      await openModelShards(path, { compression: "q4o" }),
      await openModelShards(path, { compression: "nf4" }),
    ];
    const linearBits = ({ manifest }: typeof q4o) => {
      const linear = manifest.tensors.filter(({ format }) => format === manifest.compression);
      const bytes = linear.flatMap(({ extents }) => extents).reduce((sum, extent) => sum + extent.bytes, 0);
      return 8 * bytes / linear.reduce((sum, { rows, cols }) => sum + rows * cols, 0);
    };
    assert.ok(linearBits(q4o) < linearBits(nf4), `${linearBits(q4o)} and ${linearBits(nf4)} bits a weight`);
    const { text, window } = golden.held_out;
    const tokenizer = await loadModelTokenizer(none);
    const scoring = {
      // All of it: on a few thousand tokens the increase of perplexity, unlike KL divergence, is within chance.
      tokenIds: tokenizer.encode(Deno.readTextFileSync(join(ROOT, text)), { addSpecialTokens: false }),
      bosTokenId: tokenizer.bosTokenId!,
      windowTokens: window,
      logitRows: window,
    };
    const options = { maxSequences: 1, contextTokens: window, logitRows: window };
    const compare = async (shards: typeof q4o) => {
      await using reference = await Engine.open(none, options);
      await using engine = await Engine.open(shards, options);
      return await comparePerplexity(engine, reference, scoring);
    };
    const [ours, theirs] = [await compare(q4o), await compare(nf4)];
    assert.ok(ours.perplexity < theirs.perplexity && ours.perplexity < 1.01 * ours.reference.perplexity);
    assert.ok(ours.klDivergence < theirs.klDivergence && ours.klDivergence < 0.01);
    assert.ok(ours.topOneAgreement > theirs.topOneAgreement && ours.topOneAgreement > 0.95);
  });
});

Deno.test("the shipped model is a checkpoint as users bring them: generation_config.json names its end-of-text tokens", async () => {
  await withTemporaryDirectory(async (directory) => {
    const path = linkShippedModel(join(directory, "model"));
    await using model = await AutoModel.fromPretrained(path);
    const named = JSON.parse(Deno.readTextFileSync(`${SHIPPED_MODEL}/generation_config.json`)).eos_token_id;
    assert.ok(named.length > 1);
    assert.deepEqual(model.tokenizer.eosTokenIds, named);
  });
});
