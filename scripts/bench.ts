/**
 * Measures AirKern against ceilings of the same run and prints the rows of BENCHMARKS.md: `deno task bench [SECTION...]`.
 *
 * Each measurement is a process of its own, one after the other. Absolute figures drift with the machine; the ratios are what counts.
 */
import { Argument, Command, Option } from "commander";
import fs from "node:fs";
import { join } from "node:path";
import { AirkernError } from "../lib/errors.ts";
import { formatBytes } from "../lib/memory/bytes.ts";
import { airkern, type Json, percent, printRows, rate, type Row, script } from "./bench/process.ts";
import { syntheticModel } from "./bench/synthetic_model.ts";
import { SHAPES } from "./synthesize/shapes.ts";

const SHIPPED_MODEL = "models/kjv-5m";

interface Section {
  says: string;
  run: (models: string) => Promise<Row[]>;
  /** Left out unless it is named: too long or too large for every day. */
  onlyByName?: boolean;
}

/** Returns the directory of a synthetic model of a published shape. */
const synthetic = (models: string, shape: string, linkLayers: boolean): Promise<string> =>
  syntheticModel(models, shape, SHAPES[shape], linkLayers);

/** The rows that every run of `bench` gives, for a model that streams. */
function streamRows(what: string, figures: Json): Row[] {
  const ceiling = (figures.diskBytesPerSecondBefore + figures.diskBytesPerSecondAfter) / 2;
  return [
    { what: `${what}: seconds a token`, figure: figures.secondsPerToken.toFixed(3) },
    { what: `${what}: weights read a pass`, figure: formatBytes(figures.streamedBytesPerPass) },
    {
      what: `${what}: disk during decode`,
      figure: rate(figures.readBytesPerSecond),
      ceiling: `${rate(ceiling)} bare direct reads before and after`,
      share: `${percent(figures.diskShare)} ${roundShares(figures.diskShares, figures.steadyRounds)}`,
    },
    { what: `${what}: peak resident set`, figure: formatBytes(figures.peakRssBytes) },
  ];
}

/** Returns the shares of all rounds; in brackets those whose ceiling changed meanwhile, which do not count. */
function roundShares(shares: number[], steady: boolean[]): string {
  return `(rounds: ${shares.map((share, i) => steady[i] ? percent(share) : `[${percent(share)}]`).join(", ")})`;
}

/** Streams a model under a budget; the prompt is short so that the run is decode. */
async function streamed(what: string, model: string, ram: string, tokens: number, rounds: number): Promise<Row[]> {
  const figures = await airkern([
    ...["bench", model, "--ram", ram, "--prompt-tokens", "8", "--max-tokens", String(tokens)],
    ...["--rounds", String(rounds), "--precision", "fast", "--json"],
  ]);
  return streamRows(what, figures);
}

