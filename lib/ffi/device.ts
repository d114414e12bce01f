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

/** Returns a text as a device's name. @throws {UsageError} for what is none. */
export function parseDevice(text: string): DeviceChoice {
  if (/^(auto|cpu|cuda(:\d{1,4})?)$/.test(text)) return text as DeviceChoice;
  throw new UsageError(`Cannot use device ${JSON.stringify(text)}: known are auto, cpu, cuda and cuda:N`);
}

/**
 * Opens a device.
 *
 * @throws {UsageError} for what is no device's name, {NativeError} where the device that was named, or for `auto` the CPU, cannot be used.
 */
export async function openDevice(
  choice: DeviceChoice = "auto",
  options: Pick<ContextOptions, "threads" | "isa"> = {},
): Promise<OpenedDevice> {
  const { threads, isa } = options;
  parseDevice(choice);
  if (choice === "cpu") return { context: await Context.load({ kind: "cpu", threads, isa }) };
  if (choice !== "auto") {
    if (isa !== undefined) throw new UsageError(`Cannot use instruction set ${isa} on ${choice}: only the CPU has one to choose`);
    return { context: await Context.load({ kind: "cuda", device: Number(choice.split(":")[1] ?? 0), threads }) };
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
