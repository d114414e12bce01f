/**
 * The command line. Each command is a file in `commands/`.
 * @module
 */
import { Command, CommanderError } from "commander";
import { AirkernError, CancelledError } from "../errors.ts";
import { addBenchCommand } from "./commands/bench.ts";
import { addDoctorCommand } from "./commands/doctor.ts";
import { addInspectCommand } from "./commands/inspect.ts";
import { addPerplexityCommand } from "./commands/perplexity.ts";
import { addPlanCommand } from "./commands/plan.ts";
import { addPullCommand } from "./commands/pull.ts";
import { addQuantizeCommand } from "./commands/quantize.ts";
import { addRunCommand } from "./commands/run.ts";
import { addVerifyCommand } from "./commands/verify.ts";
import { INTERRUPTED_EXIT_CODE } from "./interrupt.ts";
import { BrokenPipeError, printError, writeOut } from "./output.ts";

/** Returns a message as one line. */
function oneLine(message: string): string {
  return message.trim().replace(/\s*\n\s*/g, " ");
}

/** Reports what went wrong and returns the exit code. */
function report(error: unknown): number {
  if (error instanceof BrokenPipeError) return 0;
  // commander has printed its message, or the help that was asked for.
  if (error instanceof CommanderError) return error.exitCode;
  if (Deno.env.get("AIRKERN_DEBUG") === "1") console.error(error);
  if (error instanceof CancelledError) {
    printError("airkern: Stopped");
    return INTERRUPTED_EXIT_CODE;
  }
  if (error instanceof AirkernError) printError(`airkern: ${oneLine(error.message)}`);
  else {
    const text = error instanceof Error ? `${error.name}: ${error.message}` : String(error);
    printError(`airkern: Unexpected ${oneLine(text)}; this is a bug, please report it with what AIRKERN_DEBUG=1 shows`);
  }
  return 1;
}

/** Returns the command line's commands. */
function program(): Command {
  const root = new Command("airkern")
    .description("Runs language models that are far larger than the machine's memory: 4-bit weights are streamed from disk.")
    .addHelpText(
      "after",
      `
Sizes are written as 512MiB, 8GiB, 1.5GB. A MODEL is a directory or a name on the hub: a Hugging Face checkpoint (config.json,
safetensors, tokenizer.json), which is quantized on first use, a shard directory that \`quantize\` made, or organisation/name.

Example:
  deno run -A mod.ts run models/kjv-5m "In the beginning" --max-tokens 40 --stats`,
    )
    .exitOverride()
    .configureOutput({
      writeOut,
      writeErr: (text) => printError(text.trimEnd()),
      outputError: (text, write) => write(`airkern: ${oneLine(text.replace(/^error: /, ""))}`),
    });
  // Made after the settings above, which they take over.
  addRunCommand(root);
  addPullCommand(root);
  addQuantizeCommand(root);
  addPlanCommand(root);
  addInspectCommand(root);
  addVerifyCommand(root);
  addPerplexityCommand(root);
  addBenchCommand(root);
  addDoctorCommand(root);
  return root;
}

/** Runs the command line and ends the process: exit code 0, 1 for an error, 130 after Ctrl-C. */
export async function main(args: readonly string[]): Promise<never> {
  // Whatever goes wrong beside the command's own flow is reported in the same way.
  globalThis.addEventListener("unhandledrejection", (event) => {
    event.preventDefault();
    Deno.exit(report(event.reason));
  });
  globalThis.addEventListener("error", (event) => {
    event.preventDefault();
    Deno.exit(report(event.error));
  });
  try {
    await program().parseAsync(args, { from: "user" });
  } catch (error) {
    Deno.exit(report(error));
  }
  Deno.exit(0);
}
