/**
 * What the command line writes: results to stdout, everything else to stderr.
 * @module
 */
import { AirkernError } from "../errors.ts";

const encoder = new TextEncoder();

/** Thrown when whoever read stdout has gone, as `head` does when it has enough. */
export class BrokenPipeError extends Error {
  override name = "BrokenPipeError";
}

/** Writes text to a stream, all of it before it returns, so that nothing is lost when the process ends. */
function write(stream: { writeSync(bytes: Uint8Array): number }, text: string): void {
  let bytes = encoder.encode(text);
  while (bytes.length > 0) {
    try {
      bytes = bytes.subarray(stream.writeSync(bytes));
    } catch (error) {
      if (error instanceof Deno.errors.BrokenPipe) throw new BrokenPipeError("the reader of this output has gone");
      // A terminal or pipe in non-blocking mode that is full for now.
      if (!(error instanceof Deno.errors.WouldBlock)) throw new AirkernError(`Cannot write output: ${(error as Error).message}`);
    }
  }
}

/** Writes to stdout as it is. @throws {BrokenPipeError} where its reader has gone. */
export function writeOut(text: string): void {
  write(Deno.stdout, text);
}

/** Writes a line to stdout. @throws {BrokenPipeError} where its reader has gone. */
export function printLine(line: string): void {
  writeOut(line + "\n");
}

/** Writes one JSON object to stdout, on lines of its own. */
export function printJson(value: unknown): void {
  printLine(JSON.stringify(value, null, 2));
}

/** Writes a line to stderr; a stderr that nobody reads is no reason to stop. */
export function printError(line: string): void {
  try {
    write(Deno.stderr, line + "\n");
  } catch (error) {
    if (!(error instanceof BrokenPipeError)) throw error;
  }
}

/** Returns rows as text, the columns aligned: the first to the left, numbers to the right. */
export function table(rows: readonly (readonly string[])[], indent = "  "): string[] {
  const widths: number[] = [];
  for (const row of rows) row.forEach((cell, i) => widths[i] = Math.max(widths[i] ?? 0, cell.length));
  const numeric = widths.map((_, i) => rows.some((row) => /^[\d.]/.test(row[i] ?? "")));
  return rows.map((row) =>
    (indent + row.map((cell, i) => i > 0 && numeric[i] ? cell.padStart(widths[i]) : cell.padEnd(widths[i])).join("  ")).trimEnd()
  );
}

/** Returns seconds as people say them: `0.42 s`, `12 s`, `3 min 20 s`, `2 h 5 min`. */
export function formatSeconds(seconds: number): string {
  if (seconds < 10) return `${seconds.toFixed(seconds < 0.1 ? 4 : 2)} s`;
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  return `${Math.floor(whole / 3600)} h ${Math.floor(whole % 3600 / 60)} min`;
}
