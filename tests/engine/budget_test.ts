import assert from "node:assert/strict";
import { fileURLToPath } from "node:url";
import type { EngineStatistics } from "../../lib/engine/engine.ts";
import type { Plan } from "../../lib/memory/plan.ts";
import { syntheticModel } from "./synthetic_model.ts";

const MIB = 2 ** 20;

async function generate(path: string, ramBytes: number): Promise<{ plan: Plan; statistics: EngineStatistics }> {
  const child = fileURLToPath(new URL("budget_child.ts", import.meta.url));
  const { success, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", child, path, String(ramBytes)],
  }).output();
  assert.ok(success, new TextDecoder().decode(stderr));
  return JSON.parse(new TextDecoder().decode(stdout));
}

Deno.test("a process's peak resident set stays within ramBytes, for weights of 282 MiB under 224, 288 and 352 MiB", async () => {
  using model = await syntheticModel(48, true);
  let residentBytes = -1;
  for (const ramBytes of [224 * MIB, 288 * MIB, 352 * MIB]) {
    const { plan, statistics } = await generate(model.path, ramBytes);
    assert.ok(plan.totalBytes <= ramBytes);
    assert.ok(plan.residentBytes > residentBytes, "a larger budget keeps more");
    residentBytes = plan.residentBytes;
    assert.ok(plan.residentBytes + plan.streamedBytesPerPass > 280 * MIB);
    assert.ok(plan.streamedBytesPerPass > 0);
    assert.ok(
      statistics.peakRssBytes <= ramBytes,
      `${statistics.peakRssBytes / MIB} MiB resident at the peak, the budget is ${ramBytes / MIB} MiB`,
    );
  }
});
