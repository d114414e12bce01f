/**
 * Measures AirKern and llama.cpp side by side: the same 7B shape at 4 bits, on the same processors, one after the other and again.
 *
 *   deno run -A scripts/bench/peer.ts [--models build/bench] [--threads 2] [--rounds 3] [--limit 1.5GiB] [--only resident|limited]
 *
 * llama.cpp comes as the prebuilt binaries of the npm package node-llama-cpp, installed into a folder of its own below --models (npm and Node
 * 20 are needed, and 4 GB of disk for its model); nothing else of the repository uses it. Its model is Llama 2 7B's shape in Q4_0 with an
 * output matrix in Q6_K, as its own quantizer writes it, ours the same shape in q4o.
 */
import { execFileSync } from "node:child_process";
import fs from "node:fs";
import { fileURLToPath } from "node:url";
import { join, resolve } from "node:path";
import { parseArgs } from "node:util";
import { AirkernError } from "../../lib/errors.ts";
import { formatBytes, parseBytes } from "../../lib/memory/bytes.ts";
import { MANIFEST_FILE } from "../../lib/shard/manifest.ts";
import { SHAPES } from "../synthesize/shapes.ts";
import { synthesizeModel } from "../synthesize_model.ts";
import { writeGguf } from "./peer/gguf.ts";
import { type Outcome, runCommand, runUnderLimit } from "./peer/memory_limit.ts";
import { type Json, printRows, type Row } from "./process.ts";

const PACKAGE = "node-llama-cpp", VERSION = "3.22.1";
const SHAPE = "llama-2-7b";
const ROOT = fileURLToPath(new URL("../..", import.meta.url));

/** Prompt and generated tokens: of the speed in memory, and under a limit. */
const RESIDENT = { prompt: 512, tokens: 33 }, SHORT = { prompt: 16, tokens: 33 }, LIMITED = { prompt: 8, tokens: 6 };

const { values: options } = parseArgs({
  options: {
    models: { type: "string", default: "build/bench" },
    threads: { type: "string", default: "2" },
    rounds: { type: "string", default: "3" },
    limit: { type: "string", default: "1.5GiB" },
    only: { type: "string" },
  },
});

/** Returns the folder in which the peer is installed, installing it on first use. */
function install(models: string): string {
  const folder = resolve(models, "peer");
  if (fs.existsSync(join(folder, "node_modules", PACKAGE))) return folder;
  fs.mkdirSync(folder, { recursive: true });
  console.error(`installing ${PACKAGE}@${VERSION} into ${folder} ...`);
  try {
    const binaries = `@node-llama-cpp/linux-${process()}@${VERSION}`;
    execFileSync("npm", [
      ...["install", "--prefix", folder, "--ignore-scripts", "--omit=optional", "--no-audit", "--no-fund"],
      ...[`${PACKAGE}@${VERSION}`, binaries],
    ], { stdio: ["ignore", "ignore", "inherit"] });
  } catch (error) {
    throw new AirkernError(`Cannot install the peer: ${(error as Error).message}; required are npm and a package registry`);
  }
  return folder;
}

function process(): string {
  return Deno.build.arch === "aarch64" ? "arm64" : "x64";
}

async function models(folder: string): Promise<{ ours: string; theirs: string }> {
  const ours = join(folder, SHAPE), theirs = join(folder, `${SHAPE}-q4_0.gguf`);
  if (!fs.existsSync(join(ours, MANIFEST_FILE))) {
    console.error(`writing ${ours} ...`);
    await synthesizeModel({ config: SHAPES[SHAPE], name: SHAPE, out: ours, compression: "q4o", linkLayers: false, seed: 1 });
  }
  if (!fs.existsSync(theirs)) {
    console.error(`writing ${theirs} ...`);
    writeGguf(theirs, SHAPE, SHAPES[SHAPE]);
  }
  return { ours, theirs };
}

/** What both are asked for. */
interface Work {
  prompt: number;
  tokens: number;
}

/** What both answer. */
interface Speed {
  secondsPerToken: number;
  prefillSeconds: number;
  peakRssBytes: number;
}

const median = (values: number[]): number => values.toSorted((a, b) => a - b)[values.length >> 1];

function parsed<T>(outcome: Outcome, read: (json: Json) => T): T | string {
  if (outcome.failure !== undefined) return outcome.failure === "out of memory" ? "killed: out of memory" : firstLine(outcome);
  return read(JSON.parse(outcome.stdout.slice(outcome.stdout.indexOf("{"))));
}

function firstLine({ failure, stderr }: Outcome): string {
  const line = stderr.split("\n").map((text) => text.trim()).filter((text) => text.length > 0).at(-1);
  return `failed (${failure}): ${line ?? "no message"}`;
}

type Run = (command: string, args: string[]) => Promise<Outcome>;

