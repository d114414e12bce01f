/**
 * Finds where the routed experts of a model lie.
 * @module
 */
import { FormatError } from "../errors.ts";
import type { ExpertTable } from "../memory/plan.ts";
import type { ModelConfig, ModelTensors } from "../models/architecture.ts";
import { paddedBytes } from "../shard/manifest.ts";
import type { ShardDirectory } from "../shard/reader.ts";

/** Returns the layers that have routed experts, in order. */
export function expertLayers({ layers }: ModelConfig): number[] {
  return [...layers.keys()].filter((layer) => layers[layer].feedForward.kind === "moe");
}

/**
 * Returns the extents of all routed experts, or undefined for a model that has none.
 * @throws {FormatError} where an expert's extents do not lie behind each other in one file, so that it could not be read in one go.
 */
export function expertTableOf(shards: ShardDirectory, config: ModelConfig, tensors: ModelTensors): ExpertTable | undefined {
  const layers = expertLayers(config);
  if (layers.length === 0) return undefined;
  const routers = layers.map((layer) => {
    const { feedForward } = config.layers[layer];
    if (feedForward.kind !== "moe") throw new Error(`Cannot list the experts of layer ${layer}: it has none`);
    return feedForward.router;
  });
  const [{ numExperts, topK }] = routers;
  if (routers.some((router) => router.numExperts !== numExperts || router.topK !== topK)) {
    throw new Error("Cannot list experts: layers have different numbers of them");
  }
  const experts = layers.flatMap((layer) => {
    const byExpert = Array.from({ length: numExperts }, (): ExpertTable["experts"][number][number][] => []);
    const ends = byExpert.map((): { file: number; offset: number } | undefined => undefined);
    for (const { name, kind, expert } of tensors.layers[layer]) {
      if (kind !== "expert" || expert === undefined) continue;
      const tensor = shards.tensorIndex(name);
      const { file, extents } = shards.manifest.tensors[tensor];
      extents.forEach(({ offset, bytes }, extent) => {
        const end = ends[expert], length = paddedBytes(bytes);
        if (end && (end.file !== file || end.offset !== offset)) {
          throw new FormatError(`Cannot use tensor ${name}: it does not lie behind the expert's other tensors`);
        }
        ends[expert] = { file, offset: offset + length };
        byExpert[expert].push({ tensor, extent, paddedBytes: length });
      });
    }
    return byExpert;
  });
  return { numLayers: layers.length, numExperts, topK, experts };
}
