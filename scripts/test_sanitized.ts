/**
 * Runs the native tests against build/sanitize/libairkern_cpu.so. The sanitizers' runtimes must be loaded before Deno's own code, hence
 * a child process with LD_PRELOAD.
 *
 * `deno task test:sanitize [TEST_PATH...]`
 */
import { spawnSync } from "node:child_process";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("..", import.meta.url));
const compiler = Deno.env.get("CXX") ?? "g++";

function runtimePath(name: string): string {
  const { stdout, status } = spawnSync(compiler, [`-print-file-name=${name}`], { encoding: "utf8" });
  const path = (stdout ?? "").trim();
  if (status !== 0 || !path.includes("/")) {
    console.error(`Cannot run the sanitized tests: ${compiler} has no ${name}; install its sanitizer runtimes`);
    Deno.exit(1);
  }
  return path;
}

const paths = Deno.args.length > 0 ? Deno.args : ["tests/kernels"];
const { status } = spawnSync(Deno.execPath(), ["test", "-A", "--frozen", ...paths], {
  cwd: root,
  stdio: "inherit",
  env: {
    ...Deno.env.toObject(),
    LD_PRELOAD: `${runtimePath("libasan.so")} ${runtimePath("libubsan.so")}`,
    // Deno itself keeps memory until it exits; leaks of ours are covered by the tests that count allocations.
    ASAN_OPTIONS: "detect_leaks=0:abort_on_error=0:exitcode=99",
    UBSAN_OPTIONS: "print_stacktrace=1:halt_on_error=1",
    // Every tensor in memory of its own, so that the sanitizer sees an access one element beyond it.
    AIRKERN_TEST_OWN_MEMORY: "1",
    AIRKERN_LIBRARY_PATH: `${root}build/sanitize`,
  },
});
Deno.exit(status ?? 1);
