/**
 * Runs the native tests against the CUDA library as built to run on the CPU (tests/emulator), one run a build: plain with threads and
 * streams in random order, with every memory access of the kernels checked for races, and under AddressSanitizer and UBSan.
 *
 * `deno task test:emulated [TEST_PATH...]`
 * @module
 */
import { spawnSync } from "node:child_process";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("..", import.meta.url));

/** The sanitizers' runtimes must be loaded before Deno's own code. */
function sanitizerLibraries(): string {
  return ["libasan.so", "libubsan.so"].map((name) => {
    const { stdout, status } = spawnSync(Deno.env.get("CXX") ?? "g++", [`-print-file-name=${name}`], { encoding: "utf8" });
    const path = (stdout ?? "").trim();
    if (status === 0 && path.includes("/")) return path;
    console.error(`Cannot run the sanitized tests: the compiler has no ${name}; install its sanitizer runtimes`);
    Deno.exit(1);
  }).join(" ");
}

const RUNS: { name: string; folder: string; env: Record<string, string> }[] = [
  { name: "plain", folder: "build", env: { CUDA_EMU: "order=random,streams=random,seed=7" } },
  { name: "sm_75", folder: "build", env: { CUDA_EMU: "streams=lazy,compute_capability=7.5" } },
  { name: "race", folder: "build/race", env: {} },
  {
    name: "sanitize",
    folder: "build/sanitize",
    env: {
      LD_PRELOAD: sanitizerLibraries(),
      ASAN_OPTIONS: "detect_leaks=0:handle_segv=1:exitcode=99",
      UBSAN_OPTIONS: "print_stacktrace=1:halt_on_error=1",
      AIRKERN_TEST_OWN_MEMORY: "1",
    },
  },
];

const paths = Deno.args.length > 0 ? Deno.args : ["tests/kernels"];
for (const { name, folder, env } of RUNS) {
  console.log(`\nEmulated CUDA library, ${name}`);
  const { status } = spawnSync(Deno.execPath(), ["test", "-A", "--frozen", "--parallel", ...paths], {
    cwd: root,
    stdio: "inherit",
    env: {
      ...Deno.env.toObject(),
      AIRKERN_TEST_KIND: "cuda",
      AIRKERN_LIBRARY_PATH: `${root}${folder}/libairkern_emu.so`,
      AIRKERN_TEST_WORK: "0.5",
      ...env,
    },
  });
  if (status !== 0) Deno.exit(status ?? 1);
}