async function runOurs(model: string, { prompt, tokens }: Work, run: Run, extra: string[]): Promise<Speed | string> {
  const outcome = await run(Deno.execPath(), [
    ...[
      "run",
      "-A",
      "--frozen",
      join(ROOT, "mod.ts"),
      "bench",
      model,
      "--precision",
      "fast",
      "--threads",
      options.threads,
      "--json",
    ],
    ...["--prompt-tokens", String(prompt), "--max-tokens", String(tokens), ...extra],
  ]);
  return parsed(
    outcome,
    ({ secondsPerToken, prefillSeconds, peakRssBytes }) => ({ secondsPerToken, prefillSeconds, peakRssBytes }),
  );
}

async function runTheirs(folder: string, model: string, { prompt, tokens }: Work, run: Run): Promise<Speed | string> {
  const outcome = await run("node", [
    join(ROOT, "scripts/bench/peer/llama_cpp.mjs"),
    ...[folder, resolve(model), options.threads, String(prompt), String(tokens), "1"],
  ]);
  return parsed(outcome, ({ results: [{ prefillSeconds, own }], peakRssBytes }) => ({
    secondsPerToken: own.decode.seconds / own.decode.count,
    // Its own clock leaves out nothing but the sampling of the first token.
    prefillSeconds: own.prompt?.seconds ?? prefillSeconds,
    peakRssBytes,
  }));
}

/** Runs one after the other, `rounds` times, and returns the medians; a failure at once. */
async function alternate(rounds: number, ours: () => Promise<Speed | string>, theirs: () => Promise<Speed | string>) {
  const all: [Speed[], Speed[]] = [[], []], failures: (string | undefined)[] = [undefined, undefined];
  for (let round = 0; round < rounds; round++) {
    for (const [side, measure] of [ours, theirs].entries()) {
      if (failures[side] !== undefined) continue;
      const result = await measure();
      console.error(side === 0 ? "  AirKern" : "  llama.cpp", result);
      if (typeof result === "string") failures[side] = result;
      else all[side].push(result);
    }
  }
  return all.map((speeds, side): Speed | string =>
    failures[side] ?? {
      secondsPerToken: median(speeds.map((speed) => speed.secondsPerToken)),
      prefillSeconds: median(speeds.map((speed) => speed.prefillSeconds)),
      peakRssBytes: Math.max(...speeds.map((speed) => speed.peakRssBytes)),
    }
  );
}

/** One row: ours, theirs, and how many times as fast ours is. */
function compare(
  what: string,
  [ours, theirs]: (Speed | string)[],
  seconds: (speed: Speed) => number,
  show: (speed: Speed) => string,
): Row {
  const cell = (speed: Speed | string) => typeof speed === "string" ? speed : show(speed);
  const share = typeof ours === "string" || typeof theirs === "string" ? "" : `${(seconds(theirs) / seconds(ours)).toFixed(2)} x`;
  return { what, figure: cell(ours), ceiling: `llama.cpp: ${cell(theirs)}`, share };
}

async function main(): Promise<Row[]> {
  const rounds = Number(options.rounds), limit = parseBytes(options.limit);
  const folder = install(options.models), { ours, theirs } = await models(options.models);
  const rows: Row[] = [];
  const decode = (work: Work) => `7B in memory: decode behind ${work.prompt} tokens`;
  if (options.only !== "limited") {
    for (const work of [SHORT, RESIDENT]) {
      console.error(`in memory, ${work.prompt} prompt tokens ...`);
      const speeds = await alternate(
        rounds,
        () => runOurs(ours, work, runCommand, []),
        () => runTheirs(folder, theirs, work, runCommand),
      );
      rows.push(compare(decode(work), speeds, (s) => s.secondsPerToken, (s) => `${(1 / s.secondsPerToken).toFixed(2)} tokens/s`));
      if (work !== RESIDENT) continue;
      const prefill = ({ prefillSeconds }: Speed) => `${(work.prompt / prefillSeconds).toFixed(1)} tokens/s`;
      rows.push(compare(`7B in memory: prefill of ${work.prompt} tokens`, speeds, (s) => s.prefillSeconds, prefill));
    }
  }
  if (options.only !== "resident") {
    console.error(`under ${options.limit} ...`);
    const run: Run = (command, args) => runUnderLimit(limit, command, args);
    // Room for what the system counts beside the process's own memory: page tables and the files it runs from.
    const ram = ["--ram", String(limit - 192 * 2 ** 20)];
    const speeds = await alternate(rounds, () => runOurs(ours, LIMITED, run, ram), () => runTheirs(folder, theirs, LIMITED, run));
    rows.push(compare(
      `7B under ${options.limit}, page cache included`,
      speeds,
      (s) => s.secondsPerToken,
      (s) => `${s.secondsPerToken.toFixed(3)} s a token, peak ${formatBytes(s.peakRssBytes)}`,
    ));
  }
  return rows;
}

try {
  printRows(await main());
} catch (error) {
  if (!(error instanceof AirkernError)) throw error;
  console.error(error.message);
  Deno.exit(1);
}
