/**
 * `plan MODEL`: says what a memory budget gives before anything is loaded.
 * @module
 */
import { type Command, Option } from "commander";
import { loadModelTokenizer, openModelShards } from "../../auto_model.ts";
import { planModel } from "../../engine/model_plan.ts";
import { Context } from "../../ffi/context.ts";
import { formatBytes } from "../../memory/bytes.ts";
import { predictSecondsPerToken } from "../../memory/planner.ts";
import { diskCeiling, memoryCeiling } from "../ceilings.ts";
import { Interrupt } from "../interrupt.ts";
import { addComputeOptions, addJsonOption, addShardOptions, type OpenOptions, ramOption, wholeNumber } from "../options.ts";
import { formatSeconds, printJson, printLine } from "../output.ts";
import { ProgressDisplay } from "../progress.ts";
import { planLines } from "./run.ts";

interface PlanCommandOptions extends OpenOptions {
  context?: number;
  json?: boolean;
}

/** Adds the command. */
export function addPlanCommand(root: Command): void {
  const command = root.command("plan").argument("<model>", "directory of a checkpoint or of shards")
    .summary("say what a memory budget gives")
    .description(
      "Says what of a model stays in memory within a budget and what streams from disk, and predicts seconds a token from a measurement of this " +
        "disk and memory. No weights are loaded.",
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
    .addHelpText("after", "\nExample:\n  deno run -A mod.ts plan /data/405b --ram 8GiB --context 2048")
    .action(showPlan);
}

async function showPlan(path: string, options: PlanCommandOptions): Promise<void> {
  using interrupt = new Interrupt();
  const { signal } = interrupt;
  using progress = await ProgressDisplay.create();
  const { threads, format: compression, shards: layerShardsPath } = options;
  const shards = await openModelShards(path, { compression, layerShardsPath, threads, onProgress: progress.showBytes, signal });
  progress.stop();
  // As when it runs: what these two take is part of the plan.
  await loadModelTokenizer(shards);
  using context = await Context.load({ threads });
  const { plan } = planModel(shards, {
    ramBytes: options.ram,
    contextTokens: options.context,
    threads,
    precision: options.precision,
    kvCacheType: options.kvCacheType,
  });
  const diskBytesPerSecond = await diskCeiling(context, shards, signal);
  const memoryBytesPerSecond = await memoryCeiling(context);
  const predictedSecondsPerToken = predictSecondsPerToken(plan, { diskBytesPerSecond, memoryBytesPerSecond });
  if (options.json) {
    const { resident: _, ...figures } = plan;
    printJson({ model: path, ...figures, diskBytesPerSecond, memoryBytesPerSecond, predictedSecondsPerToken });
    return;
  }
  for (const line of planLines(plan)) printLine(line);
  printLine(`disk reads ${formatBytes(diskBytesPerSecond)}/s, memory reads ${formatBytes(memoryBytesPerSecond)}/s`);
  printLine(`predicted ${formatSeconds(predictedSecondsPerToken)} a token`);
}
