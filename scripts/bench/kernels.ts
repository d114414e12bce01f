/**
 * Measures the matrix kernels and the quantizers against what the machine can do: weights read a second as a share of the memory
 * bandwidth, multiplications as a share of the arithmetic peak, both measured in the same run.
 *
 * `deno run -A scripts/bench/kernels.ts [--json] [--isa=avx2,amx] [--format=q4o] [--only=gemv|gemm|attention|quantize] [--bytes=1100]`;
 * --bytes: MiB of distinct weights that a GEMV pass walks through. Formats may be those that keep others' encodings, such as bnb4-64x256-bf16 or q4_k.
 */
import { Context, type HostBuffer } from "../../lib/ffi/context.ts";
import { measurePeakFlops, measureReadSeconds } from "../../lib/ffi/measure.ts";
import { Ops, type Precision, type WeightExtent } from "../../lib/ffi/ops.ts";
import { quantizedBytesBound, quantizeRows, trainQuantizer } from "../../lib/ffi/quantize.ts";
import { extentBytes } from "../../lib/shard/formats.ts";
import type { WeightFormatName } from "../../lib/shard/manifest.ts";
import { parsePacking } from "../../lib/shard/packed_formats.ts";
import { AIRK_F16, AIRK_F32 } from "../../lib/ffi/abi.ts";

const option = (name: string) => Deno.args.find((arg) => arg.startsWith(`--${name}=`))?.slice(name.length + 3);
const list = (name: string, all: string[]) => option(name)?.split(",") ?? all;

const GEMV_SHAPES = [[4096, 4096], [11008, 4096], [4096, 11008]];
const GEMM_SHAPES = [[4096, 4096], [11008, 4096]];
const PRECISIONS: Precision[] = ["exact", "fast"];
const PASSES = 5;

type Row = Record<string, string | number>;

/** Quantizes normal weights; copies of one extent serve as distinct weights, since no kernel's speed depends on the values. */
async function extentOf(
  context: Context,
  format: string,
  rows: number,
  cols: number,
): Promise<{ bytes: Uint8Array; outliers: number; mweights: number }> {
  if (parsePacking(format)) {
    // Others quantize these. A byte that in no type of scales makes a number that is slow to compute with.
    const bytes = new Uint8Array(extentBytes(format as WeightFormatName, rows, cols, 0)).fill(0x3c);
    return { bytes, outliers: 0, mweights: NaN };
  }
  const source = new Float32Array(rows * cols);
  let state = 1;
  for (let i = 0; i < source.length; i++) {
    // A sum of uniform numbers is near enough to normal, and quick.
    let sum = 0;
    for (let k = 0; k < 4; k++) sum += state = (state * 48271) % 0x7fffffff;
    source[i] = (sum / 0x7fffffff - 2) * 0.02;
  }
  const id = context.formatId(format),
    bytes = new Uint8Array(source.buffer),
    extent = new Uint8Array(quantizedBytesBound(context, id, rows, cols));
  const parameters = await trainQuantizer(
    context,
    id,
    bytes.subarray(0, Math.min(rows, 256) * cols * 4),
    AIRK_F32,
    Math.min(rows, 256),
    cols,
  );
  let fastest = Infinity, result = { bytes: 0, outliers: 0 };
  for (let pass = 0; pass < 3; pass++) {
    const start = performance.now();
    result = await quantizeRows(context, id, bytes, AIRK_F32, rows, cols, parameters, extent);
    fastest = Math.min(fastest, performance.now() - start);
  }
  return { bytes: extent.subarray(0, result.bytes), outliers: result.outliers, mweights: rows * cols / fastest / 1e3 };
}

function weightOf(
  context: Context,
  format: string,
  address: bigint,
  bytes: number,
  rows: number,
  cols: number,
  outliers: number,
): WeightExtent {
  return {
    format: context.formatId(format),
    address,
    bytes: BigInt(bytes),
    rows: BigInt(rows),
    cols: BigInt(cols),
    outliers: BigInt(outliers),
  };
}

