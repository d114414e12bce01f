/**
 * Measures a device's ceilings: memory reads and arithmetic.
 * @module
 */
import type { Context } from "./context.ts";
import { Ops } from "./ops.ts";

/** Returns the seconds of the fastest of several passes of all threads over memory. */
export async function measureReadSeconds(context: Context, address: bigint, bytes: number, repeats: number): Promise<number> {
  const seconds = new Float64Array(1);
  context.check(
    await context.library.symbols.airk_measure_read(context.handle, address, BigInt(bytes), repeats, seconds),
    "measure memory reads",
  );
  return seconds[0];
}

/** Returns peak FLOP/s of all threads: `float32`, or the operand kind of the fast path for many tokens. */
export async function measurePeakFlops(context: Context, kind: "float32" | "fast"): Promise<number> {
  const flops = new Float64Array(1);
  context.check(
    await context.library.symbols.airk_measure_peak(context.handle, kind === "fast" ? 1 : 0, flops),
    "measure arithmetic",
  );
  return flops[0];
}

/** Returns the seconds of the fastest of several copies from host memory to the device. */
export async function measureCopySeconds(
  context: Context,
  to: bigint,
  from: bigint,
  bytes: number,
  repeats: number,
): Promise<number> {
  using stream = context.stream();
  using start = context.event();
  using stop = context.event();
  const ops = new Ops(stream);
  let bestMs = Infinity;
  for (let i = 0; i < repeats; i++) {
    start.record(stream);
    ops.copyToDevice(to, from, bytes);
    stop.record(stream);
    await stop.synchronize();
    // Events resolve about half a microsecond.
    bestMs = Math.min(bestMs, Math.max(start.elapsedMs(stop), 5e-4));
  }
  return bestMs / 1000;
}
