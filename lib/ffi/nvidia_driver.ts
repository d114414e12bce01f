/**
 * Asks the NVIDIA driver for its version without the CUDA library, so that a driver is found where that library is not built.
 * @module
 */

/** Returns the CUDA version that the installed driver is for, such as "13.0"; undefined where there is no driver. */
export function cudaDriverVersion(): string | undefined {
  try {
    const driver = Deno.dlopen("libcuda.so.1", { cuDriverGetVersion: { parameters: ["buffer"], result: "i32" } });
    const version = new Int32Array(1);
    const status = driver.symbols.cuDriverGetVersion(version);
    driver.close();
    return status === 0 ? `${Math.floor(version[0] / 1000)}.${Math.floor(version[0] % 1000 / 10)}` : undefined;
  } catch {
    return undefined;
  }
}
