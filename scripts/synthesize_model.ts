/**
 * Writes a shard directory of a published shape with random weights, so that its speed and memory can be measured
 * without a download: `deno run -A scripts/synthesize_model.ts SHAPE --out DIR`.
 */
import { Command, InvalidArgumentError, Option } from "commander";
import { createHash } from "node:crypto";
import fs from "node:fs";
import { join } from "node:path";
import { AirkernError, BudgetError, UsageError } from "../lib/errors.ts";
import { architectureFor } from "../lib/models/registry.ts";
import type { TensorSpec } from "../lib/models/architecture.ts";
import { type Compression, type ExtentEntry, GENERATOR, type Manifest, MANIFEST_FILE } from "../lib/shard/manifest.ts";
import { paddedBytes, type ShardFile, type TensorEntry, type WeightFormatName } from "../lib/shard/manifest.ts";
import { cutIntoExtents } from "../lib/shard/quantize_plan.ts";
import { ShardFileWriter, writeManifest, writeWhole } from "../lib/shard/writer.ts";
import { fillExtent, outliersPerRow, RandomBytes, syntheticExtentBytes } from "./synthesize/extent.ts";
import { type LlamaConfigJson, SHAPES } from "./synthesize/shapes.ts";
import { byteTokenizer } from "./synthesize/tokenizer.ts";

/** What {@linkcode synthesizeModel} needs to know. */
export interface SynthesizeOptions {
  config: LlamaConfigJson;
  name: string;
  out: string;
  compression: Exclude<Compression, "none">;
  /** Makes every layer a hard link of the first one's file. */
  linkLayers: boolean;
  seed: number;
  onFile?: (name: string, done: number, total: number) => void;
}

/** A file's worth of tensors, cut into extents. */
interface Group {
  file: string;
  tensors: {
    name: string;
    relativeName: string;
    rows: number;
    cols: number;
    format: WeightFormatName;
    extentRows: number[];
    /** Standard deviation of its weights. */
    sigma: number;
  }[];
}

/**
 * Returns the standard deviation of a matrix's weights. Products keep the scale of what they multiply, but for those that join the residual stream: these
 * are smaller, as in the initialization of GPT-2 (Radford et al. 2019), and embeddings larger. So a token's hidden state stays that token's, and routers
 * send tokens to experts of all numbers; otherwise all tokens would grow alike, and with them the experts that they use.
 */
function deviation({ name, cols, kind }: TensorSpec, numLayers: number): number {
  if (kind === "embedding") return 1;
  const joinsStream = /[.](o_proj|out_proj|down_proj)[.]weight$/.test(name);
  return 1 / Math.sqrt(joinsStream ? cols * 2 * numLayers : cols);
}

function storedFormat(kind: TensorSpec["kind"], compression: WeightFormatName): WeightFormatName {
  if (kind === "vector") return "f32";
  if (kind === "router") return "bf16";
  return kind === "linear" || kind === "expert" ? compression : "q8";
}

function planGroup(file: string, specs: TensorSpec[], prefix: string, compression: WeightFormatName, numLayers: number): Group {
  const ordered = [...specs.filter(({ kind }) => kind === "vector"), ...specs.filter(({ kind }) => kind !== "vector")];
  return {
    file,
    tensors: ordered.map((spec) => {
      const { name, rows, cols, kind } = spec;
      const format = storedFormat(kind, compression);
      return {
        name,
        relativeName: name.startsWith(prefix) ? name.slice(prefix.length) : name,
        rows,
        cols,
        format,
        sigma: deviation(spec, numLayers),
        extentRows: cutIntoExtents(name, format, rows, cols, 2 * cols, syntheticExtentBytes),
      };
    }),
  };
}

const groupBytes = ({ tensors }: Group): number =>
  tensors.reduce(
    (sum, { format, cols, extentRows }) =>
      extentRows.reduce((rowsSum, rows) => rowsSum + paddedBytes(syntheticExtentBytes(format, rows, cols)), sum),
    0,
  );

async function writeGroup(
  directory: string,
  group: Group,
  random: RandomBytes,
): Promise<{ file: ShardFile; extents: ExtentEntry[][] }> {
  const cuts = group.tensors.flatMap(({ relativeName, format, cols, extentRows }) =>
    extentRows.map((rows, index) => ({ name: `${relativeName}#${index}`, maxBytes: syntheticExtentBytes(format, rows, cols) }))
  );
  using writer = new ShardFileWriter(directory, group.file, cuts);
  const buffer = new Uint8Array(paddedBytes(Math.max(...cuts.map(({ maxBytes }) => maxBytes))));
  const extents: ExtentEntry[][] = [];
  for (const { relativeName, format, cols, extentRows, sigma } of group.tensors) {
    const entries: ExtentEntry[] = [];
    for (const [index, rows] of extentRows.entries()) {
      const bytes = syntheticExtentBytes(format, rows, cols);
      const extent = buffer.subarray(0, paddedBytes(bytes)).fill(0);
      fillExtent(extent, format, rows, cols, sigma, random);
      const written = await writer.append(`${relativeName}#${index}`, extent);
      entries.push({ ...written, bytes, rows, outliers: rows * outliersPerRow(format, cols) });
    }
    extents.push(entries);
  }
  return { file: await writer.finish(), extents };
}

