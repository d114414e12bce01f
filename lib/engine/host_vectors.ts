/**
 * Reads the small tensors that the host computes with.
 * @module
 */
import { closeSync, openSync } from "node:fs";
import { layerPrefix } from "../layers/pass.ts";
import type { ModelConfig } from "../models/architecture.ts";
import type { ShardDirectory } from "../shard/reader.ts";
import { readWhole } from "./positional_reads.ts";

/** Returns the names of the tensors that layers use on the host, and their elements. */
function hostVectors({ layers }: ModelConfig): [name: string, elements: number][] {
  return layers.flatMap(({ feedForward, outputScaled }, layer): [string, number][] => {
    const prefix = layerPrefix(layer);
    return [
      ...(outputScaled ? [[`${prefix}layer_scalar`, 1] as [string, number]] : []),
      ...(feedForward.kind === "moe" && feedForward.expertScales
        ? [[`${prefix}mlp.gate.per_expert_scale`, feedForward.router.numExperts] as [string, number]]
        : []),
    ];
  });
}

/**
 * Returns the vectors that the host computes with, by name: f32.
 * @throws {FormatError} where a file ends too early.
 */
export async function loadHostVectors(shards: ShardDirectory, config: ModelConfig): Promise<Map<string, Float32Array>> {
  const vectors = new Map<string, Float32Array>();
  for (const [name, elements] of hostVectors(config)) {
    const { file, extents: [extent] } = shards.tensor(name);
    const values = new Float32Array(elements), path = shards.filePaths[file];
    const descriptor = openSync(path, "r");
    try {
      await readWhole(descriptor, path, new Uint8Array(values.buffer), extent.offset);
    } finally {
      closeSync(descriptor);
    }
    vectors.set(name, values);
  }
  return vectors;
}
