/** `doctor` as a user types it, with the CUDA library on the emulator. */
import assert from "node:assert/strict";
import { airkern } from "../cli/airkern.ts";
import { builtPath } from "./library.ts";

function environment(settings: string): Record<string, string> {
  return { AIRKERN_LIBRARY_PATH: builtPath("plain", "libairkern_emu.so"), CUDA_EMU: settings };
}

Deno.test("doctor lists every device of the CUDA library with compute capability and memory", async () => {
  const { code, stdout } = await airkern(["doctor"], { env: environment("devices=2,vram=64MiB,compute_capability=9.0") });
  assert.equal(code, 0);
  assert.match(stdout, /^ {2}cuda library +AIRKERN_LIBRARY_PATH: .*libairkern_emu\.so, ABI version \d+$/m);
  assert.match(stdout, /^ {2}NVIDIA driver +.*for CUDA 13\.0$/m);
  for (const device of [0, 1]) {
    assert.match(
      stdout,
      new RegExp(
        `^ {2}cuda:${device} +CUDA emulator, compute capability 9\\.0, \\d+ multiprocessors, 64\\.0 MiB of 64\\.0 MiB free$`,
        "m",
      ),
    );
  }
  assert.match(stdout, /^ {2}cpu library +build: .*, ABI version/m);
});

Deno.test("doctor --json tells a GPU that cannot be opened from none at all", async () => {
  const old = await airkern(["doctor", "--json"], { env: environment("fail_host_alloc=1") });
  assert.equal(old.code, 0);
  assert.match(JSON.parse(old.stdout).cuda.problem, /^Cannot open device 0: cudaErrorMemoryAllocation/);
  const none = JSON.parse((await airkern(["doctor", "--json"], { env: environment("driver=0") })).stdout);
  assert.match(none.cuda.problem, /this machine has no NVIDIA driver$/);
  assert.deepEqual(none.cuda.devices, []);
});
