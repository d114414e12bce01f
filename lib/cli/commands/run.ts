/**
 * `run MODEL PROMPT`: continues a text.
 * @module
 */
import type { Command } from "commander";
import { Option } from "commander";
import { loadModelTokenizer, openModel, openModelShards } from "../../auto_model.ts";
import { UsageError } from "../../errors.ts";
import type { Generation, GenerationStatistics } from "../../generate/generation.ts";
import { DEFAULT_MAX_NEW_TOKENS, type Model } from "../../generate/model.ts";
import { longestContextTokens, usefulPassTokens } from "../../engine/model_plan.ts";
import { formatBytes } from "../../memory/bytes.ts";
import { residentSet } from "../../memory/budget.ts";
import { architectureFor } from "../../models/registry.ts";
import { addChatOptions, type ChatOptions, chatPrompt, checkChatOptions } from "../chat_options.ts";
import { engineOptions } from "../engine_options.ts";
import { expertRunFigures, expertStatisticsRows } from "../expert_lines.ts";
import { Interrupt } from "../interrupt.ts";
import {
  addComputeOptions,
  addJsonOption,
  addShardOptions,
  MODEL_ARGUMENT,
  numberIn,
  type OpenOptions,
  ramOption,
  shardOptions,
  wholeNumber,
} from "../options.ts";
import { formatSeconds, printError, printJson, printLine, table, writeOut } from "../output.ts";
import { planFigures, planLines } from "../plan_lines.ts";
import { ProgressDisplay } from "../progress.ts";

interface RunOptions extends OpenOptions, ChatOptions {
  maxTokens: number;
  context?: number;
  temperature?: number;
  topK?: number;
  topP?: number;
  minP?: number;
  repetitionPenalty?: number;
  seed?: number;
  stop?: string[];
  stats?: boolean;
  json?: boolean;
}

/** Adds the command. */
export function addRunCommand(root: Command): void {
  const command = addChatOptions(root.command("run")).argument("<model>", MODEL_ARGUMENT).argument(
    "[prompt]",
    "text to continue; may be left out with --messages only",
  )
    .summary("continue a text")
    .description(
      "Continues a text, or with --chat answers it. The new text, without the prompt, streams to stdout as it is generated.",
    )
    .addOption(
      new Option("--max-tokens <n>", "most tokens to generate").argParser(wholeNumber(1)).default(DEFAULT_MAX_NEW_TOKENS),
    )
    .addOption(
      new Option("--context <n>", "tokens that the context holds, prompt included (default: prompt and --max-tokens)")
        .argParser(wholeNumber(1)),
    )
    .addOption(ramOption())
    .addOption(
      new Option(
        "--temperature <x>",
        "0: the likeliest token each time; above: random draws (default: 1 with --top-k, --top-p or --min-p, else 0)",
      )
        .argParser(numberIn(0, Infinity)),
    )
    .addOption(new Option("--top-k <n>", "draw only from the n likeliest tokens; 0 for all").argParser(wholeNumber(0)))
    .addOption(
      new Option("--top-p <x>", "draw only from the likeliest tokens that together have this probability").argParser(
        numberIn(0, 1),
      ),
    )
    .addOption(
      new Option("--min-p <x>", "draw only from tokens at least x times as likely as the likeliest").argParser(numberIn(0, 1)),
    )
    .addOption(
      new Option("--repetition-penalty <x>", "above 1: make tokens that were there before less likely")
        .argParser(numberIn(0, Infinity, false)),
    )
    .addOption(new Option("--seed <n>", "make random draws repeatable (default: a random seed)").argParser(wholeNumber(0)))
    .addOption(
      new Option("--stop <text>", "end before this text; may be given several times")
        .argParser((text: string, earlier: string[] = []) => [...earlier, text]),
    );
  addJsonOption(
    addComputeOptions(addShardOptions(command)).option("--stats", "print the plan and the figures to stderr"),
  )
    .addHelpText(
      "after",
      `
Special tokens written in the prompt, such as <|eot_id|>, are ordinary text, also with --chat. Ctrl-C stops; the text so far stays.
--json prints text, promptTokens, generatedTokens, finishReason (stop, length, context, cancelled), passes, ttftSeconds,
secondsPerToken (decode), bytesRead (whole run), readBytesPerSecond (decode), peakRssBytes, peakVramBytes and the plan; of a model with routed
experts also their plan, and how many were used, found in memory and foreseen.

Examples:
  deno run -A mod.ts run models/kjv-5m "In the beginning" --max-tokens 40
  deno run -A mod.ts run /data/405b "Hello" --ram 8GiB --max-tokens 2 --stats
  deno run -A mod.ts run Qwen/Qwen2.5-0.5B-Instruct "What is the capital of France?" --chat
  deno run -A mod.ts run Qwen/Qwen3-8B "And in Rome?" --chat --messages so-far.json --tools tools.json --template-variable enable_thinking=false
  deno run -A mod.ts run models/kjv-5m "And" --temperature 0.7 --top-p 0.9 --seed 7 --stop "." --json`,
    )
    .action(run);
}

