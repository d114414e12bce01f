/**
 * What to do about what `doctor` did not find.
 * @module
 */
import { libraryRemedy } from "../../ffi/library.ts";
import { formatBytes } from "../../memory/bytes.ts";
import type { LibraryReport } from "./libraries.ts";
import type { Machine } from "./machine.ts";

/** All that `doctor` found. */
export interface Findings {
  machine: Machine;
  cpu: LibraryReport;
  cuda: LibraryReport;
}

/** Below this much free memory or disk, what is left is worth a word. */
const SCARCE_BYTES = 2 ** 30;

/** Returns one sentence for each thing that is missing, the gravest first; empty where nothing is. */
export function advice({ machine, cpu, cuda }: Findings): string[] {
  return [...cpuAdvice(cpu), ...cudaAdvice(machine, cuda), ...memoryAdvice(machine, cuda), ...diskAdvice(machine)];
}

function cpuAdvice(cpu: LibraryReport): string[] {
  if (cpu.problem) return [`Nothing runs without the CPU library: ${withRemedy(cpu)}`];
  return cpu.devices.some(({ isa }) => isa === "portable") && Deno.build.arch === "x86_64"
    ? ["Portable kernels alone can run: use a processor with AVX2, or let the virtual machine show it"]
    : [];
}

function withRemedy({ kind, problem }: LibraryReport): string {
  return problem!.includes(libraryRemedy(kind)) ? problem! : `${problem}; ${libraryRemedy(kind)}`;
}

function cudaAdvice({ nvidia }: Machine, cuda: LibraryReport): string[] {
  if (cuda.devices.length > 0) return cuda.problem ? [cuda.problem] : [];
  if (cuda.places.some(({ problem }) => problem !== undefined)) return [cuda.problem!];
  const hasDriver = nvidia.driver !== undefined || nvidia.cuda !== undefined;
  if (!hasDriver && nvidia.pciDevices > 0) {
    return [
      `Install NVIDIA's driver for CUDA 13 (580 or later): the GPU is there (PCI devices: ${nvidia.pciDevices}), a driver is not`,
    ];
  }
  // Without hardware and driver there is nothing that a library could use.
  if (!hasDriver) return [];
  return [cuda.used ? cuda.problem! : `The GPU is not used without the CUDA library (nvcc 13 builds it): ${withRemedy(cuda)}`];
}

function memoryAdvice({ memory, hugePages, memoryLock }: Machine, cuda: LibraryReport): string[] {
  const said: string[] = [];
  if (memory.freeBytes < SCARCE_BYTES) {
    said.push(`Only ${formatBytes(memory.freeBytes)} of memory are free: end other programs, or raise the container's limit`);
  }
  if (hugePages === "never") {
    said.push(
      "Allow huge pages, reads into small ones are slower: echo madvise | sudo tee /sys/kernel/mm/transparent_hugepage/enabled",
    );
  }
  if (cuda.devices.length > 0 && typeof memoryLock === "number") {
    said.push(
      `Locked memory is limited to ${
        formatBytes(memoryLock)
      }: if page-locked memory cannot be reserved, raise it with ulimit -l unlimited`,
    );
  }
  return said;
}

function diskAdvice({ disk }: Machine): string[] {
  const said: string[] = [];
  if (disk.problem) said.push(disk.problem);
  if (disk.directIo === false) {
    said.push(
      `${disk.path} refuses direct reads, which makes streaming slower: keep models on a local disk (ext4, xfs or btrfs)`,
    );
  }
  if (disk.freeBytes < SCARCE_BYTES) {
    said.push(
      `Only ${
        formatBytes(disk.freeBytes)
      } are free on the disk of ${disk.path}: a 4-bit copy takes a quarter of a 16-bit checkpoint`,
    );
  }
  return said;
}
