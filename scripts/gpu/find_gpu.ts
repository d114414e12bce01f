/**
 * Says whether this machine's GPU can be used, and builds the CUDA library for it where one has to be built.
 * @module
 */
import { spawnSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { inspectLibrary } from "../../lib/cli/doctor/libraries.ts";
import type { FoundDevice } from "../../lib/cli/doctor/libraries.ts";
import { cudaDriverVersion } from "../../lib/ffi/nvidia_driver.ts";

/** The device that the CUDA library opens and the library's path, or why there is none. */
export type Gpu = { device: FoundDevice; library: string } | { problem: string };

/** Looks for a GPU. A library named by AIRKERN_LIBRARY_PATH is taken as it is; else build/libairkern.so is brought up to date. */
export async function findGpu(): Promise<Gpu> {
  if (!Deno.env.get("AIRKERN_LIBRARY_PATH")) {
    // Before anything is compiled, which takes minutes.
    if (cudaDriverVersion() === undefined) return { problem: "this machine has no NVIDIA driver" };
    const root = fileURLToPath(new URL("../..", import.meta.url));
    const { status } = spawnSync("make", ["-s", "cuda"], { cwd: root, stdio: "inherit" });
    if (status !== 0) return { problem: "the CUDA library cannot be built: make cuda failed" };
  }
  const { devices, used, problem } = await inspectLibrary("cuda");
  return devices.length > 0 ? { device: devices[0], library: used! } : { problem: problem! };
}
