/**
 * Opens the device that a user asked for.
 * @module
 */
import { NativeError, UsageError } from "../errors.ts";
import { Context, type ContextOptions } from "./context.ts";
import { libraryPlaces } from "./library_lookup.ts";

/**
 * A device: `cpu`, `cuda` for the first NVIDIA GPU, `cuda:1` and so on for the others; `auto` for the first GPU where the CUDA library and
 * one are there, else the CPU.
 */
export type DeviceChoice = "auto" | "cpu" | "cuda" | `cuda:${number}`;

/** A device that was opened. */
export interface OpenedDevice {
  context: Context;
  /** Why `auto` took the CPU. */
  fallback?: { reason: string; isLibraryThere: boolean };
}

/**
 * Returns the number of the GPU that a choice names; undefined for the CPU.
 * @throws {UsageError} for what is no device's name.
 */
function gpuNumber(choice: string): number | undefined {
  if (choice === "cpu") return undefined;
  const match = /^cuda(?::(\d{1,4}))?$/.exec(choice);
  if (!match) throw new UsageError(`Cannot use device ${JSON.stringify(choice)}: known are auto, cpu, cuda and cuda:N`);
  return Number(match[1] ?? 0);
}

/**
 * Opens a device.
 *
 * @throws {UsageError} for what is no device's name, {NativeError} where the device that was named, or for `auto` the CPU, cannot be used.
 */
export async function openDevice(
  choice: string = "auto",
  options: Pick<ContextOptions, "threads" | "isa"> = {},
): Promise<OpenedDevice> {
  const { threads, isa } = options;
  if (choice !== "auto") {
    const device = gpuNumber(choice);
    if (device === undefined) return { context: await Context.load({ kind: "cpu", threads, isa }) };
    if (isa !== undefined) throw new UsageError(`Cannot use instruction set ${isa} on ${choice}: only the CPU has one to choose`);
    return { context: await Context.load({ kind: "cuda", device, threads }) };
  }
  // An instruction set is the CPU's.
  if (isa !== undefined) return { context: await Context.load({ kind: "cpu", threads, isa }) };
  try {
    return { context: await Context.load({ kind: "cuda", threads }) };
  } catch (error) {
    if (!(error instanceof NativeError)) throw error;
    const isLibraryThere = libraryPlaces("cuda").some(({ missing }) => missing === undefined);
    return {
      context: await Context.load({ kind: "cpu", threads }),
      fallback: { reason: error.message, isLibraryThere },
    };
  }
}
