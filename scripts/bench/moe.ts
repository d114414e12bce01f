/**
 * Measures how a model with routed experts decodes when few of them fit into memory: `deno run -A scripts/bench/moe.ts SHARD_DIRECTORY [--ram 4GiB]
 * [--tokens 24] [--rounds 3] [--precision fast]`. Prints one JSON object.
 *
 * Every step runs a random token, so that routing is as little skewed as the model's routers allow: real text hits more often, a synthetic model's
 * routers spread tokens evenly. The disk is measured before and after each round; the share is that of the median round.
 */
import { parseArgs } from "node:util";
import { Engine } from "../../lib/engine/engine.ts";
import { expertHitRate, type ExpertTotals } from "../../lib/engine/statistics.ts";
import { UsageError } from "../../lib/errors.ts";
import { Context } from "../../lib/ffi/context.ts";
import { parseBytes } from "../../lib/memory/bytes.ts";
import { openShards } from "../../lib/shard/reader.ts";
import { measureDiskReadBytesPerSecond } from "../../lib/stream/disk.ts";

const { values: options, positionals: [path] } = parseArgs({
  args: Deno.args,
  allowPositionals: true,
  options: {
    ram: { type: "string", default: "4GiB" },
    tokens: { type: "string", default: "24" },
    rounds: { type: "string", default: "3" },
    precision: { type: "string", default: "fast" },
  },
});
if (path === undefined) throw new UsageError("Cannot measure: name a shard directory");
const tokens = Number(options.tokens), rounds = Number(options.rounds);
const { precision } = options;
if (!(tokens >= 1 && rounds >= 1)) throw new UsageError("Cannot measure: --tokens and --rounds are numbers of at least 1");
if (precision !== "fast" && precision !== "exact") {
  throw new UsageError(`Cannot use --precision ${precision}: known are exact, fast`);
}

const shards = await openShards(path);
using context = await Context.load({});
const files = shards.filePaths.map((path, i) => ({ path, bytes: shards.manifest.files[i].bytes }));
const disk = (): Promise<number> => measureDiskReadBytesPerSecond(context, files, { bytes: 512 * 2 ** 20 });

await using engine = await Engine.open(shards, {
  ...{ ramBytes: parseBytes(options.ram), contextTokens: tokens * (rounds + 1) + 16, passTokens: 16, precision },
});
const { experts: plan } = engine.plan;
if (!plan) throw new UsageError(`Cannot measure ${path}: the model has no routed experts`);
using sequence = engine.openSequence();
let state = 1;
const randomToken = (): number => (state = (Math.imul(state, 1103515245) + 12345) & 0x7fffffff) % engine.config.vocabSize;

/** Runs steps of one token each and returns what they cost. */
async function decode(): Promise<{ seconds: number; bytesRead: number; stallSeconds: number; experts: ExpertTotals }> {
  const before = engine.statistics.decode;
  for (let i = 0; i < tokens; i++) await engine.pass([{ sequence, tokens: [randomToken()], logits: "last", output: "argmax" }]);
  const after = engine.statistics.decode;
  const experts = { ...after.experts };
  for (const key of Object.keys(experts) as (keyof ExpertTotals)[]) experts[key] -= before.experts[key];
  return {
    seconds: after.seconds - before.seconds,
    bytesRead: after.bytesRead - before.bytesRead,
    stallSeconds: after.stallSeconds - before.stallSeconds,
    experts,
  };
}

// What is hot is in memory from here on.
await decode();
const results: (Awaited<ReturnType<typeof decode>> & { diskBytesPerSecond: number; diskShare: number })[] = [];
let before = await disk();
for (let round = 0; round < rounds; round++) {
  const result = await decode();
  const after = await disk(), diskBytesPerSecond = (before + after) / 2;
  results.push({ ...result, diskBytesPerSecond, diskShare: result.bytesRead / result.seconds / diskBytesPerSecond });
  before = after;
}
results.sort((a, b) => a.diskShare - b.diskShare);
const median = results[Math.floor(results.length / 2)];
console.log(JSON.stringify(
  {
    model: path,
    ram: options.ram,
    secondsPerToken: median.seconds / tokens,
    activeExpertBytesPerToken: plan.activeBytesPerToken,
    expertCacheBytes: plan.cacheBytes,
    expertBytes: plan.totalBytes,
    assumedHitRate: plan.assumedHitRate,
    hitRate: expertHitRate(median.experts),
    foreseen: median.experts.predictable > 0 ? median.experts.predicted / median.experts.predictable : 0,
    readBytesPerToken: median.bytesRead / tokens,
    readBytesPerSecond: median.bytesRead / median.seconds,
    stallSecondsPerToken: median.stallSeconds / tokens,
    diskBytesPerSecond: median.diskBytesPerSecond,
    diskShare: median.diskShare,
    diskShares: results.map(({ diskShare }) => diskShare),
    peakRssBytes: engine.statistics.peakRssBytes,
  },
  null,
  2,
));
