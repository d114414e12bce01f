/**
 * Checks that a native library exports every function of cuda/airkern.h and nothing else.
 *
 * `deno run -A scripts/check/exports.ts LIBRARY...`
 */
import { spawnSync } from "node:child_process";
import { SYMBOLS } from "../../lib/ffi/abi.ts";

let failed = false;
for (const path of Deno.args) {
  const { status, stdout, stderr } = spawnSync("nm", ["-D", "--defined-only", path], { encoding: "utf8" });
  if (status !== 0) {
    console.error(`Cannot list the symbols of ${path}: ${stderr.trim()}`);
    Deno.exit(1);
  }
  const exported = new Set(stdout.split("\n").map((line) => line.split(" ").at(-1) ?? "").filter(Boolean));
  for (const name of Object.keys(SYMBOLS)) {
    if (exported.has(name)) continue;
    console.error(`${path} lacks ${name}, which cuda/airkern.h declares`);
    failed = true;
  }
  for (const name of exported) {
    if (name in SYMBOLS) continue;
    console.error(`${path} exports ${name}, which cuda/airkern.h does not declare`);
    failed = true;
  }
}
if (failed) Deno.exit(1);
