import assert from "node:assert/strict";
import { advice, type Findings } from "../../lib/cli/doctor/advice.ts";
import type { LibraryReport } from "../../lib/cli/doctor/libraries.ts";
import { parseMemoryLock } from "../../lib/cli/doctor/machine.ts";
import { ROOT, SHIPPED_MODEL } from "../shipped_model.ts";
import { withTemporaryDirectory } from "../temporary_directory.ts";
import { airkern } from "./airkern.ts";

const GiB = 2 ** 30;

Deno.test("doctor says what was found: the library with its ABI version, processor, memory, limits and the model's disk", async () => {
  const { code, stdout, stderr } = await airkern(["doctor", SHIPPED_MODEL]);
  assert.deepEqual([code, stderr], [0, ""]);
  assert.match(
    stdout,
    /^ {2}cpu library +build: .*\/build\/libairkern_cpu\.so, ABI version \d+\n {3,}package: none was released for /,
  );
  assert.match(stdout, /^ {2}processor +.+, \d+ cores?, best instruction set (portable|avx2|avx512|amx)$/m);
  assert.match(stdout, /^ {2}cuda library +build: .*\/build\/libairkern\.so/m);
  assert.match(stdout, /^ {2}NVIDIA driver +\S/m);
  assert.match(stdout, /^ {2}memory +[\d.]+ GiB of [\d.]+ GiB free/m);
  assert.match(stdout, /^ {2}huge pages +(always|madvise|never|unknown)$/m);
  assert.match(stdout, /^ {2}locked memory +(no limit|unknown limit|[\d.]+ \w+ at most)$/m);
  assert.match(stdout, /^ {2}disk +[\d.]+ \w+ of [\d.]+ \w+ free at .*kjv-5m$/m);
  assert.match(stdout, /^ {2}direct reads +(work|are refused), tried on .*kjv-5m\/model\.safetensors$/m);
});

Deno.test("doctor --json gives the same as one object", async () => {
  const { code, stdout } = await airkern(["doctor", SHIPPED_MODEL, "--json"]);
  assert.equal(code, 0);
  const { machine, cpu, cuda, advice } = JSON.parse(stdout);
  assert.equal(cpu.used, `${ROOT}build/libairkern_cpu.so`);
  assert.equal(cpu.devices[0].threads, navigator.hardwareConcurrency);
  assert.ok(machine.memory.freeBytes > 0 && machine.memory.totalBytes >= machine.memory.freeBytes);
  assert.ok(machine.disk.totalBytes > machine.disk.freeBytes && machine.disk.path === SHIPPED_MODEL);
  assert.equal(cuda.places[0].path, `${ROOT}build/libairkern.so`);
  assert.ok(Array.isArray(advice));
});

Deno.test("doctor fails where the CPU library is not there, and says how to get it", async () => {
  await withTemporaryDirectory(async (directory) => {
    const { code, stdout } = await airkern(["doctor", directory], { env: { AIRKERN_LIBRARY_PATH: directory } });
    assert.equal(code, 1);
    assert.match(stdout, new RegExp(`cpu library +AIRKERN_LIBRARY_PATH: ${directory}/libairkern_cpu.so is not there\n`));
    assert.match(
      stdout,
      /\nWhat to do\n {2}- Nothing runs without the CPU library: Cannot load the cpu library: .* is not there; build it with `make` or set AIRKERN_LIBRARY_PATH\n/,
    );
    assert.match(stdout, /direct reads +not tried/);
    Deno.writeTextFileSync(`${directory}/libairkern_cpu.so`, "not a library");
    const broken = await airkern(["doctor", "--json"], { env: { AIRKERN_LIBRARY_PATH: directory } });
    assert.equal(broken.code, 1);
    assert.match(JSON.parse(broken.stdout).cpu.places[0].problem, /^Cannot load the cpu library .*libairkern_cpu\.so: /);
  });
});

Deno.test("doctor refuses a path that is no directory", async () => {
  const { code, stderr } = await airkern(["doctor", "/no/such/model"]);
  assert.deepEqual([code, stderr], [1, "airkern: Cannot look at /no/such/model: no such directory\n"]);
});

