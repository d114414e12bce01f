/**
 * `pull MODEL`: downloads a model of the hub into the Hugging Face cache.
 * @module
 */
import fs from "node:fs";
import { join } from "node:path";
import { type Command, Option } from "commander";
import { openModelShards } from "../../auto_model.ts";
import { UsageError } from "../../errors.ts";
import { parseModelName } from "../../hub/model_id.ts";
import { openSnapshot } from "../../hub/snapshot.ts";
import { formatBytes } from "../../memory/bytes.ts";
import { printNotice } from "../engine_options.ts";
import { Interrupt } from "../interrupt.ts";
import { addJsonOption, revisionOption, type ShardCommandOptions, shardOptions, threadsOption } from "../options.ts";
import { printJson, printLine } from "../output.ts";
import { ProgressDisplay } from "../progress.ts";

interface PullOptions extends ShardCommandOptions {
  json?: boolean;
}

/** Adds the command. */
export function addPullCommand(root: Command): void {
  const command = root.command("pull").argument(
    "<id>",
    "organisation/name of a model on the hub, with :Q4_K_M or :FILE.gguf for one of its GGUF files",
  )
    .summary("download a model of the hub")
    .description(
      "Downloads what is needed of a model on the hub into the Hugging Face cache that Python tools use too: config, tokenizer and safetensors, or one GGUF file. What is " +
        "there is not downloaded again, and a download that was cut goes on where it was. With --format the model is quantized while it comes.",
    )
    .addOption(revisionOption())
    .addOption(
      new Option("--format <name>", "quantize to this format, one file after the other (default: only download)")
        .choices(["q4o", "nf4", "q8", "none"]),
    )
    .option("--shards <dir>", "directory for the shards (default: within the cache, beside the model's files)")
    .option("--delete-original", "with --format: remove each file once it is quantized and the result was reread")
    .addOption(threadsOption());
  addJsonOption(command)
    .addHelpText(
      "after",
      `
HF_TOKEN or the login of \`hf auth login\` opens private and gated models. HF_HOME, HF_HUB_CACHE, HF_ENDPOINT and HF_HUB_OFFLINE mean what they
mean to Python tools. Prints the directory of the model.

Examples:
  deno run -A mod.ts pull Qwen/Qwen2.5-7B-Instruct
  deno run -A mod.ts pull bartowski/Qwen2.5-7B-Instruct-GGUF:Q4_K_M
  deno run -A mod.ts pull meta-llama/Llama-3.1-405B-Instruct --format q4o --delete-original`,
    )
    .action(pull);
}

async function pull(id: string, options: PullOptions): Promise<void> {
  const { format, revision } = options;
  const name = parseModelName(id);
  if (name === undefined) {
    throw new UsageError(`Cannot pull ${JSON.stringify(id)}: required is organisation/name of a model on the hub`);
  }
  if (fs.existsSync(id)) {
    throw new UsageError(`Cannot pull ${id}: there is a directory of that name here, which every command takes instead`);
  }
  const unused = (["deleteOriginal", "shards", "threads"] as const).find((name) => options[name] !== undefined);
  if (format === undefined && unused !== undefined) {
    const option = unused === "deleteOriginal" ? "delete-original" : unused;
    throw new UsageError(`Cannot pull ${id} with --${option}: it needs --format beside it`);
  }
  using interrupt = new Interrupt();
  using progress = await ProgressDisplay.create();
  const { signal } = interrupt;
  if (format !== undefined) {
    const { path, fileBytes } = await openModelShards(id, shardOptions(options, progress, signal));
    progress.stop();
    if (options.json) printJson({ id, path, format, fileBytes });
    else printLine(path);
    return;
  }
  const snapshot = await openSnapshot(name.id, {
    revision,
    gguf: name.gguf,
    onProgress: progress.showBytes,
    onNotice: printNotice,
    signal,
  });
  await snapshot.weights.pull();
  progress.stop();
  const { path, commit, weights } = snapshot;
  const fileBytes = weights.names.reduce((sum, name) => sum + fs.statSync(join(path, name)).size, 0);
  if (options.json) printJson({ id, revision: commit, path, weightFiles: weights.names, fileBytes });
  else {printLine(
      `${path}: ${formatBytes(fileBytes)} of weights in ${weights.names.length} file${weights.names.length > 1 ? "s" : ""}`,
    );}
}
