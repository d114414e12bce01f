/**
 * Runs the emulator's own tests and those of the engine on it, then the native tests against the CUDA library as built to run on the CPU
 * (tests/emulator), one run a build: plain with threads and streams in random order, with every memory access of the kernels checked for
 * races, under AddressSanitizer and UBSan, and as nvcc's PTX.
 *
 * `deno task test:emulated [--quick] [TEST_PATH...]`; --quick leaves out of the slow builds what takes them minutes, for continuous
 * integration.
 * @module
 */
import { spawnSync } from "node:child_process";
import { existsSync, readdirSync } from "node:fs";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("..", import.meta.url));

/** The sanitizers' runtimes must be loaded before Deno's own code. */
function sanitizerLibraries(): string {
  return ["libasan.so", "libubsan.so"].map((name) => {
    const [compiler, ...before] = (Deno.env.get("CXX") ?? "g++").split(" ");
    const { stdout, status } = spawnSync(compiler, [...before, `-print-file-name=${name}`], { encoding: "utf8" });
    const path = (stdout ?? "").trim();
    if (status === 0 && path.includes("/")) return path;
    console.error(`Cannot run the sanitized tests: the compiler has no ${name}; install its sanitizer runtimes`);
    Deno.exit(1);
  }).join(" ");
}

interface Run {
  name: string;
  library: string;
  env: Record<string, string>;
  /** Many times as slow as the plain build, or its twin in another setting. */
  slow?: boolean;
}

const RUNS: Run[] = [
  { name: "plain", library: "build/libairkern_emu.so", env: { CUDA_EMU: "order=random,streams=random,seed=7" } },
  { name: "sm_75", library: "build/libairkern_emu.so", env: { CUDA_EMU: "streams=lazy,compute_capability=7.5" }, slow: true },
  { name: "race", library: "build/race/libairkern_emu.so", env: {}, slow: true },
  {
    name: "sanitize",
    library: "build/sanitize/libairkern_emu.so",
    env: {
      LD_PRELOAD: sanitizerLibraries(),
      ASAN_OPTIONS: "detect_leaks=0:handle_segv=1:exitcode=99",
      UBSAN_OPTIONS: "print_stacktrace=1:halt_on_error=1",
      AIRKERN_TEST_OWN_MEMORY: "1",
    },
    slow: true,
  },
  // Every register of a translated kernel is a variable: more of them than a CUDA thread's stack holds otherwise.
  { name: "PTX", library: "build/libairkern_ptx.so", env: { CUDA_EMU: "stack=1MiB" }, slow: true },
];

/** Files whose many shapes take the slow builds minutes, and that say nothing about kernels which the others do not run too. */
const LONG_FILES = ["matmul_test.ts", "packed_formats_test.ts", "quantize_test.ts", "gated_test.ts"];

/** What families compute, against transformers. */
const FAMILIES = ["tests/models/parity_test.ts", "tests/models/moe_parity_test.ts"];

const quick = Deno.args.includes("--quick");
const named = Deno.args.filter((argument) => argument !== "--quick");

function pathsOf({ slow }: Run): string[] {
  if (named.length > 0) return named;
  if (!quick || !slow) return ["tests/kernels"];
  return readdirSync(`${root}tests/kernels`).filter((name) => name.endsWith("_test.ts") && !LONG_FILES.includes(name))
    .map((name) => `tests/kernels/${name}`);
}

/** Builds the library as PTX, which takes minutes; returns why it is not tested. */
function buildPtx(library: string): string | undefined {
  if (quick) return "it takes minutes to build";
  const { status } = spawnSync("make", ["-s", "emulator-ptx-library"], { cwd: root, stdio: "inherit" });
  if (status !== 0) Deno.exit(1);
  return existsSync(root + library) ? undefined : "nvcc is not installed";
}

/** Runs tests that choose their libraries themselves. */
function testAsIs(args: string[]): void {
  const { status } = spawnSync(Deno.execPath(), ["test", "-A", "--frozen", ...args], { cwd: root, stdio: "inherit" });
  if (status !== 0) Deno.exit(status ?? 1);
}

if (named.length === 0) {
  testAsIs(["--parallel", "tests/emulator"]);
  // Continuous integration has run them as part of `deno task test`.
  if (!quick) testAsIs(["tests/device"]);
}

for (const run of RUNS) {
  const skipped = run.name === "PTX" ? buildPtx(run.library) : undefined;
  if (skipped) {
    console.log(`\nEmulated CUDA library, PTX: skipped, ${skipped}`);
    continue;
  }
  console.log(`\nEmulated CUDA library, ${run.name}`);
  test(run, ["--parallel", ...pathsOf(run)], run.env);
  // Every family whole, which takes minutes; a part of it is in tests/device.
  if (run.name === "plain" && !quick && named.length === 0) test(run, ["--parallel", ...FAMILIES], run.env);
  // The engine on the device: the plain build's run is part of `deno task test`. Its tests set the emulator's settings themselves.
  if (run.name === "race" && !quick && named.length === 0) {
    test(run, ["tests/device/engine_test.ts", "tests/device/prefetcher_test.ts"], {});
  }
}

function test(run: Run, args: string[], env: Record<string, string>): void {
  const { status } = spawnSync(Deno.execPath(), ["test", "-A", "--frozen", ...args], {
    cwd: root,
    stdio: "inherit",
    env: {
      ...Deno.env.toObject(),
      AIRKERN_TEST_KIND: "cuda",
      AIRKERN_LIBRARY_PATH: root + run.library,
      AIRKERN_TEST_WORK: "0.5",
      ...env,
    },
  });
  if (status !== 0) Deno.exit(status ?? 1);
}
