/**
 * The shard directory that a checkpoint would be quantized to, from its headers alone: what plans are made from before there is one.
 * @module
 */
import { openCheckpoint } from "../checkpoint/checkpoint.ts";
import type { WeightSupply } from "../checkpoint/weight_supply.ts";
import { encodedTensors } from "../encodings/registry.ts";
import { Context } from "../ffi/context.ts";
import { extentBytes, quantizedBytesBound } from "../ffi/quantize.ts";
import { architectureFor } from "../models/registry.ts";
import { type Compression, type ExtentEntry, GENERATOR, paddedBytes } from "./manifest.ts";
import { planQuantization } from "./quantize_plan.ts";
import { ShardDirectory } from "./reader.ts";

/** Share of weights that q4o keeps apart in trained models; how many it will be is known only after it was done. */
const EXPECTED_OUTLIERS = 0.002;

/**
 * Returns a directory whose manifest says how large everything would be. None of its shard files exist; its path is the checkpoint's, where the
 * tokenizer's files are.
 *
 * @throws {FormatError} for anything wrong in the checkpoint's headers, {UnsupportedError} for a model that is not known.
 */
export async function predictShards(source: string, compression: Compression, supply?: WeightSupply): Promise<ShardDirectory> {
  using checkpoint = await openCheckpoint(source, supply);
  using context = await Context.load({ kind: "cpu", threads: 1 });
  const architecture = architectureFor(checkpoint.config);
  const plan = planQuantization(
    checkpoint,
    architecture,
    compression,
    (format, rows, cols) => quantizedBytesBound(context, context.formatId(format), rows, cols),
    await encodedTensors(checkpoint),
  );
  const files = plan.groups.map(({ file }) => ({ name: file, bytes: 0, headerBytes: 0, headerSha256: "" }));
  const tensors = plan.groups.flatMap(({ tensors }, file) =>
    tensors.map(({ name, format, rows, cols, extentRows }) => ({
      name,
      file,
      format,
      rows,
      cols,
      snrDb: null,
      extents: extentRows.map((rows): ExtentEntry => {
        const outliers = format === "q4o" ? Math.round(rows * cols * EXPECTED_OUTLIERS) : 0;
        const bytes = extentBytes(context, context.formatId(format), rows, cols, outliers);
        const offset = files[file].bytes;
        files[file].bytes += paddedBytes(bytes);
        return { offset, bytes, rows, outliers, sha256: "" };
      }),
    }))
  );
  const { path, config, generationConfig, name, revision } = checkpoint;
  return new ShardDirectory(path, {
    format: "airkern-shards",
    formatVersion: 1,
    generator: GENERATOR,
    config,
    generationConfig,
    tokenizerFiles: [],
    source: { name, revision },
    compression,
    files,
    tensors,
    ignoredTensors: plan.ignoredTensors,
  }, checkpoint.tokenizerFiles.size > 0 ? checkpoint.tokenizerFiles : undefined);
}
