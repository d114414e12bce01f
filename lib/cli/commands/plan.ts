/**
 * `plan MODEL`: says what a memory budget gives before anything is loaded.
 * @module
 */
import { type Command, Option } from "commander";
import { loadModelTokenizer, predictModelShards } from "../../auto_model.ts";
import { deviceMemory, openEngineDevice } from "../../engine/device_memory.ts";
import { planModel } from "../../engine/model_plan.ts";
import { measurePeakFlops } from "../../ffi/measure.ts";
import { formatBytes } from "../../memory/bytes.ts";
import { predictSecondsPerToken, type Speeds } from "../../memory/planner.ts";
import { ASSUMED_GPU, busCeiling, diskCeiling, diskCeilingOf, memoryCeiling } from "../ceilings.ts";
import { engineOptions } from "../engine_options.ts";
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
import { planLines } from "../plan_lines.ts";
import { ProgressDisplay } from "../progress.ts";

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
        "disk and memory, and of the bus to a GPU. With --vram on a machine without one, it plans for a GPU of 8 GB on PCIe 4.0 x8. No weights are loaded; of a model that was not quantized yet, on the hub or here, the headers of " +
        "its files are enough.",
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
Examples:
  deno run -A mod.ts plan /data/405b --ram 8GiB --context 2048
  deno run -A mod.ts plan /data/405b --vram 8GiB --ram 16GiB
  deno run -A mod.ts plan meta-llama/Llama-3.1-405B-Instruct --vram 8GiB --ram 64GiB`,
    )
    .action(showPlan);
}

async function showPlan(path: string, options: PlanCommandOptions): Promise<void> {
  using interrupt = new Interrupt();
  const { signal } = interrupt;
  using progress = await ProgressDisplay.create();
  const { shards, filesExist, directory } = await predictModelShards(path, shardOptions(options, progress, signal));
  progress.stop();
  // As when it runs: what these two take is part of the plan.
  await loadModelTokenizer(shards);
  const engine = { ...engineOptions(options), contextTokens: options.context };
  using context = await openEngineDevice(engine);
  const { vramBytes } = engine, gpu = deviceMemory(context);
  const isAssumed = gpu === undefined && vramBytes !== undefined && (options.device ?? "auto") === "auto";
  const { plan, flopsPerToken } = planModel(shards, engine, isAssumed ? { freeBytes: vramBytes } : gpu);
  const diskBytesPerSecond = filesExist
    ? await diskCeiling(context, shards, signal)
    : await diskCeilingOf(context, directory, signal);
  const speeds: Speeds = {
    diskBytesPerSecond,
    ...(isAssumed ? ASSUMED_GPU : {
      ...(plan.device ? { busBytesPerSecond: await busCeiling(context) } : {}),
      memoryBytesPerSecond: await memoryCeiling(context),
      flopsPerSecond: await measurePeakFlops(context, options.precision === "fast" ? "fast" : "float32"),
    }),
  };
  const predictedSecondsPerToken = predictSecondsPerToken(plan, speeds, flopsPerToken);
  if (options.json) {
    const { resident: _resident, pinned: _pinned, ...figures } = plan;
    const { fileBytes } = shards;
    printJson({
      ...{ model: path, quantized: filesExist, fileBytes, ...figures, assumedDevice: isAssumed },
      ...{ ...speeds, flopsPerToken, predictedSecondsPerToken },
    });
    return;
  }
  if (!filesExist) printLine(`not quantized yet; will take about ${formatBytes(shards.fileBytes)} in ${directory}`);
  for (const line of planLines(plan)) printLine(line);
  const rate = (bytesPerSecond: number) => `${formatBytes(bytesPerSecond)}/s`;
  const assumed = isAssumed ? "of the GPU assumed: " : "";
  const bus = speeds.busBytesPerSecond === undefined ? "" : `copies to the device ${rate(speeds.busBytesPerSecond)}, `;
  printLine(`disk reads ${rate(diskBytesPerSecond)}, ${assumed}${bus}memory reads ${rate(speeds.memoryBytesPerSecond)}`);
  printLine(`predicted ${formatSeconds(predictedSecondsPerToken)} a token`);
}
