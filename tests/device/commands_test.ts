import assert from "node:assert/strict";
import { airkern } from "../cli/airkern.ts";
import { quantizeShippedModel } from "../shipped_model.ts";
import { withTemporaryDirectory } from "../temporary_directory.ts";
import { DEVICE_LIBRARY, emulatedTest } from "./emulated_device.ts";

const MiB = 2 ** 20;

function environment(settings: string): Record<string, string> {
  return { AIRKERN_LIBRARY_PATH: DEVICE_LIBRARY, CUDA_EMU: `quiet=1,${settings}` };
}

emulatedTest("run on a device prints the CPU's text, and keeps within --vram and --ram", async () => {
  await withTemporaryDirectory(async (directory) => {
    const path = await quantizeShippedModel(`${directory}/none`, "none");
    const args = ["run", path, "In the beginning", "--max-tokens", "3", "--json"];
    const cpu = JSON.parse((await airkern([...args, "--device", "cpu"])).stdout);
    assert.equal(cpu.peakVramBytes, 0);
    for (const extra of [[], ["--kv-location", "ram"]]) {
      const { code, stdout, stderr } = await airkern(
        [...args, "--device", "cuda", "--vram", "8MiB", "--ram", "224MiB", ...extra],
        { env: environment("vram=64MiB,streams=random,seed=2") },
      );
      assert.deepEqual([code, stderr], [0, ""]);
      const { text, peakVramBytes, peakRssBytes, plan } = JSON.parse(stdout);
      assert.equal(text, cpu.text);
      assert.ok(peakVramBytes <= 8 * MiB && peakVramBytes >= plan.vramBytes && plan.vramBytes > 7.5 * MiB, `${peakVramBytes}`);
      assert.ok(plan.pinnedBytes + plan.streamedBytesPerPass > 0 && plan.residentBytes > 0 && plan.deviceSlotBytes > 0);
      // What the emulator has for device memory is memory of this process.
      assert.ok(peakRssBytes <= (224 + 8) * MiB, `${peakRssBytes / MiB} MiB`);
    }
  });
});

emulatedTest("plan on a device prints three tiers, both memories, and the bus; --stats the peak of device memory", async () => {
  await withTemporaryDirectory(async (directory) => {
    const path = await quantizeShippedModel(`${directory}/none`, "none");
    const env = environment("vram=16MiB");
    const { code, stdout } = await airkern(
      ["plan", path, "--device", "cuda", "--vram", "6MiB", "--ram", "2GiB", "--context", "64"],
      { env },
    );
    assert.equal(code, 0);
    for (
      const line of [
        /^ {2}weights in device memory +[\d.]+ [KM]iB +\d+\.\d%$/m,
        /^ {2}weights in host memory, copied a pass +\d\.\d\d MiB +\d+\.\d%$/m,
        /^ {2}weights on disk, read and copied a pass +0 B +0\.0%$/m,
        /^ {2}device: slots +2\.00 MiB$/m,
        /^ {2}device: KV cache +256 KiB +64 tokens a sequence$/m,
        /^ {2}all device memory +[56]\.\d\d MiB$/m,
        /^ {2}all host memory +\d+ MiB$/m,
        /^disk reads .*\/s, copies to the device .*\/s, memory reads .*\/s$/m,
        /^predicted .* a token$/m,
      ]
    ) assert.match(stdout, line);
    const json = JSON.parse(
      (await airkern(["plan", path, "--device", "cuda", "--vram", "6MiB", "--context", "64", "--json"], { env })).stdout,
    );
    assert.ok(json.busBytesPerSecond > 0 && json.flopsPerToken > 1e6 && json.predictedSecondsPerToken > 0);
    assert.ok(json.device.totalBytes <= 6 * MiB && json.deviceSlotBytes > 0 && json.pinnedBytes > 0);
    const stats = await airkern(["run", path, "And", "--max-tokens", "1", "--device", "cuda", "--vram", "6MiB", "--stats"], {
      env,
    });
    assert.match(stats.stderr, /^ {2}peak device memory +[56]\.\d\d MiB +CUDA emulator$/m);
  });
});

emulatedTest("--device auto says once on stderr that it took the CPU; --vram is refused there by name", async () => {
  await withTemporaryDirectory(async (directory) => {
    const path = await quantizeShippedModel(`${directory}/q4o`, "q4o");
    const env = environment("driver=0");
    const { code, stderr } = await airkern(["run", path, "And", "--max-tokens", "2", "--device", "auto"], { env });
    assert.deepEqual([code, stderr], [
      0,
      "airkern: Computing on the CPU: Cannot open device 0: this machine has no NVIDIA driver\n",
    ]);
    const refused = await airkern(["run", path, "And", "--device", "cpu", "--vram", "1GiB"], { env });
    assert.equal(refused.code, 1);
    assert.match(refused.stderr, /^airkern: Cannot use a budget of 1073741824 bytes of device memory: [^\n]+\n$/);
  });
});
