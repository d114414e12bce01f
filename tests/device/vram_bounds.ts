/**
 * How much device memory an engine needs, at least and to keep all weights there.
 */
import type { EngineOptions } from "../../lib/engine/engine.ts";
import { planModel } from "../../lib/engine/model_plan.ts";
import { openShards } from "../../lib/shard/reader.ts";

/** Returns the smallest budget of device memory that a model runs in, and what it takes with all weights there. */
export async function vramBounds(path: string, options: EngineOptions): Promise<{ least: number; all: number }> {
  const shards = await openShards(path);
  const totalOf = (vramBytes: number) =>
    planModel(shards, { ...options, vramBytes }, { freeBytes: 2 ** 40 }).plan.device!.totalBytes;
  const all = Math.ceil(totalOf(2 ** 40) / 4096) * 4096;
  let low = 1, high = all;
  while (low < high) {
    const middle = Math.floor((low + high) / 2);
    try {
      totalOf(middle);
      high = middle;
    } catch {
      low = middle + 1;
    }
  }
  return { least: low, all };
}