/** Fills memory with an activation matrix. */
async function activations(context: Context, count: number): Promise<HostBuffer> {
  const memory = await context.hostBuffer(count * 4);
  new Float32Array(memory.buffer).forEach((_, i, all) => all[i] = Math.sin(i));
  return memory;
}

/** Milliseconds of the fastest pass; `between` runs between passes. */
async function fastestMs(context: Context, enqueue: (ops: Ops) => void, between?: () => Promise<void>): Promise<number> {
  using stream = context.stream();
  const ops = new Ops(stream);
  let fastest = Infinity;
  for (let pass = 0; pass < PASSES; pass++) {
    await between?.();
    const start = performance.now();
    enqueue(ops);
    await stream.synchronize();
    fastest = Math.min(fastest, performance.now() - start);
  }
  return fastest;
}

async function benchGemv(context: Context, format: string, rows: Row[]): Promise<void> {
  for (const [matrixRows, cols] of GEMV_SHAPES) {
    const { bytes, outliers } = await extentOf(context, format, matrixRows, cols);
    const stride = Math.ceil(bytes.length / 4096) * 4096, count = Math.ceil(Number(option("bytes") ?? 1100) * 2 ** 20 / stride);
    using memory = await context.hostBuffer(stride * count);
    for (let i = 0; i < count; i++) memory.view(i * stride, bytes.length).set(bytes);
    using x = await activations(context, 8 * cols);
    using y = await context.hostBuffer(8 * matrixRows * 4);
    for (const precision of PRECISIONS) {
      for (const tokens of [1, 2, 5, 8]) {
        let readSeconds = Infinity;
        const ms = await fastestMs(context, (ops) => {
          for (let i = 0; i < count; i++) {
            const weight = weightOf(
              context,
              format,
              memory.address + BigInt(i * stride),
              bytes.length,
              matrixRows,
              cols,
              outliers,
            );
            ops.matmul(y.address, matrixRows, x.address, cols, tokens, weight, 0n, false, precision);
          }
        }, async () => {
          readSeconds = Math.min(readSeconds, await measureReadSeconds(context, memory.address, stride * count, 1));
        });
        const gbs = bytes.length * count / ms / 1e6, readGbs = stride * count / readSeconds / 1e9;
        rows.push({
          bench: "gemv",
          isa: context.description.isa,
          format,
          precision,
          shape: `${matrixRows}x${cols}`,
          tokens,
          "GB/s": gbs,
          "read GB/s": readGbs,
          share: gbs / readGbs,
        });
      }
    }
  }
}

async function benchGemm(context: Context, format: string, rows: Row[]): Promise<void> {
  for (const [matrixRows, cols] of GEMM_SHAPES) {
    const { bytes, outliers } = await extentOf(context, format, matrixRows, cols);
    using memory = await context.hostBuffer(bytes.length);
    memory.view().set(bytes);
    const weight = weightOf(context, format, memory.address, bytes.length, matrixRows, cols, outliers);
    using x = await activations(context, 512 * cols);
    using y = await context.hostBuffer(512 * matrixRows * 4);
    for (const precision of PRECISIONS) {
      for (const tokens of [16, 64, 512]) {
        let peak = 0;
        const ms = await fastestMs(
          context,
          (ops) => ops.matmul(y.address, matrixRows, x.address, cols, tokens, weight, 0n, false, precision),
          async () => {
            peak = Math.max(peak, await measurePeakFlops(context, precision === "exact" ? "float32" : "fast"));
          },
        );
        const gflops = 2 * matrixRows * cols * tokens / ms / 1e6;
        rows.push({
          bench: "gemm",
          isa: context.description.isa,
          format,
          precision,
          shape: `${matrixRows}x${cols}`,
          tokens,
          "GFLOP/s": gflops,
          "peak GFLOP/s": peak / 1e9,
          share: gflops * 1e9 / peak,
        });
      }
    }
  }
}

