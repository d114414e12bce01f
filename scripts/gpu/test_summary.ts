/**
 * Reads what `deno test` prints at its end.
 * @module
 */

/** How many tests passed, failed and were skipped. */
export interface TestCounts {
  passed: number;
  failed: number;
  skipped: number;
}

/** Sums the summaries of all runs in a text: `ok | 12 passed (3 steps) | 0 failed | 1 ignored (2s)`. */
export function countTests(output: string): TestCounts {
  const counts: TestCounts = { passed: 0, failed: 0, skipped: 0 };
  // deno-lint-ignore no-control-regex
  for (const line of output.replace(/\x1b\[[\d;]*m/g, "").split("\n")) {
    if (!/^(ok|FAILED) \|/.test(line)) continue;
    for (const [, count, word] of line.matchAll(/(\d+) (passed|failed|ignored)\b/g)) {
      counts[word === "ignored" ? "skipped" : word as "passed" | "failed"] += Number(count);
    }
  }
  return counts;
}

/** Returns the line that a suite closes with. */
export function closingLine({ passed, failed, skipped }: TestCounts): string {
  return `${passed} passed, ${failed} failed, ${skipped} skipped`;
}
