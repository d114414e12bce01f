/**
 * `inspect MODEL`: describes a checkpoint or a shard directory.
 * @module
 */
import type { Command } from "commander";
import { UnsupportedError } from "../../errors.ts";
import { stateShapes } from "../../engine/layer_caches.ts";
import { formatBytes } from "../../memory/bytes.ts";
import { architectureFor } from "../../models/registry.ts";
import { type CheckpointInspection, inspectCheckpoint, inspectShards, type ShardInspection } from "../../shard/inspect.ts";
import { isShardDirectory } from "../../shard/reader.ts";
import { locateModel } from "../../hub/locate.ts";
import { printNotice } from "../engine_options.ts";
import { Interrupt } from "../interrupt.ts";
import { addJsonOption, MODEL_ARGUMENT, revisionOption } from "../options.ts";
import { printJson, printLine, table } from "../output.ts";

interface InspectOptions {
  tensors?: boolean;
  revision?: string;
  json?: boolean;
}

/** Adds the command. */
export function addInspectCommand(root: Command): void {
  addJsonOption(
    root.command("inspect").argument("<model>", MODEL_ARGUMENT)
      .summary("describe a checkpoint or a shard directory")
      .description(
        "Describes a checkpoint or a shard directory: its architecture, its files, and how its tensors are stored. No weights are read, and none of " +
          "a model on the hub are downloaded.",
      )
      .addOption(revisionOption())
      .option("--tensors", "list every tensor"),
  )
    .addHelpText("after", "\nExample:\n  deno run -A mod.ts inspect models/kjv-5m --tensors")
    .action(inspect);
}

async function inspect(model: string, options: InspectOptions): Promise<void> {
  using interrupt = new Interrupt();
  const { revision } = options;
  const { path, snapshot } = await locateModel(model, { revision, onNotice: printNotice, signal: interrupt.signal });
  const found = isShardDirectory(path) ? await inspectShards(path) : await inspectCheckpoint(path, snapshot?.weights);
  if (options.json) {
    printJson(found);
    return;
  }
  const { source, total } = found;
  const kind = found.kind === "shards" ? `shard directory, ${found.compression}` : "checkpoint";
  printLine(`${found.path}: ${kind}`);
  const rows = [
    ["source", `${source.name}, revision ${source.revision}`],
    ["architecture", architectureLine(found.config)],
    ["weights", `${total.weights}, ${total.bitsPerWeight.toFixed(3)} bits each`],
    ["files", `${found.files.length}, ${formatBytes(found.fileBytes)}`],
  ];
  if (found.kind === "shards") rows.push(["made by", found.generator]);
  for (const line of table(rows, "ll")) printLine(line);
  const lines = options.tensors ? tensorLines(found) : found.kind === "shards" ? kindLines(found) : [];
  for (const line of lines) printLine(line);
  if (found.kind === "shards") {
    for (const { name, reason } of found.ignoredTensors) {
      printLine(`  left out ${name}: ${reason}`);
    }
  }
}

/** Returns the model's sizes in a line, or why it cannot be run. */
function architectureLine(config: Record<string, unknown>): string {
  try {
    const { modelType, layers, hiddenSize, numHeads, numKvHeads, vocabSize, contextTokens, ropes } = architectureFor(config)
      .parseConfig(config);
    const recurrent = stateShapes({ layers }).filter((states) => states.length > 0).length;
    const states = recurrent > 0 ? `, ${recurrent} of them with a state` : "";
    return `${modelType}, ${layers.length} layers${states}, hidden ${hiddenSize}, ${numHeads} heads, ${numKvHeads} KV heads, ` +
      `vocabulary ${vocabSize}, context ${contextTokens}, rope ${ropeKinds(ropes)}`;
  } catch (error) {
    if (error instanceof UnsupportedError) return `not supported: ${error.message}`;
    throw error;
  }
}

function ropeKinds(ropes: readonly { scaling: { type: string } }[]): string {
  return ropes.length === 0 ? "none" : [...new Set(ropes.map(({ scaling }) => scaling.type))].join(" and ");
}

function snr(value: number | null): string {
  return value === null ? "-" : value.toFixed(2);
}

function kindLines({ kinds }: ShardInspection): string[] {
  const rows = kinds.map((kind) => [
    kind.kind,
    kind.formats.join(", "),
    `${kind.tensors}`,
    formatBytes(kind.bytes),
    kind.bitsPerWeight.toFixed(3),
    kind.outliersPercent.toFixed(3),
    snr(kind.snrDb),
  ]);
  return table([["tensors", "format", "count", "size", "bits/weight", "outliers %", "SNR dB"], ...rows], "llrrrrr");
}

function tensorLines(found: ShardInspection | CheckpointInspection): string[] {
  if (found.kind === "checkpoint") {
    const rows = found.tensors.map((
      { name, dtype, shape, bytes, file },
    ) => [name, dtype, shape.join(" x "), formatBytes(bytes), file]);
    return table([["tensor", "type", "shape", "size", "file"], ...rows], "llrrl");
  }
  const rows = found.tensors.map((tensor) => [
    tensor.name,
    tensor.format,
    `${tensor.rows} x ${tensor.cols}`,
    formatBytes(tensor.bytes),
    tensor.bitsPerWeight.toFixed(3),
    snr(tensor.snrDb),
    `${tensor.extents}`,
    tensor.file,
  ]);
  return table([["tensor", "format", "shape", "size", "bits/weight", "SNR dB", "extents", "file"], ...rows], "llrrrrrl");
}
