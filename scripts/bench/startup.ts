/**
 * Measures what a program waits for before a model is loaded: `deno run -A scripts/bench/startup.ts SHARD_DIRECTORY`.
 */
const startMs = performance.now();
await import("../../mod.ts");
const importMs = performance.now() - startMs;

const { openShards } = await import("../../lib/shard/reader.ts");
const openStartMs = performance.now();
await openShards(Deno.args[0]);
console.log(JSON.stringify({ importMs, openMs: performance.now() - openStartMs }));