/** What the text ended with, a cancelled one included. */
function finishReason(generation: Generation): string {
  return generation.finishReason ?? "cancelled";
}

async function run(path: string, prompt: string | undefined, options: RunOptions): Promise<void> {
  checkChatOptions(options);
  if (prompt === undefined && options.messages === undefined) throw new UsageError("missing required argument 'prompt'");
  if (prompt === "") throw new UsageError("Cannot continue an empty prompt: required at least one character");
  using interrupt = new Interrupt();
  const { signal } = interrupt;
  using progress = await ProgressDisplay.create();
  const onProgress = progress.showBytes;
  const { maxTokens: maxNewTokens } = options;
  const shards = await openModelShards(path, shardOptions(options, progress, signal));
  const tokenizer = await loadModelTokenizer(shards);
  const promptIds = options.chat ? await chatPrompt(tokenizer, prompt, options) : tokenizer.encode(prompt!);
  // No more than the model was made for: there the text ends for want of context.
  const config = architectureFor(shards.manifest.config).parseConfig(shards.manifest.config);
  const contextTokens = options.context ?? Math.min(promptIds.length + maxNewTokens, longestContextTokens(config));
  await using model = await openModel(shards, tokenizer, {
    ...engineOptions(options),
    contextTokens,
    maxSequences: 1,
    // A short prompt needs no room for a long one.
    passTokens: usefulPassTokens(config, promptIds.length),
    onProgress,
    signal,
  });
  progress.stop();
  const { temperature, topK, topP, minP, repetitionPenalty, seed, stop } = options;
  const generation = model.submit(promptIds, {
    ...{ maxNewTokens, temperature, topK, topP, minP, repetitionPenalty, seed, stop, signal },
  });
  try {
    for await (const { text } of generation) if (!options.json) writeOut(text);
  } finally {
    if (options.json) printJson(results(generation, model));
    else printLine("");
    if (options.stats) printStatistics(generation, model);
  }
}

/** Returns the bytes read a second over decode; 0 where nothing was decoded. */
function readBytesPerSecond({ decodeBytesRead, decodeSeconds }: GenerationStatistics): number {
  return decodeSeconds > 0 ? decodeBytesRead / decodeSeconds : 0;
}

function results(generation: Generation, model: Model): Record<string, unknown> {
  const { statistics } = generation;
  return {
    text: generation.text,
    promptTokens: statistics.promptTokens,
    generatedTokens: statistics.generatedTokens,
    finishReason: finishReason(generation),
    passes: statistics.passes,
    ttftSeconds: statistics.ttftSeconds,
    secondsPerToken: statistics.secondsPerToken,
    bytesRead: model.statistics.bytesRead,
    readBytesPerSecond: readBytesPerSecond(statistics),
    peakRssBytes: residentSet().peakBytes,
    peakVramBytes: model.statistics.peakVramBytes,
    plan: planFigures(model.plan),
    ...expertRunFigures(model.plan, model.statistics),
  };
}

function printStatistics(generation: Generation, model: Model): void {
  const { statistics } = generation;
  const { ttftSeconds, secondsPerToken, decodeBytesRead } = statistics;
  const seconds = (value: number | null) => value === null ? "-" : formatSeconds(value);
  const rate = secondsPerToken ? `${(1 / secondsPerToken).toPrecision(3)} tokens/s` : "";
  const lines = [
    ...planLines(model.plan),
    "statistics",
    ...table([
      ["prompt", `${statistics.promptTokens} tokens`, ""],
      ["generated", `${statistics.generatedTokens} tokens`, `ended by: ${finishReason(generation)}`],
      ["passes", `${statistics.passes}`, ""],
      ["time to first token", seconds(ttftSeconds), ""],
      ["time a token", seconds(secondsPerToken), rate],
      ["read in all", formatBytes(model.statistics.bytesRead), ""],
      ["read while decoding", formatBytes(decodeBytesRead), `${formatBytes(readBytesPerSecond(statistics))}/s`],
      ...expertStatisticsRows(model.statistics),
      ["peak resident set", formatBytes(residentSet().peakBytes), ""],
      ...(model.plan.device ? [["peak device memory", formatBytes(model.statistics.peakVramBytes), model.device.name]] : []),
    ], "lrl"),
  ];
  for (const line of lines) printError(line);
}
