import assert from "node:assert/strict";
import { builtPath, hasNvcc, type Tier } from "./library.ts";

interface Expectation {
  /** Error of the launch, where it is refused; else the fault is found when the kernel runs. */
  launch?: string;
  /** What the report or, in the sanitized build, AddressSanitizer or UBSan says. */
  says: RegExp;
  tiers: Tier[];
}

const ANY_LINE = String.raw`.*\(launched at tests/emulator/fixtures/faults\.cu:\d+\)`;
const PTX: Tier[] = hasNvcc ? ["ptx"] : [];
const inKernel = (text: string): RegExp => new RegExp(text + ANY_LINE);

/** Each planted fault of fixtures/faults.cu, and the builds that must find it. */
const FAULTS: Record<string, Expectation> = {
  write_after_read: {
    says: inKernel("write_after_read<true>: race: .* of static shared memory after a .* block 0,0,0 thread "),
    tiers: ["race"],
  },
  read_after_write: { says: inKernel("race: .* of static shared memory"), tiers: ["race"] },
  warp_exchange: { says: inKernel("race: read of 4 bytes of static shared memory after a write by thread"), tiers: ["race"] },
  sum_of_blocks: { says: inKernel("race: .* of device allocation 2"), tiers: ["race"] },
  dynamic_shared_overrun: {
    says: /0 bytes past the end of 256 bytes of dynamic shared|0 past the end of dynamic shared|AddressSanitizer/,
    tiers: ["plain", "race", "sanitize"],
  },
  odd_dynamic_shared_overrun: {
    says: /wrote 0 bytes past the end of its 252 bytes|0 past the end of dynamic shared|AddressSanitizer/,
    tiers: ["plain", "race", "sanitize"],
  },
  static_shared_overrun: {
    says: /index 64 out of bounds|AddressSanitizer|0 bytes past the end of 256 bytes/,
    tiers: ["sanitize", ...PTX],
  },
  global_overrun: {
    says: /0 bytes past the end of allocation 1 \(4096 bytes\)|AddressSanitizer/,
    tiers: ["plain", "race", "sanitize"],
  },
  odd_global_overrun: {
    says: /past the end of allocation 3 \(3996 bytes\)|AddressSanitizer/,
    tiers: ["plain", "race", "sanitize"],
  },
  use_after_free: { says: inKernel("copy: an argument points to freed allocation 1"), tiers: ["plain", "race", "sanitize"] },
  host_pointer: { says: inKernel("copy: an argument points to host memory"), tiers: ["plain"] },
  host_pointer_in_copy: {
    launch: "cudaErrorInvalidValue",
    says: /the target should be 256 bytes of device memory, but is host memory/,
    tiers: ["plain"],
  },
  copy_beyond_end: {
    launch: "cudaErrorInvalidValue",
    says: /the target should be 4000 bytes of device memory/,
    tiers: ["plain"],
  },
  double_free: { launch: "cudaErrorInvalidValue", says: /cudaFree of freed allocation 3/, tiers: ["plain"] },
  misaligned: { says: /misaligned/, tiers: ["sanitize", ...PTX] },
  stack_overflow: { says: /stack overflow|stack-overflow/, tiers: ["plain", "sanitize"] },
  too_many_threads: {
    launch: "cudaErrorInvalidConfiguration",
    says: inKernel("its blocks have 1025 x 1 x 1 threads"),
    tiers: ["plain"],
  },
  empty_grid: { launch: "cudaErrorInvalidConfiguration", says: inKernel("its grid is 1 x 0 x 1"), tiers: ["plain"] },
  too_much_shared: {
    launch: "cudaErrorInvalidValue",
    says: inKernel("needs 60000 bytes of dynamic shared memory"),
    tiers: ["plain"],
  },
  static_and_dynamic_shared: {
    launch: "cudaErrorInvalidValue",
    says: inKernel("beside 256 static ones, 48896 are allowed"),
    tiers: ["plain"],
  },
  divergent_barrier: { says: inKernel("divergent __syncthreads: .* block 0,0,0 thread 32,0,0"), tiers: ["plain", "race"] },
  missing_lane: {
    says: inKernel("missing_lane<true>: warp operation at .*faults.cu:\\d+ names lanes ffff0000"),
    tiers: ["plain", "sanitize"],
  },
  deadlock: {
    says: inKernel("deadlock, block 0,0,0: thread 0,0,0 waits at a warp operation .*; thread 16,0,0 waits at __syncthreads"),
    tiers: ["plain"],
  },
};

/** Runs one case; returns the names of its errors, whether its result was right, and what was said on the way. */
async function run(tier: Tier, name: string, version: string): Promise<{ errors: string[]; right: boolean; said: string }> {
  const { stdout, stderr } = await new Deno.Command(builtPath(tier, "emulator/faults"), { args: [name, version] }).output();
  const line = new TextDecoder().decode(stdout).trim();
  const words = line.split(" ");
  return { errors: words.slice(0, 2), right: words[2] === "right", said: new TextDecoder().decode(stderr) };
}

for (const [name, expected] of Object.entries(FAULTS)) {
  Deno.test(`the emulator finds ${name} (${expected.tiers.join(", ")}) and passes its repaired version`, async () => {
    for (const tier of expected.tiers) {
      const broken = await run(tier, name, "broken");
      assert.match(broken.said, expected.says, tier);
      if (expected.launch) assert.equal(broken.errors[0], expected.launch);
      else if (tier !== "sanitize") {
        assert.notEqual(broken.errors[1], "cudaSuccess", `${tier}: the launch should end in an error`);
      }
      const repaired = await run(tier, name, "repaired");
      assert.deepEqual(repaired, { errors: ["cudaSuccess", "cudaSuccess"], right: true, said: "" }, tier);
    }
  });
}

Deno.test("a missing barrier gives a wrong result without the race checker too, since shared memory starts as NaN", async () => {
  assert.equal((await run("plain", "read_after_write", "broken")).right, false);
});
