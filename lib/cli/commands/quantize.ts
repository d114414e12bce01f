/**
 * `quantize MODEL_DIR --out DIR`: makes a shard directory of a checkpoint.
 * @module
 */
import { type Command, Option } from "commander";
import { UsageError } from "../../errors.ts";
import { formatBytes } from "../../memory/bytes.ts";
import { defaultCompression } from "../../shard/default_compression.ts";
import type { Compression } from "../../shard/manifest.ts";
import { quantizeCheckpoint } from "../../shard/quantizer.ts";
import { exportTransformersNf4 } from "../../shard/transformers_export.ts";
import type { QuantizeFigures, QuantizeReport } from "../../shard/report.ts";
import { locateModel } from "../../hub/locate.ts";
import { Interrupt } from "../interrupt.ts";
import { printNotice } from "../engine_options.ts";
import { addJsonOption, ramOption, revisionOption, threadsOption } from "../options.ts";
import { formatSeconds, printJson, printLine, table } from "../output.ts";
import { ProgressDisplay } from "../progress.ts";

interface QuantizeCommandOptions {
  out: string;
  format?: Compression;
  layout: "airkern" | "transformers";
  revision?: string;
  deleteOriginal?: boolean;
  threads?: number;
  ram?: number;
  json?: boolean;
}

/** Adds the command. */
export function addQuantizeCommand(root: Command): void {
  const command = root.command("quantize").argument(
    "<model>",
    "directory of a Hugging Face checkpoint, a .gguf file, or organisation/name of a model on the hub, with :Q4_K_M for one of its GGUF files",
  )
    .summary("make a shard directory of a checkpoint")
    .description(
      "Quantizes a checkpoint into a directory of shards, from which every other command runs. Memory stays bounded whatever the size of the " +
        "model. A run that was stopped or killed goes on where it was. A model on the hub is quantized while it is downloaded, one file after the " +
        "other: with --delete-original the disk needs room for the shards and for one file of the model.",
    )
    .requiredOption("--out <dir>", "directory to write")
    .addOption(
      new Option(
        "--format <name>",
        "weights of the linear layers: q4o 4.3 bits, nf4 4.5, q8 8.5, none keeps those of the checkpoint (default: q4o, or none where they are " +
          "quantized already)",
      )
        .choices(["q4o", "nf4", "q8", "none"]),
    )
    .addOption(
      new Option(
        "--layout <name>",
        "what is written: shards for this program, or with --format nf4 a checkpoint for transformers and bitsandbytes",
      )
        .choices(["airkern", "transformers"]).default("airkern"),
    )
    .addOption(revisionOption())
    .option("--delete-original", "remove each weight file once all its tensors are verified in the output")
    .addOption(ramOption())
    .addOption(threadsOption());
  addJsonOption(command)
    .addHelpText(
      "after",
      `
Ends with a report: bits a weight, weights kept apart as outliers, and the signal-to-noise ratio (SNR) of each kind of tensor.

Example:
  deno run -A mod.ts quantize models/kjv-5m --out /tmp/kjv-q4o --format q4o`,
    )
    .action(quantize);
}

async function quantize(model: string, options: QuantizeCommandOptions): Promise<void> {
  using interrupt = new Interrupt();
  using progress = await ProgressDisplay.create();
  const { signal } = interrupt;
  const { path: source, snapshot } = await locateModel(model, {
    ...{ revision: options.revision, onProgress: progress.showBytes, onNotice: printNotice, signal },
  });
  if (options.layout === "transformers") {
    if (options.format !== "nf4") {
      throw new UsageError("Cannot write for transformers without --format nf4, the only format it has");
    }
    const unfit = snapshot !== undefined
      ? "of a model on the hub: pull it first"
      : options.deleteOriginal
      ? "with --delete-original"
      : undefined;
    if (unfit !== undefined) throw new UsageError(`Cannot write for transformers ${unfit}`);
    const report = await exportTransformersNf4({
      source,
      out: options.out,
      threads: options.threads,
      onProgress: progress.showBytes,
      signal,
    });
    progress.stop();
    const { out, files, bytes, quantizedTensors, copiedTensors } = report;
    if (options.json) printJson(report);
    else {printLine(
        `${out}: ${formatBytes(bytes)} in ${files} file(s), ${quantizedTensors} tensors as nf4, ${copiedTensors} as they were`,
      );}
    return;
  }
  const report = await quantizeCheckpoint({
    source,
    supply: snapshot?.weights,
    out: options.out,
    compression: options.format ?? defaultCompression(source, snapshot && snapshot.gguf !== undefined),
    threads: options.threads,
    ramBytes: options.ram,
    deleteOriginal: options.deleteOriginal,
    onProgress: progress.showBytes,
    signal,
  });
  progress.stop();
  if (options.json) printJson(report);
  else for (const line of reportLines(report)) printLine(line);
}

function reportLines(report: QuantizeReport): string[] {
  const row = (name: string, formats: string, figures: QuantizeFigures) => [
    name,
    formats,
    `${figures.tensors}`,
    `${figures.weights}`,
    figures.bitsPerWeight.toFixed(3),
    figures.outliersPercent.toFixed(3),
    figures.snrDb === null ? "-" : figures.snrDb.toFixed(2),
  ];
  const rows = [
    ["tensors", "format", "count", "weights", "bits/weight", "outliers %", "SNR dB"],
    ...report.kinds.map((kind) => row(kind.kind, kind.formats.join(", "), kind)),
    row("all", "", report.total),
  ];
  const state = report.alreadyComplete ? "was quantized before" : `quantized in ${formatSeconds(report.seconds)}`;
  const lines = [`${report.out}: ${report.compression}, ${formatBytes(report.fileBytes)}, ${state}`, ...table(rows, "llrrrrr")];
  if (report.resumedFiles > 0) lines.push(`${report.resumedFiles} files were there from an earlier run`);
  for (const { name, reason } of report.ignoredTensors) lines.push(`left out ${name}: ${reason}`);
  for (const path of report.deletedFiles) lines.push(`removed ${path}`);
  return lines;
}
