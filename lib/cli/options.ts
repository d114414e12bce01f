/**
 * Options that several commands share, and how their values are read.
 * @module
 */
import { type Command, InvalidArgumentError, Option } from "commander";
import type { ShardOptions } from "../auto_model.ts";
import { KV_CACHE_TYPES, type KvCacheType } from "../engine/model_plan.ts";
import { type DeviceChoice, parseDevice } from "../ffi/device.ts";
import { parseBytes } from "../memory/bytes.ts";
import { printNotice } from "./engine_options.ts";
import type { ProgressDisplay } from "./progress.ts";

/** Returns a reader of whole numbers from a least one on. */
export function wholeNumber(least: number): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (!/^\s*[+-]?\d+\s*$/.test(text) || !Number.isSafeInteger(value) || value < least) {
      throw new InvalidArgumentError(`Required is a whole number from ${least}.`);
    }
    return value;
  };
}

/** Returns a reader of numbers in a range. */
export function numberIn(least: number, most: number, leastIsAllowed = true): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (text.trim() === "" || !(leastIsAllowed ? value >= least : value > least) || value > most || value === Infinity) {
      const from = leastIsAllowed ? `from ${least}` : `above ${least}`;
      throw new InvalidArgumentError(`Required is a number ${from}${most === Infinity ? "" : ` to ${most}`}.`);
    }
    return value;
  };
}

/** Reads a size such as `8GiB`. */
export function size(text: string): number {
  try {
    return parseBytes(text);
  } catch (error) {
    throw new InvalidArgumentError(`${(error as Error).message}.`);
  }
}

/** What the argument that names a model takes. */
export const MODEL_ARGUMENT =
  "directory of a checkpoint or of shards, a .gguf file, or organisation/name of a model on the hub, with :Q4_K_M behind it for one of its GGUF files";

/** Options that say where a model's shards are, as commander gives them. */
export interface ShardCommandOptions {
  ram?: number;
  threads?: number;
  format?: "q4o" | "nf4" | "q8" | "none";
  shards?: string;
  revision?: string;
  deleteOriginal?: boolean;
}

/** Options of every command that opens a model, as commander gives them. */
export interface OpenOptions extends ShardCommandOptions {
  device?: DeviceChoice;
  vram?: number;
  kvLocation?: "vram" | "ram";
  precision: "exact" | "fast";
  kvCacheType: KvCacheType;
}

/** Returns the library's options for those of a command. */
export function shardOptions(
  options: ShardCommandOptions,
  progress: ProgressDisplay,
  signal: AbortSignal,
): ShardOptions & { onProgress: ProgressDisplay["showBytes"] } {
  const { format: compression, shards: layerShardsPath, threads, ram: ramBytes, revision, deleteOriginal } = options;
  return {
    ...{ compression, layerShardsPath, threads, ramBytes, revision, deleteOriginal, signal },
    onProgress: progress.showBytes,
    onNotice: printNotice,
  };
}

/** Returns the option for the revision of a model on the hub. */
export function revisionOption(): Option {
  return new Option("--revision <name>", "branch, tag or commit of a model on the hub (default: main)");
}

/** Returns the option for a number of threads. */
export function threadsOption(): Option {
  return new Option("--threads <n>", "threads that compute (default: one a core)").argParser(wholeNumber(1));
}

/** Returns the option for the memory budget. */
export function ramOption(): Option {
  return new Option(
    "--ram <size>",
    "memory budget of the whole process, such as 512MiB or 8GiB (default: what the machine has free)",
  )
    .argParser(size);
}

/** Returns the option for the format of a checkpoint's shards. */
export function formatOption(): Option {
  return new Option(
    "--format <name>",
    "format that a checkpoint is quantized to on first use (default: q4o, or none where it is quantized already)",
  )
    .choices(["q4o", "nf4", "q8", "none"]);
}

/** Returns the option for where shards are. */
export function shardsOption(): Option {
  return new Option(
    "--shards <dir>",
    "directory for the shards of checkpoints (default: beside the model, MODEL/airkern-FORMAT, of a GGUF file airkern-FORMAT-NAME)",
  );
}

/** Adds the options that say where a model's shards are and in what format. */
export function addShardOptions(command: Command): Command {
  return command
    .addOption(formatOption())
    .addOption(shardsOption())
    .addOption(revisionOption())
    .option("--delete-original", "remove each weight file of the checkpoint once it is quantized and the result was reread")
    .addOption(threadsOption());
}

/** Reads a device's name. */
function deviceName(text: string): DeviceChoice {
  try {
    return parseDevice(text);
  } catch (error) {
    throw new InvalidArgumentError(`${(error as Error).message}.`);
  }
}

/** Adds the options that say where and how a model computes. */
export function addComputeOptions(command: Command): Command {
  return command
    .addOption(
      new Option(
        "--device <name>",
        "auto, cpu, cuda or cuda:N; auto takes the first NVIDIA GPU that can be used, else the CPU (default: auto)",
      )
        .argParser(deviceName),
    )
    .addOption(
      new Option("--vram <size>", "budget of a GPU's memory, such as 8GiB (default: what the GPU has free)").argParser(size),
    )
    .addOption(
      new Option("--kv-location <memory>", "where the KV cache of a GPU is; ram leaves more vram to weights (default: vram)")
        .choices(["vram", "ram"]),
    )
    .addOption(
      new Option("--precision <name>", "exact keeps float32 activations; fast may round them inside products")
        .choices(["exact", "fast"]).default("exact"),
    )
    .addOption(
      new Option("--kv-cache-type <type>", "element type of the KV cache").choices(KV_CACHE_TYPES).default(KV_CACHE_TYPES[0]),
    );
}

/** Adds the option for machine-readable output. */
export function addJsonOption(command: Command): Command {
  return command.option("--json", "print one JSON object instead");
}