/**
 * Writes a shard directory.
 * @throws {BudgetError} where the disk is too small.
 * @throws {UsageError} where the directory holds a model already.
 */
export async function synthesizeModel(options: SynthesizeOptions): Promise<void> {
  const { config, out, compression } = options;
  if (fs.existsSync(join(out, MANIFEST_FILE))) {
    throw new UsageError(`Cannot write ${out}: it holds a model already; remove it or name another directory`);
  }
  const architecture = architectureFor(config);
  const declared = architecture.tensors(architecture.parseConfig(config)), numLayers = declared.layers.length;
  const layers = declared.layers.map((specs, layer) =>
    planGroup(
      `layer-${String(layer).padStart(4, "0")}.safetensors`,
      specs,
      declared.layerPrefix(layer),
      compression,
      numLayers,
    )
  );
  const groups = [
    planGroup("embedding.safetensors", declared.embedding, "", compression, numLayers),
    ...layers,
    planGroup("head.safetensors", declared.head, "", compression, numLayers),
  ];
  fs.mkdirSync(out, { recursive: true });
  const needed = groups.reduce(
    (sum, group, i) => sum + (options.linkLayers && i > 1 && i <= layers.length ? 0 : groupBytes(group)),
    0,
  );
  const { bavail, bsize } = fs.statfsSync(out);
  if (bavail * bsize < needed) {
    throw new BudgetError(`Cannot write ${out}: ${bavail * bsize} bytes of disk are free, required ${needed}`);
  }

  const files: ShardFile[] = [];
  const tensors: TensorEntry[] = [];
  const random = new RandomBytes(options.seed);
  let layerWritten: Awaited<ReturnType<typeof writeGroup>> | undefined;
  for (const [index, group] of groups.entries()) {
    const isLayer = layers.includes(group);
    let written: Awaited<ReturnType<typeof writeGroup>>;
    if (isLayer && options.linkLayers && layerWritten !== undefined) {
      fs.rmSync(join(out, group.file), { force: true });
      fs.linkSync(join(out, layers[0].file), join(out, group.file));
      written = { ...layerWritten, file: { ...layerWritten.file, name: group.file } };
    } else {
      written = await writeGroup(out, group, random);
      if (isLayer) layerWritten = written;
    }
    group.tensors.forEach(({ name, format, rows, cols }, i) => {
      tensors.push({ name, file: files.length, format, rows, cols, extents: written.extents[i], snrDb: null });
    });
    files.push(written.file);
    options.onFile?.(group.file, index + 1, groups.length);
  }

  const { tokenizer, config: tokenizerConfig } = byteTokenizer(
    config.vocab_size,
    config.bos_token_id as number,
    config.eos_token_id as number,
  );
  const tokenizerFiles: Manifest["tokenizerFiles"] = [];
  for (const [name, content] of [["tokenizer.json", tokenizer], ["tokenizer_config.json", tokenizerConfig]] as const) {
    const text = new TextEncoder().encode(JSON.stringify(content));
    await writeWhole(join(out, name), text);
    tokenizerFiles.push({ name, bytes: text.length, sha256: createHash("sha256").update(text).digest("hex") });
  }
  await writeManifest(out, {
    format: "airkern-shards",
    formatVersion: 1,
    generator: GENERATOR,
    config,
    generationConfig: null,
    tokenizerFiles,
    source: { name: `${options.name} (random weights)`, revision: `synthetic-${options.seed}` },
    compression,
    files,
    tensors,
    ignoredTensors: [],
  });
}

if (import.meta.main) {
  const program = new Command("synthesize_model")
    .description("Write a shard directory of a published shape with random weights of sane scale and a byte-level tokenizer.")
    .argument("<shape>", `one of ${Object.keys(SHAPES).join(", ")}`)
    .requiredOption("--out <dir>", "directory to write; must not hold a model yet")
    .addOption(new Option("--format <format>", "format of the linear layers").choices(["q4o", "nf4", "q8"]).default("q4o"))
    .option("--layers <n>", "layers, instead of the shape's own number", (text) => {
      const layers = Number(text);
      if (!Number.isInteger(layers) || layers < 1) throw new InvalidArgumentError("must be a whole number of at least 1");
      return layers;
    })
    .option("--link-layers", "write one layer and hard-link its file for the others: little disk, every byte still read", false);
  program.parse(["deno", "synthesize_model", ...Deno.args]);
  const options = program.opts<{ out: string; format: "q4o" | "nf4" | "q8"; layers?: number; linkLayers: boolean }>();
  const [name] = program.args;
  try {
    const shape = SHAPES[name];
    if (shape === undefined) {
      throw new UsageError(`Cannot synthesize "${name}": known shapes are ${Object.keys(SHAPES).join(", ")}`);
    }
    await synthesizeModel({
      config: options.layers === undefined ? shape : { ...shape, num_hidden_layers: options.layers },
      name,
      out: options.out,
      compression: options.format,
      linkLayers: options.linkLayers,
      seed: 1,
      onFile: (file, done, total) => console.error(`${options.out}/${file} (${done} of ${total})`),
    });
  } catch (error) {
    if (!(error instanceof AirkernError)) throw error;
    console.error(error.message);
    Deno.exit(1);
  }
}
