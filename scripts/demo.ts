/**
 * Shows the main job on the shipped model: quantizes it to 4 bits, then streams a continuation, with the plan and the figures.
 * `deno task demo ["a prompt"]`.
 */
import { spawnSync } from "node:child_process";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("..", import.meta.url));
const prompt = Deno.args[0] ?? "In the beginning";

/** Runs the command line as a user would type it, and shows what that was. */
function airkern(...args: string[]): void {
  console.error(`\n$ deno run -A mod.ts ${args.map((arg) => /^[\w./-]+$/.test(arg) ? arg : JSON.stringify(arg)).join(" ")}\n`);
  const { status } = spawnSync(Deno.execPath(), ["run", "-A", "--frozen", "mod.ts", ...args], { cwd: root, stdio: "inherit" });
  if (status !== 0) Deno.exit(status ?? 1);
}

airkern("quantize", "models/kjv-5m", "--out", "build/demo");
const sampling = ["--temperature", "0.6", "--top-p", "0.9", "--repetition-penalty", "1.15", "--seed", "1"];
airkern("run", "build/demo", prompt, "--ram", "256MiB", "--max-tokens", "100", ...sampling, "--stats");
