/** The model that the repository ships, quantized into a directory of its own for tests that run it. */
import { fileURLToPath } from "node:url";
import { quantizeCheckpoint } from "../lib/shard/quantizer.ts";
import type { Compression } from "../lib/shard/manifest.ts";

/** Path of the repository. */
export const ROOT: string = fileURLToPath(new URL("..", import.meta.url));

/** Path of the shipped checkpoint. Tests leave it as it is. */
export const SHIPPED_MODEL: string = fileURLToPath(new URL("../models/kjv-5m", import.meta.url));

/** Makes a checkpoint of links to the shipped one's files, so that shards beside it do not touch the repository. */
export function linkShippedModel(directory: string): string {
  Deno.mkdirSync(directory, { recursive: true });
  for (const { name, isFile } of Deno.readDirSync(SHIPPED_MODEL)) {
    if (isFile) Deno.symlinkSync(`${SHIPPED_MODEL}/${name}`, `${directory}/${name}`);
  }
  return directory;
}

/** Quantizes the shipped model. */
export async function quantizeShippedModel(out: string, compression: Compression): Promise<string> {
  await quantizeCheckpoint({ source: SHIPPED_MODEL, out, compression });
  return out;
}
