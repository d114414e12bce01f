/**
 * Reads and writes sizes of memory as people do: `512MiB`, `8GiB`, `1.5 GiB`.
 * @module
 */
import { UsageError } from "../errors.ts";

const UNITS: Record<string, number> = {
  "": 1,
  b: 1,
  kb: 1e3,
  mb: 1e6,
  gb: 1e9,
  tb: 1e12,
  kib: 2 ** 10,
  mib: 2 ** 20,
  gib: 2 ** 30,
  tib: 2 ** 40,
};

/**
 * Returns the bytes that a size names: a number with KiB, MiB, GiB, TiB (powers of 1024), KB, MB, GB, TB (powers of 1000), B or nothing.
 * Case does not matter; a fraction of a byte is cut off.
 *
 * @throws {UsageError} where the text is not such a size or names less than a byte.
 */
export function parseBytes(text: string): number {
  const match = /^\s*(\d+(?:\.\d+)?|\.\d+)\s*([a-z]*)\s*$/i.exec(text);
  const unit = match && UNITS[match[2].toLowerCase()];
  if (!match || !unit) {
    throw new UsageError(
      `Cannot read "${text}" as a size: required is a number with KiB, MiB, GiB or TiB (or KB, MB, GB, TB, B)`,
    );
  }
  const bytes = Math.floor(Number(match[1]) * unit);
  if (bytes < 1 || !Number.isSafeInteger(bytes)) {
    throw new UsageError(`Cannot use "${text}" as a size: required is at least 1 byte and at most 2^53`);
  }
  return bytes;
}

/** Returns a size with three significant digits and its unit: `0 B`, `4.00 KiB`, `7.50 GiB`. */
export function formatBytes(bytes: number): string {
  let value = Math.abs(bytes), unit = 0;
  const names = ["B", "KiB", "MiB", "GiB", "TiB"];
  // 1023.5 and more would be printed as "1024": that is one of the next unit.
  while (value >= 1023.5 && unit < names.length - 1) {
    value /= 1024;
    unit++;
  }
  const digits = unit === 0 || value >= 99.95 ? 0 : value >= 9.995 ? 1 : 2;
  return `${bytes < 0 ? "-" : ""}${value.toFixed(digits)} ${names[unit]}`;
}
