/**
 * `verify MODEL`: rereads a shard directory, or the shards of a model, against their hashes.
 * @module
 */
import type { Command } from "commander";
import { findModelShards } from "../../auto_model.ts";
import { FormatError } from "../../errors.ts";
import { formatBytes } from "../../memory/bytes.ts";
import type { Compression } from "../../shard/manifest.ts";
import { verifyShards } from "../../shard/verify.ts";
import { printNotice } from "../engine_options.ts";
import { Interrupt } from "../interrupt.ts";
import { addJsonOption, formatOption, MODEL_ARGUMENT, revisionOption, shardsOption } from "../options.ts";
import { formatSeconds, printJson, printLine } from "../output.ts";
import { ProgressDisplay } from "../progress.ts";

/** Adds the command. */
export function addVerifyCommand(root: Command): void {
  addJsonOption(
    root.command("verify").argument("<model>", MODEL_ARGUMENT)
      .summary("reread a model's shards against their hashes")
      .description(
        "Rereads every byte of a shard directory, or of the shards that were made of a model, against its hashes, and names each damaged extent. " +
          "Exit code 1 where there is one. Nothing is downloaded.",
      )
      .addOption(formatOption())
      .addOption(shardsOption())
      .addOption(revisionOption()),
  )
    .addHelpText("after", "\nExample:\n  deno run -A mod.ts verify /tmp/kjv-q4o")
    .action(verify);
}

interface VerifyOptions {
  format?: Compression;
  shards?: string;
  revision?: string;
  json?: boolean;
}

async function verify(model: string, options: VerifyOptions): Promise<void> {
  const { format: compression, shards: layerShardsPath, revision } = options;
  const path = await findModelShards(model, { compression, layerShardsPath, revision, onNotice: printNotice });
  using interrupt = new Interrupt();
  using progress = await ProgressDisplay.create();
  const report = await verifyShards(path, { onProgress: progress.showBytes, signal: interrupt.signal });
  progress.stop();
  const { files, extents, bytes, seconds, damages } = report;
  if (options.json) printJson(report);
  else {
    for (const { message } of damages) printLine(message);
    const amounts = `${extents} extents in ${files} files, ${formatBytes(bytes)}`;
    if (damages.length === 0) printLine(`${path}: whole, ${amounts}, read in ${formatSeconds(seconds)}`);
  }
  if (damages.length > 0) {
    throw new FormatError(
      `Cannot vouch for ${path}: ${damages.length} of ${extents} extents or files are damaged; quantize it again`,
    );
  }
}
