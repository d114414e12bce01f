/**
 * Random weight extents of sane scale, made from a seeded stream: the speed of a model depends on its shape alone.
 */
import { type Cipheriv, createCipheriv } from "node:crypto";
import { extentBytes, extentSections } from "../../lib/shard/formats.ts";
import type { WeightFormatName } from "../../lib/shard/manifest.ts";

/** Share of weights kept as outliers: about what real layers need. */
const OUTLIER_SHARE = 0.0015;

/** Ascending int8 code table of the kind that training gives for normally distributed weights. */
const CODE_TABLE = Int8Array.of(-111, -84, -65, -50, -36, -24, -13, -1, 10, 22, 34, 48, 63, 80, 100, 127);

/** A seeded stream of bytes, as fast as memory: the keystream of AES-128-CTR. */
export class RandomBytes {
  readonly #cipher: Cipheriv;
  static readonly #zeros = new Uint8Array(1 << 20);
  constructor(seed: number) {
    const key = new Uint8Array(16);
    new DataView(key.buffer).setUint32(0, seed);
    this.#cipher = createCipheriv("aes-128-ctr", key, new Uint8Array(16));
  }

  /** Overwrites a range with random bytes. */
  fill(into: Uint8Array): void {
    for (let offset = 0; offset < into.length; offset += RandomBytes.#zeros.length) {
      const bytes = Math.min(RandomBytes.#zeros.length, into.length - offset);
      into.set(this.#cipher.update(RandomBytes.#zeros.subarray(0, bytes)), offset);
    }
  }
}

/** Rounds to bfloat16 and returns its bits. */
function bf16Bits(value: number): number {
  const bits = new Uint32Array(Float32Array.of(value).buffer)[0];
  return (bits + 0x7fff + ((bits >>> 16) & 1)) >>> 16;
}

/** Returns how many outliers a row of a synthetic matrix has. */
export function outliersPerRow(format: WeightFormatName, cols: number): number {
  return format === "q4o" ? Math.max(1, Math.round(OUTLIER_SHARE * cols)) : 0;
}

/** Returns the bytes of a synthetic extent. */
export function syntheticExtentBytes(format: WeightFormatName, rows: number, cols: number): number {
  return extentBytes(format, rows, cols, rows * outliersPerRow(format, cols));
}

/**
 * Fills an extent with weights of standard deviation `sigma`; norms with ones.
 *
 * @param into Zero-filled, at least {@linkcode syntheticExtentBytes} long.
 */
export function fillExtent(
  into: Uint8Array,
  format: WeightFormatName,
  rows: number,
  cols: number,
  sigma: number,
  random: RandomBytes,
): void {
  const perRow = outliersPerRow(format, cols);
  const sections = extentSections(format, rows, cols, rows * perRow)
    .map(({ offset, bytes }) => into.subarray(offset, offset + bytes));
  switch (format) {
    case "f32": {
      new Float32Array(into.buffer, into.byteOffset, rows * cols).fill(1); // norms
      return;
    }
    case "bf16": {
      random.fill(into.subarray(0, rows * cols * 2));
      const values = new Uint16Array(into.buffer, into.byteOffset, rows * cols);
      const bits = Uint16Array.from({ length: 256 }, (_, byte) => bf16Bits((byte - 127.5) / 73.9 * sigma));
      for (let i = 0; i < values.length; i++) values[i] = bits[values[i] & 255];
      return;
    }
    case "q8": {
      const [scale, code] = sections;
      // Uniform int8 codes have a standard deviation of 256 / sqrt(12).
      new Uint16Array(scale.buffer, scale.byteOffset, scale.length / 2).fill(bf16Bits(sigma / 73.9));
      random.fill(code);
      return;
    }
    case "nf4": {
      const [absmax, code] = sections;
      // Evenly used NF4 values have a standard deviation of 0.55.
      new Float32Array(absmax.buffer, absmax.byteOffset, absmax.length / 4).fill(sigma / 0.55);
      random.fill(code);
      return;
    }
    case "q4o": {
      const [table, columnScale, rowScale, blockScale, code, outlierBase, outlierStart, outlierCol, outlier] = sections;
      table.set(new Uint8Array(CODE_TABLE.buffer));
      columnScale.fill(128);
      random.fill(blockScale);
      // Signed scales of magnitude 64 to 127: of either sign, none near zero.
      const signed = new Int8Array(blockScale.buffer, blockScale.byteOffset, blockScale.length);
      for (let i = 0; i < signed.length; i++) signed[i] = signed[i] < 0 ? -(64 | (-signed[i] & 63)) : 64 | (signed[i] & 63);
      random.fill(code);
      const meanSquareCode = CODE_TABLE.reduce((sum, value) => sum + value * value, 0) / 16;
      const meanSquareScale = 64 * 64 + 64 * 63 + (63 * 127) / 6;
      const unit = sigma / Math.sqrt(meanSquareCode * meanSquareScale);
      new Uint16Array(rowScale.buffer, rowScale.byteOffset, rows).fill(bf16Bits(unit));
      const bases = new Uint32Array(outlierBase.buffer, outlierBase.byteOffset, outlierBase.length / 4);
      const starts = new Uint16Array(outlierStart.buffer, outlierStart.byteOffset, rows);
      for (let row = 0; row < rows; row++) {
        if (row % 64 === 0) bases[row / 64] = row * perRow;
        starts[row] = (row % 64) * perRow;
      }
      const cols16 = new Uint16Array(outlierCol.buffer, outlierCol.byteOffset, rows * perRow);
      const values = new Float16Array(outlier.buffer, outlier.byteOffset, rows * perRow);
      random.fill(outlierCol);
      const stride = Math.floor(cols / perRow);
      for (let i = 0; i < cols16.length; i++) {
        const draw = cols16[i];
        cols16[i] = (i % perRow) * stride + draw % stride;
        values[i] = ((draw & 0x8000) ? 8 : -8) * sigma / unit / 128; // 8 standard deviations off
      }
      return;
    }
    default:
      throw new RangeError(`Cannot synthesize weights of format ${format}`);
  }
}
