/**
 * Measures the CUDA library on this machine's GPU and prints one table, every row a ratio to a ceiling of the same run:
 * `deno task bench:gpu [SECTION...] [--shapes tiny]`. Without a GPU it says why it measures nothing.
 * @module
 */
import { Argument, Command, Option } from "commander";
import { mkdirSync } from "node:fs";
import { AirkernError } from "../lib/errors.ts";
import { formatBytes } from "../lib/memory/bytes.ts";
import type { WeightFormatName } from "../lib/shard/manifest.ts";
import { GpuBench, type GpuSizes } from "./bench/gpu_kernels.ts";
import { decodeRows, foundingRows, type GpuModels } from "./bench/gpu_models.ts";
import { percent, printRows, rate, type Row } from "./bench/process.ts";
import { findGpu } from "./gpu/find_gpu.ts";
import { SHAPES } from "./synthesize/shapes.ts";

const MiB = 2 ** 20;

/** What a run measures: `full` for a GPU, `tiny` to see on the emulator that every row can be measured. */
const SIZES: Record<"full" | "tiny", GpuSizes & GpuModels> = {
  full: {
    gemv: [[4096, 4096], [4096, 14336], [8192, 28672], [16384, 53248]],
    matmul: [[4096, 4096], [14336, 4096], [8192, 28672]],
    matmulTokens: 512,
    workingSetBytes: 512 * MiB,
    copyBytes: 256 * MiB,
    extentBytes: 4 * MiB,
    slots: 16,
    resident: { name: "llama-2-7b", config: SHAPES["llama-2-7b"] },
    founding: { name: "llama-3.1-405b", config: SHAPES["llama-3.1-405b"], vram: "8GiB" },
    promptTokens: 8,
    decodeTokens: 65,
  },
  tiny: {
    gemv: [[64, 96]],
    matmul: [[32, 64]],
    matmulTokens: 16,
    workingSetBytes: 16 << 10,
    copyBytes: 64 << 10,
    extentBytes: 8 << 10,
    slots: 3,
    resident: { name: "tiny", config: tinyConfig(64, 2) },
    founding: { name: "tiny-deep", config: tinyConfig(256, 6), vram: "1536KiB" },
    promptTokens: 2,
    decodeTokens: 2,
  },
};

function tinyConfig(hiddenSize: number, layers: number) {
  const shape = SHAPES["llama-2-7b"];
  return {
    ...shape,
    hidden_size: hiddenSize,
    intermediate_size: 2 * hiddenSize,
    num_attention_heads: 4,
    num_key_value_heads: 2,
    num_hidden_layers: layers,
    vocab_size: 320,
  };
}

type Measure = (bench: GpuBench, sizes: GpuSizes & GpuModels, models: string) => Promise<Row[]>;

const SECTIONS: Record<string, { says: string; measure: Measure }> = {
  gemv: {
    says: "weight bytes a second of one token's products, over copies within the device (read and written bytes together)",
    async measure(bench, sizes) {
      const rows: Row[] = [];
      for (const format of ["q4o", "nf4"] as WeightFormatName[]) {
        for (const [matrixRows, cols] of sizes.gemv) {
          const copy = await bench.deviceCopyBytesPerSecond();
          const reached = await bench.gemvBytesPerSecond(format, matrixRows, cols);
          rows.push({
            what: `GEMV ${format} ${matrixRows}x${cols}`,
            figure: rate(reached),
            ceiling: `${rate(copy)} device-to-device copy`,
            share: percent(reached / copy),
          });
        }
      }
      return rows;
    },
  },
  matmul: {
    says:
      "products of many tokens, over the library's own product of the same shape with dense bfloat16 weights, and over the tensor cores' peak",
    async measure(bench, sizes) {
      const rows: Row[] = [];
      const tflops = (flops: number): string => `${(flops / 1e12).toPrecision(3)} TFLOP/s`;
      for (const [matrixRows, cols] of sizes.matmul) {
        const peak = await bench.tensorPeakFlopsPerSecond();
        const dense = await bench.matmulFlopsPerSecond("bf16", matrixRows, cols);
        for (const format of ["bf16", "q4o", "nf4"] as WeightFormatName[]) {
          const reached = format === "bf16" ? dense : await bench.matmulFlopsPerSecond(format, matrixRows, cols);
          rows.push({
            what: `matmul ${format} ${matrixRows}x${cols}, ${sizes.matmulTokens} tokens`,
            figure: tflops(reached),
            ceiling: format === "bf16" ? `${tflops(peak)} tensor-core peak` : `${tflops(dense)} AirKern's dense bf16 product`,
            share: percent(reached / (format === "bf16" ? peak : dense)),
          });
        }
      }
      return rows;
    },
  },
  copy: {
    says: "extents brought to the device through a ring of slots, over one plain copy from page-locked memory",
    async measure(bench, sizes) {
      const bare = await bench.hostCopyBytesPerSecond();
      const reached = await bench.extentCopyBytesPerSecond();
      return [{
        what: `host to device, extents of ${formatBytes(sizes.extentBytes)}`,
        figure: rate(reached),
        ceiling: `${rate(bare)} bare page-locked copy`,
        share: percent(reached / bare),
      }];
    },
  },
  decode: { says: "tokens a second of a 7B shape in device memory", measure: decodeRows },
  founding: { says: "a 405B shape with --vram 8GiB (minutes, 6 GB of disk)", measure: foundingRows },
};

const program = new Command("bench_gpu")
  .description("Measure the CUDA library on this machine's GPU against ceilings of the same run.")
  .addArgument(new Argument("[sections...]", "what to measure (default: all)").choices(Object.keys(SECTIONS)))
  .addOption(
    new Option("--shapes <name>", "full, or tiny to try every row on the emulator").choices(["full", "tiny"]).default("full"),
  )
  .addOption(new Option("--models <dir>", "where synthetic models are kept between runs (10 GB)").default("build/bench"))
  .option("--json", "print one JSON object instead of a table")
  .addHelpText("after", "\n" + Object.entries(SECTIONS).map(([name, { says }]) => `  ${name.padEnd(10)} ${says}`).join("\n"));
program.parse(["deno", "bench_gpu", ...Deno.args]);
const options = program.opts<{ shapes: "full" | "tiny"; models: string; json?: boolean }>();
const names = program.args.length > 0 ? program.args : Object.keys(SECTIONS);

const gpu = await findGpu();
if ("problem" in gpu) {
  if (options.json) console.log(JSON.stringify({ skipped: gpu.problem }));
  else console.log(`Measured nothing, since a GPU is needed: ${gpu.problem}`);
  Deno.exit(0);
}
try {
  const { models } = options;
  mkdirSync(models, { recursive: true });
  const sizes = SIZES[options.shapes];
  const rows: Row[] = [];
  using bench = new GpuBench(sizes);
  for (const name of names) {
    console.error(`measuring ${name}: ${SECTIONS[name].says} ...`);
    rows.push(...await SECTIONS[name].measure(bench, sizes, models));
  }
  const { name, isa, driver, totalBytes } = gpu.device;
  if (options.json) console.log(JSON.stringify({ device: gpu.device, rows }));
  else {
    console.log(
      `${name} (${isa}, ${formatBytes(totalBytes)}, driver for CUDA ${driver}), ${new Date().toISOString().slice(0, 10)}\n`,
    );
    printRows(rows);
  }
} catch (error) {
  if (!(error instanceof AirkernError)) throw error;
  console.error(error.message);
  Deno.exit(1);
}
