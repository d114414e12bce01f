/**
 * `bench MODEL`: measures a model against the ceilings of this machine.
 * @module
 */
import { type Command, Option } from "commander";
import { loadModelTokenizer, openModel, openModelShards } from "../../auto_model.ts";
import { measurePeakFlops } from "../../ffi/measure.ts";
import { openEngineDevice } from "../../engine/device_memory.ts";
import type { GenerationStatistics } from "../../generate/generation.ts";
import { Random } from "../../generate/random.ts";
import { residentSet } from "../../memory/budget.ts";
import { formatBytes } from "../../memory/bytes.ts";
import { architectureFor } from "../../models/registry.ts";
import type { ShardDirectory } from "../../shard/reader.ts";
import { busCeiling, diskCeiling, memoryCeiling } from "../ceilings.ts";
import { engineOptions } from "../engine_options.ts";
import { layerWeightsPerToken } from "../../engine/token_products.ts";
import { expertRunFigures } from "../expert_lines.ts";
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
import { formatSeconds, printJson, printLine, table } from "../output.ts";
import { ProgressDisplay } from "../progress.ts";

interface BenchOptions extends OpenOptions {
  promptTokens: number;
  maxTokens: number;
  rounds: number;
  json?: boolean;
}

/** Adds the command. */
export function addBenchCommand(root: Command): void {
  const command = root.command("bench").argument("<model>", MODEL_ARGUMENT)
    .summary("measure a model against the machine's ceilings")
    .description(
      "Measures prefill and decode, and what share of the disk's and the memory's ceiling they reach. The disk, and the memory of a model " +
        "that is in it, are measured before and after each round, since both drift; shown is the round of median share among those whose " +
        "ceiling was the same before and after, within 10%.",
    )
    .addOption(ramOption())
    .addOption(new Option("--prompt-tokens <n>", "tokens of the prompt").argParser(wholeNumber(1)).default(512))
    .addOption(new Option("--max-tokens <n>", "tokens to generate").argParser(wholeNumber(2)).default(16))
    .addOption(new Option("--rounds <n>", "times to measure").argParser(wholeNumber(1)).default(1));
  addJsonOption(addComputeOptions(addShardOptions(command)))
    .addHelpText("after", "\nExample:\n  deno run -A mod.ts bench /data/7b --ram 1GiB")
    .action(bench);
}

