/**
 * `verify DIR`: rereads a shard directory against its hashes.
 * @module
 */
import type { Command } from "commander";
import { FormatError } from "../../errors.ts";
import { formatBytes } from "../../memory/bytes.ts";
import { verifyShards } from "../../shard/verify.ts";
import { Interrupt } from "../interrupt.ts";
import { addJsonOption } from "../options.ts";
import { formatSeconds, printJson, printLine } from "../output.ts";
import { ProgressDisplay } from "../progress.ts";

/** Adds the command. */
export function addVerifyCommand(root: Command): void {
  addJsonOption(
    root.command("verify").argument("<dir>", "shard directory")
      .summary("reread a shard directory against its hashes")
      .description(
        "Rereads every byte of a shard directory against its hashes, and names each damaged extent. Exit code 1 where there is one.",
      ),
  )
    .addHelpText("after", "\nExample:\n  deno run -A mod.ts verify /tmp/kjv-q4o")
    .action(verify);
}

async function verify(path: string, options: { json?: boolean }): Promise<void> {
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
