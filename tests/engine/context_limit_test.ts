/**
 * Models of which only shorter contexts are computed.
 */
import assert from "node:assert/strict";
import { UnsupportedError } from "../../lib/errors.ts";
import { planModel } from "../../lib/engine/model_plan.ts";
import { openShards } from "../../lib/shard/reader.ts";
import { ARCHITECTURES, shardCheckpoint } from "./tiny_models.ts";

for (const name of ["deepseek_v32/base", "glm_moe_dsa/base"]) {
  Deno.test(`${name} plans as many tokens as its indexer chooses and refuses more, saying why`, async () => {
    using shards = await shardCheckpoint(ARCHITECTURES + name);
    const directory = await openShards(shards.path);
    assert.equal(planModel(directory, { contextTokens: 128 }).plan.contextTokens, 128);
    assert.equal(planModel(directory).plan.contextTokens, 128);
    assert.throws(() => planModel(directory, { contextTokens: 129 }), (error: unknown) => {
      assert.ok(error instanceof UnsupportedError);
      return /contextTokens 129: .*a choice of 128 tokens in longer sequences.*required at most 128/.test(error.message);
    });
  });
}
