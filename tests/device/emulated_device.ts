/**
 * The device that the tests of this folder open: the CUDA library as built to run on the CPU, with control over its faults and its memory.
 *
 * With AIRKERN_LIBRARY_PATH another build of the emulator is tested; with AIRKERN_TEST_KIND=cuda and no such path the machine's GPU, on which tests
 * that plant faults or count memory are skipped. The emulator's settings are the process's, so these files do not run in parallel.
 */
import assert from "node:assert/strict";
import { basename, dirname } from "node:path";
import { libraryPath } from "../../lib/ffi/library.ts";
import { ROOT } from "../shipped_model.ts";

if (!Deno.env.get("AIRKERN_LIBRARY_PATH") && Deno.env.get("AIRKERN_TEST_KIND") !== "cuda") {
  Deno.env.set("AIRKERN_LIBRARY_PATH", `${ROOT}build/libairkern_emu.so`);
}

/** Path of the CUDA library under test. A library that is not there is an error: no test shall pass for want of it. */
export const DEVICE_LIBRARY: string = libraryPath("cuda");

const RUNTIME = {
  emu_configure: { parameters: ["buffer"], result: "i32" },
  emu_reset: { parameters: [], result: "void" },
  emu_counts: { parameters: ["buffer"], result: "void" },
  emu_report: { parameters: ["buffer", "u64"], result: "u64" },
} as const;

/** What exists on the emulated devices. */
export interface DeviceCounts {
  deviceAllocations: number;
  deviceBytes: number;
  /** Since the emulator was configured. */
  devicePeakBytes: number;
  hostAllocations: number;
  hostBytes: number;
  streams: number;
  events: number;
  pendingOperations: number;
  /** Copies with host memory that is not page-locked. */
  unpinnedCopies: number;
}

const COUNTS: (keyof DeviceCounts)[] = [
  ...["deviceAllocations", "deviceBytes", "devicePeakBytes", "hostAllocations", "hostBytes"] as const,
  ...["streams", "events", "pendingOperations", "unpinnedCopies"] as const,
];

/** Controls the emulator; undefined where the library under test runs on a GPU. */
class Emulator {
  readonly #runtime: Deno.DynamicLibrary<typeof RUNTIME>;

  constructor(path: string) {
    this.#runtime = Deno.dlopen(path, RUNTIME);
  }

  /** Forgets all that was, and sets `settings` on top of CUDA_EMU. Nothing may be open. */
  configure(settings: string): void {
    this.#runtime.symbols.emu_reset();
    this.change(settings);
  }

  /** Changes settings while things are open. Counts for planted failures begin anew. */
  change(settings: string): void {
    const text = new TextEncoder().encode(`quiet=1,${settings}`.replace(/,$/, "") + "\0");
    assert.equal(this.#runtime.symbols.emu_configure(text), 0, settings);
  }

  get counts(): DeviceCounts {
    const out = new BigUint64Array(10);
    this.#runtime.symbols.emu_counts(out);
    return Object.fromEntries(COUNTS.map((name, i) => [name, Number(out[i])])) as unknown as DeviceCounts;
  }

  /** What the emulator found wrong. */
  get report(): string {
    const out = new Uint8Array(1 << 16);
    const length = Number(this.#runtime.symbols.emu_report(out, BigInt(out.length)));
    return new TextDecoder().decode(out.subarray(0, Math.min(length, out.length - 1)));
  }

  /** Checks that nothing is left of what was open, and that nothing was done wrong meanwhile. */
  assertClean(what: string): void {
    const { deviceAllocations, hostAllocations, streams, events, pendingOperations, unpinnedCopies } = this.counts;
    assert.deepEqual(
      { deviceAllocations, hostAllocations, streams, events, pendingOperations, unpinnedCopies },
      { deviceAllocations: 0, hostAllocations: 0, streams: 0, events: 0, pendingOperations: 0, unpinnedCopies: 0 },
      what,
    );
    assert.equal(this.report, "", what);
  }
}

/** The emulator; undefined on a GPU. */
export const emulator: Emulator | undefined = /^libairkern_(emu|ptx)\.so$/.test(basename(DEVICE_LIBRARY))
  ? new Emulator(`${dirname(DEVICE_LIBRARY)}/libcudart_emu.so`)
  : undefined;

/** Registers a test that needs the emulator, and on a GPU says why it is skipped. */
export function emulatedTest(name: string, run: (emulated: Emulator) => Promise<void> | void): void {
  Deno.test({
    name: emulator ? name : `${name} (skipped: needs the emulator)`,
    ignore: !emulator,
    fn: async () => {
      emulator!.configure("");
      await run(emulator!);
    },
  });
}
