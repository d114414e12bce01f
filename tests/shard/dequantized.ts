import fs from "node:fs";
import type { Context } from "../../lib/ffi/context.ts";
import { Ops } from "../../lib/ffi/ops.ts";
import type { TensorEntry } from "../../lib/shard/manifest.ts";
import type { ShardDirectory } from "../../lib/shard/reader.ts";

/** Returns all weights of a stored tensor, dequantized by the native library. */
export async function dequantized(context: Context, shards: ShardDirectory, tensor: TensorEntry): Promise<Float32Array> {
  const weights = new Float32Array(tensor.rows * tensor.cols);
  const file = fs.readFileSync(shards.filePaths[tensor.file]);
  using stream = context.stream();
  const ops = new Ops(stream);
  let at = 0;
  for (const { offset, bytes, rows, outliers } of tensor.extents) {
    using from = await context.hostBuffer(bytes);
    using to = await context.hostBuffer(rows * tensor.cols * 4);
    from.view().set(file.subarray(offset, offset + bytes));
    ops.dequantize(to.address, {
      format: context.formatId(tensor.format),
      address: from.address,
      bytes: BigInt(bytes),
      rows: BigInt(rows),
      cols: BigInt(tensor.cols),
      outliers: BigInt(outliers),
    });
    await stream.synchronize();
    weights.set(new Float32Array(to.buffer), at);
    at += rows * tensor.cols;
  }
  return weights;
}

/** Returns how well weights are approximated, in dB. */
export function snrDb(weights: Float32Array, approximated: Float32Array): number {
  let signal = 0, noise = 0;
  weights.forEach((w, i) => {
    signal += w * w;
    noise += (w - approximated[i]) ** 2;
  });
  return 10 * Math.log10(signal / noise);
}