/** One token behind `contextTokens`, with caches of as many layers as do not fit the processor's. */
async function benchAttention(context: Context, kvHeads: number, contextTokens: number, rows: Row[]): Promise<void> {
  const heads = 32, headDim = 128, pageTokens = 16;
  const pages = contextTokens / pageTokens, cacheBytes = contextTokens * kvHeads * headDim * 2;
  const layers = Math.ceil(Number(option("bytes") ?? 1100) * 2 ** 20 / (2 * cacheBytes));
  using memory = await context.hostBuffer(layers * 2 * cacheBytes);
  // float16 numbers of common size.
  new Uint16Array(memory.buffer).forEach((_, i, all) => all[i] = 0x3000 + i % 0x800);
  using table = await context.hostBuffer(Math.max(pages, 4) * 4);
  new Int32Array(table.buffer).forEach((_, i, all) => all[i] = i);
  using sequences = await context.hostBuffer(4 * 4);
  new Int32Array(sequences.buffer).set([0, 1, contextTokens - 1, 0]);
  using q = await activations(context, heads * headDim);
  using y = await context.hostBuffer(heads * headDim * 4);
  let readSeconds = Infinity;
  const ms = await fastestMs(context, (ops) => {
    for (let layer = 0; layer < layers; layer++) {
      const kCache = memory.address + BigInt(2 * layer * cacheBytes), vCache = kCache + BigInt(cacheBytes);
      ops.attention(y.address, q.address, {
        kCache,
        vCache,
        cacheType: AIRK_F16,
        sequences: sequences.address,
        sequenceCount: 1,
        pageTable: table.address,
        mask: 0n,
        tokens: 1,
        heads,
        kvHeads,
        headDim,
        valueDim: headDim,
        pageTokens,
        contextTokens,
        scale: headDim ** -0.5,
      });
    }
  }, async () => {
    readSeconds = Math.min(readSeconds, await measureReadSeconds(context, memory.address, layers * 2 * cacheBytes, 1));
  });
  const gbs = layers * 2 * cacheBytes / ms / 1e6, readGbs = layers * 2 * cacheBytes / readSeconds / 1e9;
  rows.push({
    bench: "attention",
    isa: context.description.isa,
    heads: `${heads}/${kvHeads}`,
    context: contextTokens,
    "GB/s": gbs,
    "read GB/s": readGbs,
    share: gbs / readGbs,
  });
}

const results: Row[] = [];
const only = option("only");
for (const isa of list("isa", ["portable", "avx2", "avx512", "amx"])) {
  using context = Context.open({ isa: isa as "amx" });
  if (context.description.isa !== isa) continue;
  if (!only || only === "attention") {
    for (const kvHeads of [32, 8]) for (const tokens of [512, 4096]) await benchAttention(context, kvHeads, tokens, results);
  }
  for (const format of list("format", ["f32", "f16", "bf16", "q8", "nf4", "q4o"])) {
    if (!only || only === "gemv") await benchGemv(context, format, results);
    if (!only || only === "gemm") await benchGemm(context, format, results);
    if ((!only || only === "quantize") && !parsePacking(format)) {
      const { mweights } = await extentOf(context, format, 1024, 4096);
      results.push({
        bench: "quantize",
        isa,
        format,
        "Mweights/s": mweights,
        "Mweights/s/thread": mweights / context.description.threads,
      });
    }
  }
}

if (Deno.args.includes("--json")) {
  console.log(JSON.stringify({ results }));
} else {
  const columns = [...new Set(results.flatMap((row) => Object.keys(row)))];
  const cell = (row: Row, column: string) => {
    const value = row[column] ?? "";
    if (typeof value === "string" || column === "tokens") return String(value);
    return column === "share" ? `${(value * 100).toFixed(0)}%` : value.toFixed(1);
  };
  const widths = columns.map((column) => Math.max(column.length, ...results.map((row) => cell(row, column).length)));
  const line = (cells: string[]) => cells.map((text, i) => text.padStart(widths[i])).join("  ");
  console.log(line(columns));
  for (const row of results) console.log(line(columns.map((column) => cell(row, column))));
}
