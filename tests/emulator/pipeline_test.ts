import assert from "node:assert/strict";
import { builtPath } from "./library.ts";

/** Runs fixtures/pipeline.cu with one wait left out; returns the number of wrong layers. */
async function wrongLayers(streams: string, fault = ""): Promise<number> {
  const { code, stdout, stderr } = await new Deno.Command(builtPath("plain", "emulator/pipeline"), {
    args: [fault],
    env: { CUDA_EMU: `streams=${streams}` },
  }).output();
  const said = new TextDecoder().decode(stdout);
  assert.equal(code, 0, said + new TextDecoder().decode(stderr));
  return parseInt(said.match(/^(\d+) wrong$/m)![1]);
}

const MODES = ["lazy", "random,seed=1", "random,seed=2", "random,seed=3"];

for (const wait of ["compute_waits_for_copy", "copy_waits_for_compute", "refill_waits_for_copy", "result_waits_for_compute"]) {
  for (const mode of MODES) {
    Deno.test(`a prefetch loop without ${wait} comes out wrong, streams=${mode}`, async () => {
      assert.ok(await wrongLayers(mode, wait) > 0);
    });
  }
}

for (const mode of ["eager", ...MODES]) {
  Deno.test(`a prefetch loop with all its waits comes out right, streams=${mode}`, async () => {
    assert.equal(await wrongLayers(mode), 0);
  });
}
