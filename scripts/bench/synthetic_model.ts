/**
 * Synthetic models that benchmarks keep between runs.
 * @module
 */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { MANIFEST_FILE } from "../../lib/shard/manifest.ts";
import type { LlamaConfigJson } from "../synthesize/shapes.ts";
import { synthesizeModel } from "../synthesize_model.ts";

/** Returns the directory of a synthetic model below `models`, writing it on first use. */
export async function syntheticModel(
  models: string,
  name: string,
  config: LlamaConfigJson,
  linkLayers: boolean,
): Promise<string> {
  const out = join(models, name);
  if (!existsSync(join(out, MANIFEST_FILE))) {
    console.error(`writing ${out} ...`);
    await synthesizeModel({ config, name, out, compression: "q4o", linkLayers, seed: 1 });
  }
  return out;
}