async function bench(path: string, options: BenchOptions): Promise<void> {
  using interrupt = new Interrupt();
  const { signal } = interrupt;
  using progress = await ProgressDisplay.create();
  const onProgress = progress.showBytes;
  const { promptTokens, maxTokens } = options;
  const shards = await openModelShards(path, shardOptions(options, progress, signal));
  progress.stop();
  // Told of once, where it is measured, not again where the model is opened.
  using context = await openEngineDevice(engineOptions(options));
  const { plan, peakVramBytes, rounds, experts } = await measureRounds();
  const { peakBytes } = residentSet();
  // Of a model that streams last, since it takes memory that the model was promised.
  const memoryAtEnd = rounds[0].memoryBefore === undefined ? await memoryCeiling(context) : undefined;
  const busBytesPerSecond = plan.device ? await busCeiling(context) : undefined;
  const peakFlopsPerSecond = await measurePeakFlops(context, options.precision === "fast" ? "fast" : "float32");

  const passBytes = plan.residentBytes + plan.pinnedBytes + plan.streamedBytesPerPass + (plan.experts?.activeBytesPerToken ?? 0);
  const share = (round: Round) => round.readBytesPerSecond / ((round.diskBefore + round.diskAfter) / 2);
  const memoryOf = ({ memoryBefore, memoryAfter }: Round) => memoryAtEnd ?? (memoryBefore! + memoryAfter!) / 2;
  const memoryShare = (round: Round) => passBytes / round.statistics.secondsPerToken! / memoryOf(round);
  const [shown, isSteady] = memoryAtEnd === undefined
    ? [memoryShare, (round: Round) => near(round.memoryBefore!, round.memoryAfter!)]
    : [share, (round: Round) => near(round.diskBefore, round.diskAfter)];
  rounds.sort((a, b) => shown(a) - shown(b));
  const steady = rounds.filter(isSteady), compared = steady.length > 0 ? steady : rounds;
  const median = compared[Math.floor(compared.length / 2)];
  const memoryBytesPerSecond = memoryOf(median);
  const { diskBefore, diskAfter, readBytesPerSecond, statistics } = median;
  const { ttftSeconds, secondsPerToken } = statistics;
  // Half way through the tokens; the whole cache is of the whole context.
  const cachedBytesPerPass = plan.kvCacheBytes * (promptTokens + statistics.generatedTokens / 2) / (promptTokens + maxTokens);
  const copiedBytesPerSecond = (plan.pinnedBytes + plan.streamedBytesPerPass) / secondsPerToken!;
  const weightBytesPerSecond = passBytes / secondsPerToken!;
  const figures = {
    promptTokens,
    generatedTokens: statistics.generatedTokens,
    prefillSeconds: ttftSeconds!,
    prefillTokensPerSecond: promptTokens / ttftSeconds!,
    prefillFlopsPerSecond: prefillFlops(shards, promptTokens) / ttftSeconds!,
    peakFlopsPerSecond,
    secondsPerToken: secondsPerToken!,
    weightBytesPerPass: passBytes,
    streamedBytesPerPass: plan.streamedBytesPerPass,
    readBytesPerSecond,
    diskBytesPerSecondBefore: diskBefore,
    diskBytesPerSecondAfter: diskAfter,
    diskShare: share(median),
    diskShares: rounds.map(share),
    weightBytesPerSecond,
    memoryBytesPerSecond,
    memoryShare: memoryShare(median),
    memoryShares: rounds.map(memoryShare),
    steadyRounds: rounds.map(isSteady),
    cachedBytesPerPass,
    memoryShareWithCache: (passBytes + cachedBytesPerPass) / secondsPerToken! / memoryBytesPerSecond,
    ...(busBytesPerSecond === undefined ? {} : {
      copiedBytesPerPass: plan.pinnedBytes + plan.streamedBytesPerPass,
      busBytesPerSecond,
      busShare: copiedBytesPerSecond / busBytesPerSecond,
    }),
    peakRssBytes: peakBytes,
    peakVramBytes,
    ...experts && { experts },
  };
  if (options.json) printJson({ model: path, ...figures });
  else for (const line of lines(figures)) printLine(line);

  async function measureRounds() {
    const tokenizer = await loadModelTokenizer(shards);
    await using model = await openModel(shards, tokenizer, {
      ...engineOptions(options),
      onNotice: undefined,
      contextTokens: promptTokens + maxTokens,
      maxSequences: 1,
      passTokens: promptTokens,
      onProgress,
      signal,
    });
    progress.stop();
    // Any tokens will do: what they are changes nothing about the time.
    const random = new Random(0);
    const promptIds = Array.from({ length: promptTokens }, () => random.uint32() % tokenizer.vocabSize);
    const rounds: Round[] = [];
    const inMemory = model.plan.streamedBytesPerPass === 0 && !model.plan.device && options.ram === undefined;
    const measureMemory = async () => inMemory ? await memoryCeiling(context) : undefined;
    let diskBefore = await diskCeiling(context, shards, signal), memoryBefore = await measureMemory();
    for (let round = 0; round < options.rounds; round++) {
      const { statistics } = await model.submit(promptIds, { maxNewTokens: maxTokens, eosTokenId: [], signal }).done;
      const memoryAfter = await measureMemory();
      const diskAfter = await diskCeiling(context, shards, signal);
      const readBytesPerSecond = statistics.decodeBytesRead / statistics.decodeSeconds;
      rounds.push({ diskBefore, diskAfter, memoryBefore, memoryAfter, readBytesPerSecond, statistics });
      [diskBefore, memoryBefore] = [diskAfter, memoryAfter];
    }
    const { peakVramBytes } = model.statistics;
    return { plan: model.plan, peakVramBytes, rounds, ...expertRunFigures(model.plan, model.statistics) };
  }
}

/** One generation, and what the disk and the memory gave just before and after it. */
interface Round {
  diskBefore: number;
  diskAfter: number;
  /** Undefined where the model streams or a budget was given. */
  memoryBefore?: number;
  memoryAfter?: number;
  readBytesPerSecond: number;
  statistics: GenerationStatistics;
}

/** Whether two measurements of a ceiling agree, so that what ran between them can be compared with it. */
function near(before: number, after: number): boolean {
  return Math.abs(before - after) <= 0.1 * Math.max(before, after);
}

/** Returns the multiplications and additions of a prompt's matrix products: two a weight and token, the LM head's for one token. */
function prefillFlops(shards: ShardDirectory, tokens: number): number {
  const architecture = architectureFor(shards.manifest.config);
  const config = architecture.parseConfig(shards.manifest.config);
  const tensors = architecture.tensors(config), head = shards.tensor(tensors.headName);
  return 2 * tokens * layerWeightsPerToken(config, tensors) + 2 * head.rows * head.cols;
}

