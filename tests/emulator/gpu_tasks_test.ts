/** `deno task test:gpu` and `deno task bench:gpu` to their ends, with the emulated CUDA library in place of a GPU's. */
import assert from "node:assert/strict";
import { countTests } from "../../scripts/gpu/test_summary.ts";
import { run } from "../cli/airkern.ts";
import { withTemporaryDirectory } from "../temporary_directory.ts";
import { builtPath } from "./library.ts";

function environment(settings = ""): Record<string, string> {
  return { AIRKERN_LIBRARY_PATH: builtPath("plain", "libairkern_emu.so"), CUDA_EMU: settings, NO_COLOR: "1" };
}

Deno.test("test:gpu runs the tests on the device and closes with how many passed", async () => {
  const { code, stdout } = await run(["scripts/test_gpu.ts", "tests/kernels/add_test.ts"], { env: environment() });
  assert.equal(code, 0, stdout);
  assert.match(stdout, /^Testing on CUDA emulator \(sm_86\)\n/);
  assert.match(stdout, /\[cuda\] \.\.\. ok/);
  assert.match(stdout, /\n[1-9]\d* passed, 0 failed, 0 skipped\n$/);
});

Deno.test("test:gpu fails where a test on the device fails", async () => {
  const { code, stdout } = await run(["scripts/test_gpu.ts", "tests/kernels/add_test.ts"], { env: environment("fail_launch=1") });
  assert.equal(code, 1);
  assert.match(stdout, /\n\d+ passed, [1-9]\d* failed, 0 skipped\n$/);
});

Deno.test("test:gpu without a GPU says why it skips its tests, and how many files", async () => {
  const { code, stdout } = await run(["scripts/test_gpu.ts", "tests/kernels/add_test.ts"], { env: environment("driver=0") });
  assert.equal(code, 0);
  assert.match(stdout, /^Skipped 1 test files, which need a GPU: Cannot open device 0: this machine has no NVIDIA driver\n/);
  assert.match(stdout, /\n0 passed, 0 failed, 1 skipped\n$/);
});

Deno.test("bench:gpu measures kernels, copies and whole models, every figure against a ceiling of the same run", async () => {
  await withTemporaryDirectory(async (models) => {
    const { code, stdout, stderr } = await run(["scripts/bench_gpu.ts", "--shapes", "tiny", "--models", models, "--json"], {
      env: environment(),
    });
    assert.equal(code, 0, stderr);
    const { device, rows } = JSON.parse(stdout) as { device: { name: string }; rows: Record<string, string>[] };
    assert.equal(device.name, "CUDA emulator");
    const ceilings: [RegExp, RegExp, RegExp][] = [
      [/^GEMV q4o/, /B\/s$/, /device-to-device copy$/],
      [/^GEMV nf4/, /B\/s$/, /device-to-device copy$/],
      [/^matmul bf16/, /TFLOP\/s$/, /tensor-core peak$/],
      [/^matmul q4o/, /TFLOP\/s$/, /dense bf16 product$/],
      [/^matmul nf4/, /TFLOP\/s$/, /dense bf16 product$/],
      [/^host to device/, /B\/s$/, /bare page-locked copy$/],
      [/resident: decode$/, /tokens\/s, .* of weights$/, /device-to-device copy$/],
      [/within 1536KiB: weights over the bus$/, /^[1-9].*B\/s$/, /bare page-locked copies$/],
      [/within 1536KiB: device memory reserved$/, /MiB$/, /^1\.50 MiB$/],
    ];
    for (const [what, figure, ceiling] of ceilings) {
      const row = rows.find((row) => what.test(row.what));
      assert.ok(row, `${what} among ${rows.map(({ what }) => what).join(", ")}`);
      assert.match(row.figure, figure);
      assert.match(row.ceiling, ceiling);
      assert.match(row.share, /^\d+\.\d%$/);
    }
    const pass = rows.find(({ what }) => /one pass$/.test(what))!;
    assert.match(pass.figure, /^\d+\.\d\d s$/);
    assert.match(pass.ceiling, /^[1-9][\d.]+ [KM]iB to the device/);
  });
});

Deno.test("bench:gpu without a GPU says why it measures nothing", async () => {
  const { code, stdout } = await run(["scripts/bench_gpu.ts"], { env: environment("driver=0") });
  assert.equal(code, 0);
  assert.match(stdout, /^Measured nothing, since a GPU is needed: Cannot open device 0: this machine has no NVIDIA driver\n$/);
});

Deno.test("countTests() sums the summaries of several runs, colours or not", () => {
  const text =
    "ok | 12 passed (3 steps) | 0 failed | 1 ignored (2s)\n\x1b[31mFAILED\x1b[0m | 1 passed | 2 failed (1s)\nok | not a summary";
  assert.deepEqual(countTests(text), { passed: 13, failed: 2, skipped: 1 });
});
