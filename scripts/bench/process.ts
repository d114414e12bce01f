/**
 * Runs measurements as processes of their own and prints their rows.
 */
import { execFile } from "node:child_process";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { AirkernError } from "../../lib/errors.ts";
import { formatBytes } from "../../lib/memory/bytes.ts";

/** One row of a table of figures. */
export interface Row {
  what: string;
  figure: string;
  ceiling?: string;
  share?: string;
}

// What a child prints is checked by use: a figure that is missing shows as an error at once.
// deno-lint-ignore no-explicit-any
export type Json = any;

const root = fileURLToPath(new URL("../..", import.meta.url));

/**
 * Runs a script of this repository and returns the JSON object that it prints.
 * @throws {AirkernError} with the script's own message where it fails.
 */
export async function script(path: string, args: string[]): Promise<Json> {
  try {
    const { stdout } = await promisify(execFile)(Deno.execPath(), ["run", "-A", "--frozen", path, ...args], {
      cwd: root,
      maxBuffer: 1 << 26,
    });
    return JSON.parse(stdout);
  } catch (error) {
    const { stderr, message } = error as { stderr?: string; message: string };
    throw new AirkernError(`Cannot measure with ${path} ${args.join(" ")}: ${stderr?.trim() || message}`);
  }
}

/** Runs the command line with --json among its arguments and returns the object it prints. */
export const airkern = (args: string[]): Promise<Json> => script("mod.ts", args);

/** Returns a share as people read it: `85.2%`. */
export const percent = (share: number): string => `${(100 * share).toFixed(1)}%`;

/** Returns bytes a second as people read them: `3.16 GiB/s`. */
export const rate = (bytesPerSecond: number): string => `${formatBytes(bytesPerSecond)}/s`;

/** Prints rows as a Markdown table. */
export function printRows(rows: Row[]): void {
  const cells = [
    ["what", "figure", "against", "share"],
    ...rows.map(({ what, figure, ceiling, share }) => [what, figure, ceiling ?? "", share ?? ""]),
  ];
  const widths = cells[0].map((_, column) => Math.max(...cells.map((row) => row[column].length)));
  const line = (row: string[]) => `| ${row.map((cell, column) => cell.padEnd(widths[column])).join(" | ")} |`;
  const [head, ...body] = cells.map(line);
  console.log([head, `| ${widths.map((width) => "-".repeat(width)).join(" | ")} |`, ...body, ""].join("\n"));
}