/** Figures of a benchmark. */
interface Figures {
  promptTokens: number;
  generatedTokens: number;
  prefillSeconds: number;
  prefillTokensPerSecond: number;
  /** Of the matrix products alone; attention comes on top. */
  prefillFlopsPerSecond: number;
  /** Of the instruction that the matrix products of many tokens use. */
  peakFlopsPerSecond: number;
  secondsPerToken: number;
  weightBytesPerPass: number;
  streamedBytesPerPass: number;
  readBytesPerSecond: number;
  diskBytesPerSecondBefore: number;
  diskBytesPerSecondAfter: number;
  diskShare: number;
  /** Of each round, ascending. */
  diskShares: number[];
  weightBytesPerSecond: number;
  memoryBytesPerSecond: number;
  memoryShare: number;
  /** Of each round, in the order of the rounds' shares. */
  memoryShares: number[];
  /** Whether the ceiling was the same before and after, in the same order. */
  steadyRounds: boolean[];
  /** Keys and values that a token half way through the generated ones attends to, and the share when they count as well. */
  cachedBytesPerPass: number;
  memoryShareWithCache: number;
  /** On a device with memory of its own, what is copied to it, what the bus could, and the share of that. */
  copiedBytesPerPass?: number;
  busBytesPerSecond?: number;
  busShare?: number;
  peakRssBytes: number;
  peakVramBytes: number;
  experts?: ReturnType<typeof expertRunFigures>["experts"];
}

function lines(figures: Figures): string[] {
  const percent = (share: number, of: string) => `${(100 * share).toFixed(1)}% of ${of}`;
  const rate = (bytesPerSecond: number) => `${formatBytes(bytesPerSecond)}/s`;
  return table([
    [
      "prefill",
      formatSeconds(figures.prefillSeconds),
      `${figures.prefillTokensPerSecond.toPrecision(3)} tokens/s of ${figures.promptTokens}`,
    ],
    [
      "prefill, matrix products",
      `${(figures.prefillFlopsPerSecond / 1e9).toFixed(0)} GFLOP/s`,
      percent(
        figures.prefillFlopsPerSecond / figures.peakFlopsPerSecond,
        `${(figures.peakFlopsPerSecond / 1e9).toFixed(0)} GFLOP/s peak`,
      ),
    ],
    ["decode, a token", formatSeconds(figures.secondsPerToken), `${(1 / figures.secondsPerToken).toPrecision(3)} tokens/s`],
    ["weights a pass", formatBytes(figures.weightBytesPerPass), `${formatBytes(figures.streamedBytesPerPass)} of them streamed`],
    ["weights while decoding", rate(figures.weightBytesPerSecond), percent(figures.memoryShare, "memory reads")],
    [
      "with the KV cache",
      `${formatBytes(figures.cachedBytesPerPass)} a pass`,
      percent(figures.memoryShareWithCache, "memory reads"),
    ],
    ...figures.experts
      ? [[
        "experts while decoding",
        `${figures.experts.decode.used} used`,
        percent(
          figures.experts.decode.hitRate,
          `their bytes found in memory, ${percent(figures.experts.decode.predictionRate, "them foreseen")}`,
        ),
      ]]
      : [],
    ["disk while decoding", rate(figures.readBytesPerSecond), percent(figures.diskShare, "bare direct reads")],
    ...(figures.busBytesPerSecond === undefined ? [] : [
      [
        "copied while decoding",
        rate(figures.busShare! * figures.busBytesPerSecond),
        percent(figures.busShare!, `bare copies, ${formatBytes(figures.copiedBytesPerPass!)} a pass`),
      ],
    ]),
    ["memory reads", rate(figures.memoryBytesPerSecond), ""],
    [
      "rounds",
      `${figures.steadyRounds.filter(Boolean).length} of ${figures.steadyRounds.length}`,
      "with the same ceiling before and after",
    ],
    ["disk before, after", rate(figures.diskBytesPerSecondBefore), rate(figures.diskBytesPerSecondAfter)],
    ["peak resident set", formatBytes(figures.peakRssBytes), "disk measurements included"],
    ...(figures.busBytesPerSecond === undefined ? [] : [["peak device memory", formatBytes(figures.peakVramBytes), ""]]),
  ], "lrl");
}
