/**
 * Measures what the process takes and what the machine still has.
 * @module
 */
import { readFileSync } from "node:fs";

/**
 * Room for the process to grow after the plan is made, beyond what the plan counts. Measured: the heap and its garbage grow by 10 MiB in 2,000
 * passes of 200 extents; V8 lets its young generation grow to 2 x 16 MiB under short-lived objects (decoded text, logits); the threads
 * that read files take some 100 KiB each, and allocations are rounded up to huge pages.
 */
const RUNTIME_RESERVE_BYTES = 48 * 2 ** 20;

/** The resident set of this process. */
export interface ResidentSet {
  currentBytes: number;
  /** Largest it has been. */
  peakBytes: number;
}

function readText(path: string): string | undefined {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return undefined;
  }
}

/** Returns the bytes of a `Name:  123 kB` line as in /proc. */
function kilobyteField(text: string | undefined, name: string): number | undefined {
  const match = text && new RegExp(`^${name}:\\s*(\\d+) kB`, "m").exec(text);
  return match ? Number(match[1]) * 1024 : undefined;
}

/** Largest resident set seen where the system keeps no record of it. */
let observedPeakBytes = 0;

/**
 * Returns the resident set now and at its peak, in bytes. Without /proc the peak is the largest value that this function has returned.
 */
export function residentSet(): ResidentSet {
  const status = readText("/proc/self/status");
  const currentBytes = kilobyteField(status, "VmRSS") ?? Deno.memoryUsage().rss;
  observedPeakBytes = Math.max(observedPeakBytes, currentBytes);
  return { currentBytes, peakBytes: kilobyteField(status, "VmHWM") ?? observedPeakBytes };
}

/** Returns what the process takes now plus room for the runtime to grow, in bytes: the `baselineBytes` of a plan. */
export function baselineBytes(): number {
  return residentSet().currentBytes + RUNTIME_RESERVE_BYTES;
}

/** Where {@linkcode freeMemoryBytes} looks; tests give a folder of their own. */
export interface MemoryFiles {
  meminfo: string;
  /** Lists the control groups of this process. */
  cgroup: string;
  /** Where control groups are mounted. */
  cgroupRoot: string;
}

const SYSTEM_FILES: MemoryFiles = { meminfo: "/proc/meminfo", cgroup: "/proc/self/cgroup", cgroupRoot: "/sys/fs/cgroup" };

/**
 * Returns the bytes that this process can still take: the machine's available memory, or what its control groups (v1 or v2) leave where that
 * is less. Page cache counts as free. Infinity where nothing can be learnt.
 */
export function freeMemoryBytes(files: MemoryFiles = SYSTEM_FILES): number {
  const available = kilobyteField(readText(files.meminfo), "MemAvailable") ?? Deno.systemMemoryInfo().available;
  return Math.min(available || Infinity, ...cgroupFreeBytes(files));
}

/** Returns the least memory limit of the control groups around this process, in bytes; undefined where none is below the machine's memory. */
export function cgroupLimitBytes(files: MemoryFiles = SYSTEM_FILES): number | undefined {
  const totalBytes = kilobyteField(readText(files.meminfo), "MemTotal") ?? Deno.systemMemoryInfo().total;
  const limitBytes = Math.min(totalBytes, ...cgroupLimits(files).map(({ limitBytes }) => limitBytes));
  return limitBytes < totalBytes ? limitBytes : undefined;
}

/** Returns what each control group around this process leaves. */
function cgroupFreeBytes(files: MemoryFiles): number[] {
  return cgroupLimits(files).map(({ limitBytes, takenBytes }) => Math.max(0, limitBytes - takenBytes));
}

/** Returns the limit of each control group around this process that has one, and what is taken of it without page cache. */
function cgroupLimits(files: MemoryFiles): { limitBytes: number; takenBytes: number }[] {
  const limits: { limitBytes: number; takenBytes: number }[] = [];
  for (const line of (readText(files.cgroup) ?? "").trim().split("\n")) {
    const [, controllers, path] = /^\d+:([^:]*):(.*)$/.exec(line) ?? [];
    if (path === undefined || (controllers !== "" && !controllers.split(",").includes("memory"))) continue;
    const v2 = controllers === "";
    const root = v2 ? files.cgroupRoot : `${files.cgroupRoot}/memory`;
    const parts = path.split("/").filter((part) => part && part !== "..");
    // A limit may sit on any group above; in a container the path may not exist and the mounted root is the own group.
    for (let depth = parts.length; depth >= 0; depth--) {
      const folder = [root, ...parts.slice(0, depth)].join("/");
      const limit = Number(readText(`${folder}/${v2 ? "memory.max" : "memory.limit_in_bytes"}`)?.trim() || NaN);
      const used = Number(readText(`${folder}/${v2 ? "memory.current" : "memory.usage_in_bytes"}`)?.trim() || NaN);
      if (!Number.isFinite(limit) || !Number.isFinite(used)) continue; // "max" is NaN
      const cache = Number(/^(?:total_)?inactive_file (\d+)/m.exec(readText(`${folder}/memory.stat`) ?? "")?.[1] ?? 0);
      limits.push({ limitBytes: limit, takenBytes: Math.max(0, used - cache) });
    }
  }
  return limits;
}

/** Share of the free memory that a plan leaves to everybody else. */
const LEFT_TO_OTHERS = 0.05;

/**
 * Returns the largest resident set this process can grow to on this machine, in bytes, leaving a twentieth of what is free: the `machineBytes` of a plan.
 */
export function machineBytes(): number {
  return Math.floor(residentSet().currentBytes + freeMemoryBytes() * (1 - LEFT_TO_OTHERS));
}
