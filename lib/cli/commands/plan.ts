/**
 * `plan MODEL`: says what a memory budget gives before anything is loaded.
 * @module
 */
import { type Command, Option } from "commander";
import { loadModelTokenizer, predictModelShards } from "../../auto_model.ts";
import { planModel } from "../../engine/model_plan.ts";
import { Context } from "../../ffi/context.ts";
import { formatBytes } from "../../memory/bytes.ts";
import { predictSecondsPerToken } from "../../memory/planner.ts";
import { diskCeiling, diskCeilingOf, memoryCeiling } from "../ceilings.ts";
import { Interrupt } from "../interrupt.ts";
import {
  addComputeOptions,
  addJsonOption,
  addShardOptions,
  MODEL_ARGUMENT,
  type OpenOptions,
  ramOption,
  shardOptions,
  wholeNumber,
} from "../options.ts";
import { formatSeconds, printJson, printLine } from "../output.ts";
import { ProgressDisplay } from "../progress.ts";
import { planLines } from "./run.ts";

interface PlanCommandOptions extends OpenOptions {
  context?: number;
  json?: boolean;
}

/** Adds the command. */
export function addPlanCommand(root: Command): void {
  const command = root.command("plan").argument("<model>", MODEL_ARGUMENT)
    .summary("say what a memory budget gives")
    .description(
      "Says what of a model stays in memory within a budget and what streams from disk, and predicts seconds a token from a measurement of this " +
        "disk and memory. No weights are loaded; of a model that was not quantized yet, on the hub or here, the headers of its files are enough.",
    )
    .addOption(ramOption())
    .addOption(
      new Option(
        "--context <n>",
        "tokens that the context holds (default: the model's own, 4096 at most, fewer where they do not fit)",
      )
        .argParser(wholeNumber(1)),
    );
  addJsonOption(addComputeOptions(addShardOptions(command)))
    .addHelpText(
      "after",
      `
Example:
  deno run -A mod.ts plan /data/405b --ram 8GiB --context 2048
  deno run -A mod.ts plan meta-llama/Llama-3.1-405B-Instruct --ram 8GiB`,
    )
    .action(showPlan);
}

async function showPlan(path: string, options: PlanCommandOptions): Promise<void> {
  using interrupt = new Interrupt();
  const { signal } = interrupt;
  using progress = await ProgressDisplay.create();
  const { threads } = options;
  const { shards, filesExist, directory } = await predictModelShards(path, shardOptions(options, progress, signal));
  progress.stop();
  // As when it runs: what these two take is part of the plan.
  await loadModelTokenizer(shards);
  using context = Context.open({ threads });
  const { plan } = planModel(shards, {
    ramBytes: options.ram,
    contextTokens: options.context,
    threads,
    precision: options.precision,
    kvCacheType: options.kvCache,
  });
  const diskBytesPerSecond = filesExist
    ? await diskCeiling(context, shards, signal)
    : await diskCeilingOf(context, directory, signal);
  const memoryBytesPerSecond = await memoryCeiling(context);
  const predictedSecondsPerToken = predictSecondsPerToken(plan, { diskBytesPerSecond, memoryBytesPerSecond });
  if (options.json) {
    const { resident: _, ...figures } = plan;
    const { fileBytes } = shards;
    printJson({
      ...{ model: path, quantized: filesExist, fileBytes, ...figures },
      ...{ diskBytesPerSecond, memoryBytesPerSecond, predictedSecondsPerToken },
    });
    return;
  }
  if (!filesExist) printLine(`not quantized yet; will take about ${formatBytes(shards.fileBytes)} in ${directory}`);
  for (const line of planLines(plan)) printLine(line);
  printLine(`disk reads ${formatBytes(diskBytesPerSecond)}/s, memory reads ${formatBytes(memoryBytesPerSecond)}/s`);
  printLine(`predicted ${formatSeconds(predictedSecondsPerToken)} a token`);
}
