/**
 * What `doctor` finds out about the machine: processor, memory, huge pages, limits, the disk that a model lies on, NVIDIA hardware.
 * @module
 */
import { readdirSync, readFileSync, statfsSync, statSync } from "node:fs";
import { join, resolve } from "node:path";
import { cudaDriverVersion } from "../../ffi/nvidia_driver.ts";
import type { Context } from "../../ffi/context.ts";
import { cgroupLimitBytes, freeMemoryBytes } from "../../memory/budget.ts";
import { DIRECT_ALIGNMENT, DirectFiles } from "../../stream/direct_file.ts";

/** What the machine is; undefined for what could not be learnt. */
export interface Machine {
  memory: { totalBytes: number; freeBytes: number; cgroupLimitBytes?: number };
  /** Mode of transparent huge pages: always, madvise or never. */
  hugePages?: string;
  /** Limit of memory that a process may lock; "unlimited", or bytes. */
  memoryLock?: number | "unlimited";
  disk: Disk;
  nvidia: {
    /** NVIDIA display controllers on the PCI bus. */
    pciDevices: number;
    /** Version of the kernel driver, such as 580.65.06. */
    driver?: string;
    /** CUDA version that the driver is for. */
    cuda?: string;
  };
}

/** The file system that a directory lies on. */
export interface Disk {
  path: string;
  freeBytes: number;
  totalBytes: number;
  /** The file that was read to see whether direct reads work; undefined where the directory has none large enough. */
  probe?: string;
  /** Whether its reads go past the page cache; undefined where that was not tried. */
  directIo?: boolean;
  /** Why reading failed. */
  problem?: string;
}

function text(path: string): string | undefined {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return undefined;
  }
}

/** Returns what the machine is. `context` lends the aligned memory that direct reads need. */
export async function inspectMachine(path: string, context: Context | undefined): Promise<Machine> {
  return {
    memory: {
      totalBytes: Deno.systemMemoryInfo().total,
      freeBytes: freeMemoryBytes(),
      cgroupLimitBytes: cgroupLimitBytes(),
    },
    hugePages: /\[(\w+)\]/.exec(text("/sys/kernel/mm/transparent_hugepage/enabled") ?? "")?.[1],
    memoryLock: parseMemoryLock(text("/proc/self/limits")),
    disk: await inspectDisk(path, context),
    nvidia: {
      pciDevices: countNvidiaDevices(),
      driver: /Kernel Module(?: for \S+)?\s+([\d.]+)/.exec(text("/proc/driver/nvidia/version") ?? "")?.[1],
      cuda: cudaDriverVersion(),
    },
  };
}

/** Returns the soft limit of locked memory from the text of /proc/self/limits. */
export function parseMemoryLock(limits: string | undefined): number | "unlimited" | undefined {
  const soft = /^Max locked memory\s+(\S+)/m.exec(limits ?? "")?.[1];
  return soft === undefined || soft === "unlimited" ? soft : Number(soft);
}

function countNvidiaDevices(): number {
  const bus = "/sys/bus/pci/devices";
  try {
    const isNvidiaDisplay = (name: string): boolean =>
      text(join(bus, name, "vendor"))?.trim() === "0x10de" && text(join(bus, name, "class"))?.startsWith("0x03") === true;
    return readdirSync(bus).filter(isNvidiaDisplay).length;
  } catch {
    return 0;
  }
}

/** Returns the largest file of a directory that has at least one block of direct reads. */
function largestFile(directory: string): string | undefined {
  let largest: string | undefined, largestBytes = DIRECT_ALIGNMENT - 1;
  for (const entry of readdirSync(directory, { withFileTypes: true })) {
    if (!entry.isFile() && !entry.isSymbolicLink()) continue;
    const found = statSync(join(directory, entry.name), { throwIfNoEntry: false });
    if (!found?.isFile() || found.size <= largestBytes) continue;
    [largest, largestBytes] = [join(directory, entry.name), found.size];
  }
  return largest;
}

/** Returns what the disk under a directory is, and reads one block of its largest file to see whether direct reads work. */
async function inspectDisk(path: string, context: Context | undefined): Promise<Disk> {
  const { bsize, blocks, bavail } = statfsSync(path);
  const disk: Disk = { path: resolve(path), freeBytes: bsize * bavail, totalBytes: bsize * blocks };
  if (!context) return disk;
  try {
    disk.probe = largestFile(path);
    if (disk.probe === undefined) return disk;
    using memory = await context.hostBuffer(DIRECT_ALIGNMENT);
    using files = new DirectFiles([disk.probe]);
    await files.read(0, memory.view(), 0);
    disk.directIo = files.isDirect(0);
  } catch (error) {
    disk.problem = (error as Error).message;
  }
  return disk;
}
