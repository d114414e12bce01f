/**
 * Runs commands under a limit of memory, page cache included, as a container would have it: by a control group of Linux.
 */
import { execFileSync, spawn } from "node:child_process";
import fs from "node:fs";
import { join } from "node:path";

/** How a command ended. */
export interface Outcome {
  stdout: string;
  stderr: string;
  /** "out of memory" where the kernel killed it, else how it failed; undefined where it succeeded. */
  failure?: string;
}

/** Runs a command and returns what it printed; never throws for its failure. */
export function runCommand(command: string, args: string[], onSpawn?: (pid: number) => void): Promise<Outcome> {
  const child = spawn(command, args, { stdio: ["ignore", "pipe", "pipe"] });
  const outcome: Outcome = { stdout: "", stderr: "" };
  if (child.pid !== undefined) onSpawn?.(child.pid);
  child.stdout.on("data", (chunk) => outcome.stdout += chunk);
  child.stderr.on("data", (chunk) => outcome.stderr += chunk);
  return new Promise((resolve) => {
    child.on("error", (error) => resolve({ ...outcome, failure: error.message }));
    child.on("close", (code, signal) => {
      const failure = signal === "SIGKILL" || code === 137
        ? "out of memory"
        : signal ?? (code === 0 ? undefined : `exit code ${code}`);
      resolve({ ...outcome, failure });
    });
  });
}

/** A control group below this process's own, of the memory controller of version 1. */
class MemoryGroup {
  readonly #path: string;

  constructor(bytes: number) {
    const own = fs.readFileSync("/proc/self/cgroup", "utf8").match(/^\d+:memory:(.*)$/m)?.[1];
    if (own === undefined) throw new Error("the memory controller is not one of version 1");
    this.#path = join("/sys/fs/cgroup/memory", own, `airkern-bench-${Deno.pid}`);
    fs.mkdirSync(this.#path, { recursive: true });
    fs.writeFileSync(join(this.#path, "memory.limit_in_bytes"), String(bytes));
  }

  /** Command line that enters the group before it becomes another. */
  wrap(command: string, args: string[]): [string, string[]] {
    return ["sh", ["-c", `echo $$ > '${join(this.#path, "cgroup.procs")}' && exec "$@"`, "sh", command, ...args]];
  }

  remove(): void {
    fs.rmdirSync(this.#path);
  }
}

/**
 * Runs a command under a limit. Tries a control group of version 1, which root may make, then systemd-run.
 * @throws {Error} where neither can be had.
 */
export async function runUnderLimit(bytes: number, command: string, args: string[]): Promise<Outcome> {
  let group: MemoryGroup;
  try {
    group = new MemoryGroup(bytes);
  } catch (error) {
    try {
      execFileSync("systemd-run", ["--version"], { stdio: "ignore" });
    } catch {
      throw new Error(`Cannot limit memory: ${(error as Error).message}, and there is no systemd-run`);
    }
    const limit = ["--user", "--scope", "--quiet", "-p", `MemoryMax=${bytes}`, "-p", "MemorySwapMax=0"];
    return await runCommand("systemd-run", [...limit, command, ...args]);
  }
  try {
    return await runCommand(...group.wrap(command, args));
  } finally {
    group.remove();
  }
}