function library(kind: "cpu" | "cuda", values: Partial<LibraryReport> = {}): LibraryReport {
  return { kind, places: [], devices: [], used: `/build/${kind}.so`, ...values };
}

const device = {
  device: 0,
  kind: "cpu",
  name: "",
  isa: "avx2",
  threads: 1,
  unifiedMemory: true,
  freeBytes: 1,
  totalBytes: 1,
} as const;

/** A machine without a GPU that lacks nothing. */
function findings(): Findings {
  return {
    machine: {
      memory: { totalBytes: 8 * GiB, freeBytes: 4 * GiB },
      hugePages: "madvise",
      memoryLock: 2 ** 20,
      disk: { path: "/data", freeBytes: 100 * GiB, totalBytes: 200 * GiB, directIo: true },
      nvidia: { pciDevices: 0 },
    },
    cpu: library("cpu", { devices: [device] }),
    cuda: library("cuda", { used: undefined, problem: "Cannot load the cuda library: it is not there" }),
  };
}

Deno.test("advice() has nothing to say about a machine that lacks nothing, and no GPU is no lack", () => {
  assert.deepEqual(advice(findings()), []);
});

const CASES: [string, (f: Findings) => void, RegExp][] = [
  ["a GPU without a driver", (f) => f.machine.nvidia.pciDevices = 1, /^Install NVIDIA's driver for CUDA 13/],
  [
    "a driver without the library",
    (f) => f.machine.nvidia.driver = "580.1",
    /CUDA library .*it is not there; build it with `make cuda` or set AIRKERN_LIBRARY_PATH$/,
  ],
  ["a driver that is too old", (f) => {
    f.machine.nvidia.cuda = "12.4";
    f.cuda = library("cuda", { problem: "Cannot open device 0: its driver is for CUDA 12.4, required is 13.0 or later" });
  }, /required is 13\.0 or later$/],
  ["a CUDA library that cannot be loaded", (f) => {
    f.cuda = library("cuda", {
      used: undefined,
      problem: "Cannot load it: damaged",
      places: [{ from: "build", problem: "damaged" }],
    });
  }, /^Cannot load it: damaged$/],
  [
    "a second GPU that cannot be opened",
    (f) => f.cuda = library("cuda", { devices: [device], problem: "Cannot open 1" }),
    /open 1$/,
  ],
  ["a limit of locked memory beside a GPU", (f) => f.cuda = library("cuda", { devices: [device] }), /ulimit -l/],
  ["no huge pages", (f) => f.machine.hugePages = "never", /transparent_hugepage/],
  ["refused direct reads", (f) => f.machine.disk.directIo = false, /\/data refuses direct reads/],
  ["a disk that cannot be read", (f) => f.machine.disk.problem = "Cannot read /data/x", /^Cannot read \/data\/x$/],
  ["a full disk", (f) => f.machine.disk.freeBytes = 1, /^Only 1 B are free on the disk of \/data/],
  ["little memory", (f) => f.machine.memory.freeBytes = GiB / 2, /^Only 512 MiB of memory are free/],
  ["a processor without AVX2", (f) => f.cpu.devices[0] = { ...device, isa: "portable" }, /AVX2/],
];

for (const [what, change, expected] of CASES) {
  Deno.test(`advice() says one thing about ${what}`, () => {
    const changed = findings();
    change(changed);
    const said = advice(changed);
    // A locked-memory limit stands beside every GPU.
    const others = said.filter((line) => !line.includes("ulimit") || what.includes("locked"));
    assert.equal(others.length, 1, said.join("\n"));
    assert.match(others[0], expected);
  });
}

Deno.test("parseMemoryLock() reads the soft limit", () => {
  const line = (soft: string) =>
    `Limit  Soft Limit  Hard Limit  Units\nMax locked memory         ${soft}              unlimited            bytes     \n`;
  assert.equal(parseMemoryLock(line("8388608")), 8388608);
  assert.equal(parseMemoryLock(line("unlimited")), "unlimited");
  assert.equal(parseMemoryLock(undefined), undefined);
});
