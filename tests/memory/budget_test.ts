import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { baselineBytes, freeMemoryBytes, machineBytes, residentSet } from "../../lib/memory/budget.ts";

const MiB = 2 ** 20;

Deno.test("residentSet() follows memory that is taken and keeps the peak", async () => {
  // In a process of its own: tests that run beside this one take and free memory too.
  const program = `
    import { residentSet } from ${JSON.stringify(import.meta.resolve("../../lib/memory/budget.ts"))};
    const before = residentSet();
    const block = new Uint8Array(${64 * MiB}).fill(1);
    const during = residentSet();
    structuredClone(block.buffer, { transfer: [block.buffer] });
    console.log(JSON.stringify({ before, during, after: residentSet() }));`;
  const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), { args: ["eval", program] }).output();
  assert.equal(code, 0, new TextDecoder().decode(stderr));
  const { before, during, after } = JSON.parse(new TextDecoder().decode(stdout));
  assert.ok(during.currentBytes >= before.currentBytes + 60 * MiB, `${before.currentBytes} to ${during.currentBytes}`);
  assert.ok(during.peakBytes >= during.currentBytes - MiB && after.peakBytes >= during.peakBytes);
});

Deno.test("baselineBytes() is the resident set and some tens of MiB more", () => {
  const spare = baselineBytes() - residentSet().currentBytes;
  assert.ok(spare > 16 * MiB && spare < 128 * MiB, `${spare}`);
});

Deno.test("machineBytes() is more than the process takes and less than it and all free memory", () => {
  const bytes = machineBytes(), { currentBytes } = residentSet();
  assert.ok(bytes > currentBytes);
  assert.ok(bytes < currentBytes + freeMemoryBytes() + 64 * MiB);
});

/** Writes files and calls freeMemoryBytes() on them. */
function freeWith(files: Record<string, string>): number {
  const folder = mkdtempSync(join(tmpdir(), "airkern-budget-"));
  try {
    for (const [name, text] of Object.entries({ meminfo: "MemTotal:  9000000 kB\nMemAvailable:    1048576 kB\n", ...files })) {
      mkdirSync(dirname(join(folder, name)), { recursive: true });
      writeFileSync(join(folder, name), text);
    }
    return freeMemoryBytes({ meminfo: join(folder, "meminfo"), cgroup: join(folder, "cgroup"), cgroupRoot: join(folder, "fs") });
  } finally {
    rmSync(folder, { recursive: true });
  }
}

Deno.test("freeMemoryBytes() takes the machine's available memory where no group limits", () => {
  assert.equal(freeWith({}), 1024 * MiB);
  assert.equal(
    freeWith({ cgroup: "0::/user/app\n", "fs/user/app/memory.max": "max\n", "fs/user/app/memory.current": "5\n" }),
    1024 * MiB,
  );
});

Deno.test("freeMemoryBytes() takes the tightest control group, with its page cache as free", () => {
  const groups = {
    cgroup: "0::/user/app\n",
    "fs/user/app/memory.max": "max\n",
    "fs/user/app/memory.current": "1\n",
    "fs/user/memory.max": `${500 * MiB}\n`,
    "fs/user/memory.current": `${300 * MiB}\n`,
    "fs/user/memory.stat": `anon 1\ninactive_file ${100 * MiB}\nactive_file 7\n`,
  };
  assert.equal(freeWith(groups), 300 * MiB);
  assert.equal(
    freeWith({ ...groups, "fs/user/app/memory.max": `${40 * MiB}\n`, "fs/user/app/memory.current": `${50 * MiB}\n` }),
    0,
  );
});

Deno.test("freeMemoryBytes() reads version 1 groups and a container's root", () => {
  const v1 = {
    cgroup: "12:cpu:/x\n4:memory:/docker/abc\n",
    "fs/memory/memory.limit_in_bytes": `${256 * MiB}\n`,
    "fs/memory/memory.usage_in_bytes": `${56 * MiB}\n`,
    "fs/memory/memory.stat": `cache 9\ntotal_inactive_file ${6 * MiB}\n`,
  };
  assert.equal(freeWith(v1), 206 * MiB);
});
