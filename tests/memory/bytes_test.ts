import assert from "node:assert/strict";
import { UsageError } from "../../lib/errors.ts";
import { formatBytes, parseBytes } from "../../lib/memory/bytes.ts";

Deno.test("parseBytes() reads binary and decimal units, fractions, spaces and any case", () => {
  const cases: [string, number][] = [
    ["512MiB", 512 * 2 ** 20],
    ["8GiB", 8 * 2 ** 30],
    ["1.5GiB", 1.5 * 2 ** 30],
    ["1.5 gib", 1.5 * 2 ** 30],
    [" 2TiB ", 2 ** 41],
    ["64KiB", 65536],
    ["8GB", 8e9],
    ["500MB", 5e8],
    ["3kb", 3000],
    ["1TB", 1e12],
    ["4096", 4096],
    ["4096B", 4096],
    [".5KiB", 512],
    ["1.0001KiB", 1024],
  ];
  for (const [text, bytes] of cases) assert.equal(parseBytes(text), bytes, text);
});

Deno.test("parseBytes() names what it cannot read", () => {
  for (
    const text of ["", "8G", "GiB", "-1GiB", "1e9", "8 GiB free", "1.2.3MiB", "0", "0.1B", "0GiB", "9000000TiB", "constructor"]
  ) {
    assert.throws(() => parseBytes(text), (error) => error instanceof UsageError && error.message.includes(`"${text}"`), text);
  }
});

Deno.test("formatBytes() keeps three digits and never prints 1024 of a unit", () => {
  const cases: [number, string][] = [
    [0, "0 B"],
    [1023, "1023 B"],
    [1024, "1.00 KiB"],
    [1024 ** 2 - 1, "1.00 MiB"],
    [1023.4 * 1024, "1023 KiB"],
    [1536 * 2 ** 20, "1.50 GiB"],
    [9.994 * 2 ** 20, "9.99 MiB"],
    [9.996 * 2 ** 20, "10.0 MiB"],
    [99.96 * 2 ** 20, "100 MiB"],
    [220 * 2 ** 30, "220 GiB"],
    [5 * 2 ** 50, "5120 TiB"],
    [-4096, "-4.00 KiB"],
  ];
  for (const [bytes, text] of cases) assert.equal(formatBytes(bytes), text);
});

Deno.test("parseBytes() reads back what formatBytes() writes, to three digits", () => {
  for (let bytes = 1; bytes < 2 ** 45; bytes = Math.ceil(bytes * 1.7)) {
    const again = parseBytes(formatBytes(bytes));
    assert.ok(Math.abs(again - bytes) <= bytes * 0.006, `${bytes} became ${again}`);
  }
});
