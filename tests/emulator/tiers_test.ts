import assert from "node:assert/strict";
import { fileURLToPath } from "node:url";
import { hasNvcc, type Tier } from "./library.ts";

const KERNELS = fileURLToPath(new URL("./kernels_test.ts", import.meta.url));

interface Run {
  tier: Tier;
  settings?: string;
}

// threads=1 shows what depends on blocks running side by side; the random orders what depends on any order at all.
const RUNS: Run[] = [
  { tier: "plain", settings: "order=reverse,threads=1" },
  { tier: "plain", settings: "order=random,streams=random,seed=7" },
  { tier: "plain", settings: "streams=lazy,compute_capability=7.5" },
  { tier: "race" },
  { tier: "race", settings: "order=random,seed=3" },
  { tier: "sanitize" },
  { tier: "ptx" },
];

/** Returns the path of AddressSanitizer's runtime, which must be loaded before a program that is built without it. */
async function sanitizerLibrary(): Promise<string> {
  const { stdout } = await new Deno.Command(Deno.env.get("CXX") ?? "g++", { args: ["-print-file-name=libasan.so"] }).output();
  return new TextDecoder().decode(stdout).trim();
}

for (const { tier, settings = "" } of RUNS) {
  Deno.test({
    name: `the kernel tests pass on ${[tier, settings].filter(Boolean).join(" with ")}${
      tier === "ptx" && !hasNvcc ? ": skipped, nvcc is not installed" : ""
    }`,
    ignore: tier === "ptx" && !hasNvcc,
    fn: async () => {
      const env: Record<string, string> = { EMULATOR_TIER: tier, EMULATOR_SETTINGS: settings, NO_COLOR: "1" };
      if (tier === "sanitize") {
        Object.assign(env, { LD_PRELOAD: await sanitizerLibrary(), ASAN_OPTIONS: "detect_leaks=0:handle_segv=1" });
      }
      const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
        args: ["test", "-A", "--no-check", KERNELS],
        env,
      }).output();
      assert.equal(code, 0, new TextDecoder().decode(stdout) + new TextDecoder().decode(stderr));
    },
  });
}
