/**
 * `plan MODEL`: says what a memory budget gives before anything is loaded.
 * @module
 */
import { type Command, Option } from "commander";
import { loadModelTokenizer, openModelShards } from "../../auto_model.ts";
import { deviceMemory, openEngineDevice } from "../../engine/device_memory.ts";
import { planModel } from "../../engine/model_plan.ts";
import { measurePeakFlops } from "../../ffi/measure.ts";
import { formatBytes } from "../../memory/bytes.ts";
import { predictSecondsPerToken, type Speeds } from "../../memory/planner.ts";
import { busCeiling, diskCeiling, memoryCeiling } from "../ceilings.ts";
import { engineOptions } from "../engine_options.ts";
import { Interrupt } from "../interrupt.ts";
import { addComputeOptions, addJsonOption, addShardOptions, type OpenOptions, ramOption, wholeNumber } from "../options.ts";
import { formatSeconds, printJson, printLine } from "../output.ts";
import { planLines } from "../plan_lines.ts";
import { ProgressDisplay } from "../progress.ts";

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
        "disk and memory, and of the bus to a GPU. No weights are loaded.",
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
      "\nExamples:\n  deno run -A mod.ts plan /data/405b --ram 8GiB --context 2048\n  deno run -A mod.ts plan /data/405b --vram 8GiB --ram 16GiB",
    )
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
  const engine = { ...engineOptions(options), contextTokens: options.context };
  using context = await openEngineDevice(engine);
  const { plan, flopsPerToken } = planModel(shards, engine, deviceMemory(context));
  const speeds: Speeds = {
    diskBytesPerSecond: await diskCeiling(context, shards, signal),
    ...(plan.device ? { busBytesPerSecond: await busCeiling(context) } : {}),
    memoryBytesPerSecond: await memoryCeiling(context),
    flopsPerSecond: await measurePeakFlops(context, options.precision === "fast" ? "fast" : "float32"),
  };
  const predictedSecondsPerToken = predictSecondsPerToken(plan, speeds, flopsPerToken);
  if (options.json) {
    const { resident: _resident, pinned: _pinned, ...figures } = plan;
    printJson({ model: path, ...figures, ...speeds, flopsPerToken, predictedSecondsPerToken });
    return;
  }
  for (const line of planLines(plan)) printLine(line);
  const rate = (bytesPerSecond: number) => `${formatBytes(bytesPerSecond)}/s`;
  const bus = speeds.busBytesPerSecond === undefined ? "" : `copies to the device ${rate(speeds.busBytesPerSecond)}, `;
  printLine(`disk reads ${rate(speeds.diskBytesPerSecond)}, ${bus}memory reads ${rate(speeds.memoryBytesPerSecond)}`);
  printLine(`predicted ${formatSeconds(predictedSecondsPerToken)} a token`);
}
