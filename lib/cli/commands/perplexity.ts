/**
 * `perplexity MODEL FILE`: measures how well a model predicts a text.
 * @module
 */
import { readFile } from "node:fs/promises";
import { type Command, Option } from "commander";
import { loadModelTokenizer, openModelShards } from "../../auto_model.ts";
import { Engine, type EngineOptions } from "../../engine/engine.ts";
import { FormatError, UsageError } from "../../errors.ts";
import { comparePerplexity, perplexity, type PerplexityComparison } from "../../generate/perplexity.ts";
import { architectureFor } from "../../models/registry.ts";
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
import { printJson, printLine, table } from "../output.ts";
import { ProgressDisplay } from "../progress.ts";

/** Window of models with a longer context: long enough that a longer one changes little, short enough to be measured soon. */
const DEFAULT_WINDOW_TOKENS = 512;

/** Memory for the logits of a pass: each row has a vocabulary's worth of them. */
const LOGITS_BYTES = 64 * 1024 * 1024;

interface PerplexityCommandOptions extends OpenOptions {
  against?: string;
  window?: number;
  json?: boolean;
}

/** Adds the command. */
export function addPerplexityCommand(root: Command): void {
  const command = root.command("perplexity").argument("<model>", MODEL_ARGUMENT)
    .argument("<file>", "text file, UTF-8")
    .summary("measure how well a model predicts a text")
    .description(
      "Measures a model's perplexity on a text: it is cut into windows, each read behind one BOS token (where the tokenizer has none, as Qwen's, " +
        "the last of the tokens that end a text), and every token is predicted once.",
    )
    .option(
      "--against <model>",
      "a reference, such as the unquantized model: adds KL divergence (nats a token) and top-1 agreement",
    )
    .addOption(
      new Option(
        "--window <n>",
        `tokens of a window, BOS included (default: the model's context, ${DEFAULT_WINDOW_TOKENS} at most)`,
      )
        .argParser(wholeNumber(2)),
    )
    .addOption(ramOption());
  addJsonOption(addComputeOptions(addShardOptions(command)))
    .addHelpText(
      "after",
      `
--ram and --vram hold for each model; with --against there are two of them.

Example:
  deno run -A mod.ts perplexity /tmp/kjv-q4o models/kjv-5m/heldout.txt --against /tmp/kjv-none`,
    )
    .action(measure);
}

async function measure(path: string, file: string, options: PerplexityCommandOptions): Promise<void> {
  let text: string;
  try {
    text = await readFile(file, "utf8");
  } catch (error) {
    const missing = (error as { code?: string }).code === "ENOENT";
    throw new FormatError(`Cannot read the text ${file}: ${missing ? "no such file" : (error as Error).message}`);
  }
  using interrupt = new Interrupt();
  const { signal } = interrupt;
  using progress = await ProgressDisplay.create();
  const onProgress = progress.showBytes;
  const { threads } = options;
  const shards = await openModelShards(path, shardOptions(options, progress, signal));
  const tokenizer = await loadModelTokenizer(shards);
  const tokenIds = tokenizer.encode(text, { addSpecialTokens: false });
  const bosTokenId = tokenizer.bosTokenId ?? tokenizer.eosTokenIds.at(-1);
  if (bosTokenId === undefined) {
    throw new UsageError(`Cannot measure perplexity: the tokenizer of ${path} names no BOS token and none that ends a text`);
  }

  const { contextTokens, vocabSize } = architectureFor(shards.manifest.config).parseConfig(shards.manifest.config);
  const windowTokens = options.window ?? Math.min(contextTokens, DEFAULT_WINDOW_TOKENS);
  const logitRows = Math.min(windowTokens, Math.max(1, Math.floor(LOGITS_BYTES / (4 * vocabSize))));
  const scoringOptions: EngineOptions = {
    ...engineOptions(options),
    contextTokens: windowTokens,
    maxSequences: 1,
    passTokens: logitRows,
    logitRows,
    onProgress,
    signal,
  };
  await using engine = await Engine.open(shards, scoringOptions);
  const scoring = {
    tokenIds,
    bosTokenId,
    windowTokens,
    logitRows,
    signal,
    onProgress: ({ doneTokens, totalTokens }: { doneTokens: number; totalTokens: number }) =>
      progress.show({ phase: "Measuring", done: doneTokens, total: totalTokens, unit: "tokens" }),
  };
  if (options.against === undefined) {
    const result = await perplexity(engine, scoring);
    progress.stop();
    if (options.json) printJson({ model: path, ...result });
    else printLine(`perplexity ${result.perplexity.toFixed(4)} over ${result.predictedTokens} tokens, window ${windowTokens}`);
    return;
  }
  // Its format is its own, and so is its revision; what was asked to be removed is the model's.
  const referenceShards = await openModelShards(options.against, {
    ...shardOptions({ shards: options.shards, threads, ram: options.ram }, progress, signal),
  });
  const referenceIds = (await loadModelTokenizer(referenceShards)).encode(text, { addSpecialTokens: false });
  if (referenceIds.length !== tokenIds.length || referenceIds.some((id, i) => id !== tokenIds[i])) {
    throw new UsageError(`Cannot compare ${path} with ${options.against}: their tokenizers split the text differently`);
  }
  await using reference = await Engine.open(referenceShards, { ...scoringOptions, onNotice: undefined });
  const comparison = await comparePerplexity(engine, reference, scoring);
  progress.stop();
  if (options.json) printJson({ model: path, against: options.against, ...comparison });
  else for (const line of comparisonLines(path, options.against, comparison)) printLine(line);
}

function comparisonLines(path: string, against: string, result: PerplexityComparison): string[] {
  const increase = 100 * (result.perplexity / result.reference.perplexity - 1);
  return [
    `${path} against ${against}, ${result.predictedTokens} tokens, window ${result.windowTokens}`,
    ...table([
      ["perplexity", result.perplexity.toFixed(4)],
      ["perplexity of the reference", result.reference.perplexity.toFixed(4)],
      ["increase %", increase.toFixed(3)],
      ["KL divergence, nats a token", result.klDivergence.toFixed(6)],
      ["top-1 agreement %", (100 * result.topOneAgreement).toFixed(2)],
    ], "lr"),
  ];
}