const SECTIONS: Record<string, Section> = {
  startup: {
    says: "import of the library, opening a 405B shard directory",
    async run(models) {
      const big = await synthetic(models, "llama-3.1-405b", true);
      const runs: Json[] = [];
      for (let i = 0; i < 5; i++) runs.push(await script("scripts/bench/startup.ts", [big]));
      const median = (key: string) => runs.map((run) => run[key]).sort((a, b) => a - b)[2];
      return [
        { what: "import of mod.ts (median of 5)", figure: `${median("importMs").toFixed(0)} ms`, ceiling: "goal 100 ms" },
        {
          what: "opening a 405B shard directory (median of 5)",
          figure: `${median("openMs").toFixed(0)} ms`,
          ceiling: "goal 1000 ms",
        },
      ];
    },
  },
  quality: {
    says: "q4o and nf4 on the shipped model: bits a weight, perplexity, KL divergence, top-1 agreement",
    async run(models) {
      const rows: Row[] = [];
      const shards = join(models, "shards");
      const text = join(SHIPPED_MODEL, "heldout.txt");
      const reference = await shippedAs(models, "none");
      for (const format of ["q8", "q4o", "nf4"]) {
        const directory = await shippedAs(models, format);
        const report = await airkern(["inspect", directory, "--json"]);
        // The linear layers alone: embedding and head are q8 in every format.
        const linear = report.kinds.filter(({ kind }: Json) => kind.endsWith("_proj.weight"));
        const sum = (of: (kind: Json) => number) => linear.reduce((total: number, kind: Json) => total + of(kind), 0);
        const weights = sum((kind) => kind.weights);
        const bitsPerWeight = sum((kind) => 8 * kind.bytes) / weights;
        const snrDb = 10 * Math.log10(weights / sum((kind) => kind.weights * 10 ** (-kind.snrDb / 10)));
        for (const precision of format === "q4o" ? ["exact", "fast"] : ["exact"]) {
          const result = await airkern(
            ["perplexity", directory, text, "--against", reference, "--precision", precision, "--shards", shards, "--json"],
          );
          rows.push({
            what: `${format}, ${precision}`,
            figure: `perplexity ${result.perplexity.toFixed(4)} (+${
              percent(result.perplexity / result.reference.perplexity - 1)
            })`,
            ceiling: `unquantized ${result.reference.perplexity.toFixed(4)}`,
            share: `${bitsPerWeight.toFixed(3)} bits, SNR ${snrDb.toFixed(2)} dB, ` +
              `KL ${result.klDivergence.toFixed(5)}, top-1 ${percent(result.topOneAgreement)}`,
          });
        }
      }
      return rows;
    },
  },
  stream: {
    says: "a 7B shape under 1 GiB: share of the disk's ceiling",
    run: async (models) => await streamed("7B under 1 GiB", await synthetic(models, "llama-2-7b", false), "1GiB", 4, 9),
  },
  resident: {
    says: "a 7B shape in memory: share of the memory's ceiling; prefill of 512 tokens",
    async run(models) {
      const model = await synthetic(models, "llama-2-7b", false);
      const rows: Row[] = [];
      // A float32 prompt takes long; one round of it has to do.
      for (const [precision, prompt, rounds] of [["fast", 16, 9], ["fast", 512, 5], ["exact", 512, 1]] as const) {
        const figures = await airkern([
          ...["bench", model, "--prompt-tokens", String(prompt), "--max-tokens", "17", "--rounds", String(rounds)],
          ...["--precision", precision, "--json"],
        ]);
        rows.push({
          what: `7B resident, ${precision}: decode behind ${prompt} tokens`,
          figure: `${(1 / figures.secondsPerToken).toFixed(2)} tokens/s, ${rate(figures.weightBytesPerSecond)} of weights`,
          ceiling: `${rate(figures.memoryBytesPerSecond)} memory reads before and after`,
          share: `${percent(figures.memoryShare)} ${roundShares(figures.memoryShares, figures.steadyRounds)}; ` +
            `${percent(figures.memoryShareWithCache)} with ${formatBytes(figures.cachedBytesPerPass)} of KV cache`,
        });
        if (prompt < 512) continue;
        rows.push({
          what: `7B resident, ${precision}: prefill of ${prompt} tokens`,
          figure: `${figures.prefillTokensPerSecond.toFixed(1)} tokens/s, ${
            (figures.prefillFlopsPerSecond / 1e9).toFixed(0)
          } GFLOP/s`,
          ceiling: `${(figures.peakFlopsPerSecond / 1e9).toFixed(0)} GFLOP/s peak of the instruction`,
          share: percent(figures.prefillFlopsPerSecond / figures.peakFlopsPerSecond),
        });
      }
      return rows;
    },
  },
  moe: {
    says: "Qwen3-30B-A3B's shape under 4 GiB: experts read, hit rate, share of the disk's ceiling (17 GB of disk)",
    onlyByName: true,
    async run(models) {
      const figures = await script("scripts/bench/moe.ts", [await synthetic(models, "qwen3-30b-a3b", false), "--ram", "4GiB"]);
      const found = `${percent(figures.hitRate)} in memory, ${percent(figures.foreseen)} foreseen`;
      return [
        { what: "30B-A3B under 4 GiB: seconds a token", figure: figures.secondsPerToken.toFixed(3) },
        { what: "30B-A3B: experts a token uses", figure: formatBytes(figures.activeExpertBytesPerToken), share: found },
        {
          what: "30B-A3B: disk during decode",
          figure: rate(figures.readBytesPerSecond),
          ceiling: `${rate(figures.diskBytesPerSecond)} bare direct reads before and after`,
          share: `${percent(figures.diskShare)} (rounds: ${
            figures.diskShares.map((share: number) => percent(share)).join(", ")
          })`,
        },
        { what: "30B-A3B: peak resident set", figure: formatBytes(figures.peakRssBytes) },
      ];
    },
  },
  founding: {
    says: "a 405B shape under 8 GiB and under 2 GiB (about 15 minutes, 6 GB of disk)",
    onlyByName: true,
    async run(models) {
      const model = await synthetic(models, "llama-3.1-405b", true);
      return [
        ...await streamed("405B under 8 GiB", model, "8GiB", 2, 2),
        ...await streamed("405B under 2 GiB", model, "2GiB", 2, 2),
      ];
    },
  },
};

/** Quantizes the shipped model once and returns the shard directory. */
async function shippedAs(models: string, format: string): Promise<string> {
  const out = join(models, `kjv-5m-${format}`);
  await airkern(["quantize", SHIPPED_MODEL, "--out", out, "--format", format, "--json"]);
  return out;
}

const program = new Command("bench")
  .description("Measure AirKern against ceilings of the same run.")
  .addArgument(
    new Argument("[sections...]", "what to measure (default: all but founding)").choices(Object.keys(SECTIONS)),
  )
  .addOption(new Option("--models <dir>", "where synthetic models are kept between runs (10 GB)").default("build/bench"))
  .option("--json", "print one JSON object instead of a table")
  .addHelpText("after", "\n" + Object.entries(SECTIONS).map(([name, { says }]) => `  ${name.padEnd(10)} ${says}`).join("\n"));
program.parse(["deno", "bench", ...Deno.args]);
const { models, json } = program.opts<{ models: string; json?: boolean }>();
const names = program.args.length > 0 ? program.args : Object.keys(SECTIONS).filter((name) => !SECTIONS[name].onlyByName);
try {
  fs.mkdirSync(models, { recursive: true });
  const results: Record<string, Row[]> = {};
  for (const name of names) {
    console.error(`measuring ${name}: ${SECTIONS[name].says} ...`);
    results[name] = await SECTIONS[name].run(models);
    if (!json) printRows(results[name]);
  }
  if (json) console.log(JSON.stringify(results));
} catch (error) {
  if (!(error instanceof AirkernError)) throw error;
  console.error(error.message);
  Deno.exit(1);
}
