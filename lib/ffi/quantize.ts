/**
 * The native quantizers, on host memory.
 * @module
 */
import type { Context } from "./context.ts";

/** What {@linkcode quantizeRows} wrote. */
export interface QuantizedExtent {
  bytes: number;
  outliers: number;
  /** Sum of squared weights and of squared errors; their ratio is the signal-to-noise ratio. */
  squaredWeights: number;
  squaredErrors: number;
}

const out = () => new BigUint64Array(1);

/** Returns the length in bytes of an extent, not padded at its end. */
export function extentBytes(context: Context, format: number, rows: number, cols: number, outliers: number): number {
  const bytes = out();
  context.check(
    context.library.symbols.airk_extent_bytes(format, BigInt(rows), BigInt(cols), BigInt(outliers), bytes),
    `size an extent of ${rows} x ${cols}`,
  );
  return Number(bytes[0]);
}

/** Returns the largest number of bytes an extent of this shape may need. */
export function quantizedBytesBound(context: Context, format: number, rows: number, cols: number): number {
  const bytes = out();
  context.check(
    context.library.symbols.airk_quantized_bytes_bound(format, BigInt(rows), BigInt(cols), bytes),
    `bound an extent of ${rows} x ${cols}`,
  );
  return Number(bytes[0]);
}

/** Trains what a whole tensor shares (code table, column scale) on a sample of its rows: [rows, cols] of `type` (AIRK_F32, ...). */
export async function trainQuantizer(
  context: Context,
  format: number,
  source: Uint8Array<ArrayBuffer>,
  type: number,
  rows: number,
  cols: number,
): Promise<Uint8Array<ArrayBuffer>> {
  const { symbols } = context.library;
  const bytes = out();
  context.check(symbols.airk_quantizer_parameter_bytes(format, BigInt(cols), bytes), "size the quantizer's parameters");
  const parameters = new Uint8Array(Number(bytes[0]));
  context.check(
    await symbols.airk_quantizer_train(
      context.handle,
      format,
      source,
      type,
      BigInt(rows),
      BigInt(cols),
      parameters,
      bytes[0],
    ),
    "train the quantizer",
  );
  return parameters;
}

/**
 * Quantizes rows of `type` [rows, cols] into one extent.
 * @throws {NativeError} AIRK_NOT_FINITE where a weight is NaN or infinite, AIRK_CANCELLED after {@linkcode Context.cancel}.
 */
export async function quantizeRows(
  context: Context,
  format: number,
  source: Uint8Array<ArrayBuffer>,
  type: number,
  rows: number,
  cols: number,
  parameters: Uint8Array<ArrayBuffer>,
  extent: Uint8Array<ArrayBuffer>,
): Promise<QuantizedExtent> {
  const bytes = out(), outliers = out(), statistics = new Float64Array(2);
  context.check(
    await context.library.symbols.airk_quantize(
      context.handle,
      format,
      source,
      type,
      BigInt(rows),
      BigInt(cols),
      parameters,
      BigInt(parameters.length),
      extent,
      BigInt(extent.length),
      bytes,
      outliers,
      statistics,
    ),
    "quantize",
  );
  return {
    bytes: Number(bytes[0]),
    outliers: Number(outliers[0]),
    squaredWeights: statistics[0],
    squaredErrors: statistics[1],
  };
}
