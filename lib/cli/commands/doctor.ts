/**
 * `doctor [MODEL]`: says what of this machine AirKern can use, and what to do about what is missing.
 * @module
 */
import type { Command } from "commander";
import { statSync } from "node:fs";
import { dirname } from "node:path";
import { UsageError } from "../../errors.ts";
import { Context } from "../../ffi/context.ts";
import { locateModel } from "../../hub/locate.ts";
import { parseModelName } from "../../hub/model_id.ts";
import { formatBytes } from "../../memory/bytes.ts";
import { advice, type Findings } from "../doctor/advice.ts";
import { inspectLibrary, type LibraryReport } from "../doctor/libraries.ts";
import { type Disk, inspectMachine, type Machine } from "../doctor/machine.ts";
import { addJsonOption } from "../options.ts";
import { printJson, printLine, table } from "../output.ts";

/** Adds the command. */
export function addDoctorCommand(root: Command): void {
  const command = root.command("doctor")
    .argument("[model]", "directory, or organisation/name of a model of the hub that is cached; its disk is looked at", ".")
    .summary("say what this machine has and what is missing")
    .description(
      "Says what was found of this machine: native libraries, NVIDIA driver and devices, processor, memory, disk; and what to do about what is " +
        "missing. Fails where nothing can run.",
    );
  addJsonOption(command)
    .addHelpText("after", "\nExample:\n  deno run -A mod.ts doctor /data/405b")
    .action(examine);
}

async function examine(model: string, options: { json?: boolean }): Promise<void> {
  const found = statSync(model, { throwIfNoEntry: false });
  const isId = found === undefined && parseModelName(model) !== undefined;
  const path = isId ? (await locateModel(model, { localFilesOnly: true })).path : found?.isFile() ? dirname(model) : model;
  if (!statSync(path, { throwIfNoEntry: false })?.isDirectory()) {
    throw new UsageError(`Cannot look at ${path}: no such directory`);
  }
  const cpu = await inspectLibrary("cpu");
  const cuda = await inspectLibrary("cuda");
  using context = cpu.devices.length > 0 ? Context.open({ threads: 1 }) : undefined;
  const findings: Findings = { machine: await inspectMachine(path, context), cpu, cuda };
  const toDo = advice(findings);
  if (options.json) printJson({ ...findings, advice: toDo });
  else {
    for (const line of table(rows(findings), "ll")) printLine(line);
    printLine(toDo.length > 0 ? "What to do" : "Nothing is missing.");
    for (const line of toDo) printLine(`  - ${line}`);
  }
  if (cpu.problem) Deno.exit(1);
}

/** Returns what was found, a subject and its finding a row. */
function rows({ machine, cpu, cuda }: Findings): [string, string][] {
  return [
    ...libraryRows(cpu),
    ...cpu.devices.map(({ name, isa, threads }): [string, string] => [
      "processor",
      `${name}, ${threads} ${threads === 1 ? "core" : "cores"}, best instruction set ${isa}`,
    ]),
    ...libraryRows(cuda),
    ["NVIDIA driver", driverText(machine, cuda)],
    ...gpuRows(cuda),
    ["memory", memoryText(machine)],
    ["huge pages", machine.hugePages ?? "unknown"],
    ["locked memory", limitText(machine.memoryLock)],
    ["disk", `${formatBytes(machine.disk.freeBytes)} of ${formatBytes(machine.disk.totalBytes)} free at ${machine.disk.path}`],
    ["direct reads", directText(machine.disk)],
  ];
}

function libraryRows({ kind, places }: LibraryReport): [string, string][] {
  return places.map(({ from, path, missing, problem, abiVersion }, index) => [
    index === 0 ? `${kind} library` : "",
    `${from}: ${missing ?? problem ?? `${path}, ABI version ${abiVersion}`}`,
  ]);
}

function driverText({ nvidia }: Machine, cuda: LibraryReport): string {
  const version = nvidia.cuda ?? cuda.devices[0]?.driver;
  const parts = [nvidia.driver, version && `for CUDA ${version}`].filter(Boolean);
  return parts.length > 0 ? parts.join(", ") : "none";
}

function gpuRows({ devices, problem, used }: LibraryReport): [string, string][] {
  const found = devices.map(({ device, name, isa, threads, freeBytes, totalBytes }): [string, string] => [
    `cuda:${device}`,
    `${name}, compute capability ${isa.replace(/^sm_(\d+)(\d)$/, "$1.$2")}, ${threads} multiprocessors, ` +
    `${formatBytes(freeBytes)} of ${formatBytes(totalBytes)} free`,
  ]);
  return found.length > 0 ? found : [["GPU", used ? `none: ${problem}` : "not looked for: there is no CUDA library"]];
}

function memoryText({ memory }: Machine): string {
  const limit = memory.cgroupLimitBytes;
  return `${formatBytes(memory.freeBytes)} of ${formatBytes(memory.totalBytes)} free` +
    (limit !== undefined ? `, control group limit ${formatBytes(limit)}` : "");
}

function limitText(limit: Machine["memoryLock"]): string {
  if (limit === undefined) return "unknown limit";
  return limit === "unlimited" ? "no limit" : `${formatBytes(limit)} at most`;
}

function directText({ probe, directIo, problem, path }: Disk): string {
  if (problem) return problem;
  if (probe === undefined) return `not tried: ${path} holds no file of 4 KiB; name a model's directory`;
  if (directIo === undefined) return "not tried: that takes the CPU library";
  return `${directIo ? "work" : "are refused"}, tried on ${probe}`;
}
