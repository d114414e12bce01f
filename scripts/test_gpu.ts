/**
 * Runs the native tests and the end-to-end tests of a device against libairkern.so on this machine's GPU. Without one it says why it skips
 * them. Closes with one line: N passed, N failed, N skipped.
 *
 * `deno task test:gpu [TEST_PATH...]`
 * @module
 */
import { spawn } from "node:child_process";
import { readdirSync, statSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { findGpu } from "./gpu/find_gpu.ts";
import { closingLine, countTests, type TestCounts } from "./gpu/test_summary.ts";

const root = fileURLToPath(new URL("..", import.meta.url));
const paths = Deno.args.length > 0 ? Deno.args : [
  ...["tests/kernels", "tests/device", "tests/models/parity_test.ts", "tests/models/moe_parity_test.ts"],
];

/** Returns the test files at a path. */
function testFiles(path: string): string[] {
  if (!statSync(join(root, path)).isDirectory()) return [path];
  return readdirSync(join(root, path), { recursive: true, encoding: "utf8" }).filter((name) => name.endsWith("_test.ts"));
}

/** Runs the tests and shows what they print. */
async function runTests(library: string): Promise<TestCounts & { status: number }> {
  const child = spawn(Deno.execPath(), ["test", "-A", "--frozen", ...paths], {
    cwd: root,
    stdio: ["ignore", "pipe", "inherit"],
    env: { ...Deno.env.toObject(), AIRKERN_TEST_KIND: "cuda", AIRKERN_LIBRARY_PATH: library },
  });
  let output = "";
  child.stdout.on("data", (bytes: Uint8Array) => {
    output += new TextDecoder().decode(bytes);
    Deno.stdout.writeSync(bytes);
  });
  const status = await new Promise<number>((resolve) => child.on("close", (code) => resolve(code ?? 1)));
  const counts = countTests(output);
  // A run that ended without a failing test, by a crash of the device's driver for one, has failed all the same.
  return { ...counts, failed: status !== 0 ? Math.max(1, counts.failed) : counts.failed, status };
}

const gpu = await findGpu();
if ("problem" in gpu) {
  const skipped = paths.flatMap(testFiles).length;
  console.log(`Skipped ${skipped} test files, which need a GPU: ${gpu.problem}`);
  console.log(closingLine({ passed: 0, failed: 0, skipped }));
} else {
  console.log(`Testing on ${gpu.device.name} (${gpu.device.isa})`);
  const { status, ...counts } = await runTests(gpu.library);
  console.log(`\n${closingLine(counts)}`);
  if (status !== 0) Deno.exit(1);
}
