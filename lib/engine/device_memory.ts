/**
 * Opens the device that an engine computes on, and reserves its memory.
 * @module
 */
import { BudgetError, NativeError } from "../errors.ts";
import { AIRK_OUT_OF_MEMORY } from "../ffi/abi.ts";
import type { Context, DeviceAllocator } from "../ffi/context.ts";
import { openDevice } from "../ffi/device.ts";
import { DeviceArena } from "../ffi/device_arena.ts";
import { formatBytes } from "../memory/bytes.ts";
import type { ShardDirectory } from "../shard/reader.ts";
import type { DeviceMemory } from "./memory_needs.ts";
import { type EngineOptions, type ModelPlan, planModel } from "./model_plan.ts";

/**
 * Opens the device that the options name, and tells where `auto` falls back to the CPU: always where somebody asked for it, else only where the CUDA
 * library is there.
 *
 * @throws {UsageError} for what is no device's name, {NativeError} where it cannot be used.
 */
export async function openEngineDevice(
  options: Pick<EngineOptions, "device" | "threads" | "isa" | "onNotice">,
): Promise<Context> {
  const { device, threads, isa, onNotice } = options;
  const { context, fallback } = await openDevice(device, { threads, isa });
  if (fallback && (device === "auto" || fallback.isLibraryThere)) onNotice?.(`Computing on the CPU: ${fallback.reason}`);
  return context;
}

/** Share of a device's free memory that is left to its driver and to others, and the most that is: kernels are loaded when they first run. */
const LEFT_SHARE = 1 / 16;
const MOST_LEFT_BYTES = 2 ** 30;

/** Returns what a plan may take of a device; undefined where it computes from host memory. */
export function deviceMemory(context: Context): DeviceMemory | undefined {
  if (context.description.unifiedMemory) return undefined;
  const { freeBytes } = context.memoryInfo();
  return { freeBytes: Math.floor(freeBytes - Math.min(freeBytes * LEFT_SHARE, MOST_LEFT_BYTES)) };
}

/** Times that a reservation is tried with less where the budget was left open, and how much less each time. */
const SMALLER_PLANS = 3;
const SMALLER_SHARE = 0.8;

/**
 * Plans a model for a device and reserves the device memory of the plan, all of it at once; returns how much that is. Where the device refuses although it was free a moment ago,
 * and no budget was named, a smaller plan is tried.
 *
 * @throws {BudgetError} where the plan does not fit, {NativeError} where the device refuses, and what `planModel` throws.
 */
export function reserveDevice(
  context: Context,
  shards: ShardDirectory,
  options: EngineOptions,
  resources: { use<T extends Disposable>(resource: T): T },
): { model: ModelPlan; memory: DeviceAllocator; vramBytes: number } {
  const device = deviceMemory(context);
  if (!device) return { model: planModel(shards, options), memory: context, vramBytes: 0 };
  for (let smaller = 0;; smaller++) {
    const model = planModel(shards, options, device);
    const { totalBytes } = model.plan.device!;
    try {
      const memory = resources.use(new DeviceArena(context, totalBytes));
      return { model, memory, vramBytes: memory.bytes };
    } catch (error) {
      if (!(error instanceof NativeError && error.status === AIRK_OUT_OF_MEMORY)) throw error;
      const { freeBytes } = context.memoryInfo();
      if (options.vramBytes !== undefined || smaller === SMALLER_PLANS) {
        throw new BudgetError(
          `Cannot reserve device memory: need ${formatBytes(totalBytes)}, ${context.description.name} has ${
            formatBytes(freeBytes)
          } free and refused`,
          { cause: error },
        );
      }
      device.freeBytes = Math.floor(Math.min(device.freeBytes, freeBytes, totalBytes) * SMALLER_SHARE);
    }
  }
}
