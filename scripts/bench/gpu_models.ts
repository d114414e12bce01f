/**
 * Measures whole models on a device, by the command line as a user runs it.
 * @module
 */
import type { Context } from "../../lib/ffi/context.ts";
import { formatBytes, parseBytes } from "../../lib/memory/bytes.ts";
import type { LlamaConfigJson } from "../synthesize/shapes.ts";
import type { GpuBench } from "./gpu_kernels.ts";
import { airkern, type Json, percent, rate, type Row } from "./process.ts";
import { syntheticModel } from "./synthetic_model.ts";

/** The models that a run is made with. */
export interface GpuModels {
  /** Fits the device. */
  resident: { name: string; config: LlamaConfigJson };
  /** Does not, by far. */
  founding: { name: string; config: LlamaConfigJson; vram: string };
  promptTokens: number;
  decodeTokens: number;
}

/** Milliseconds between two looks at the device's memory. */
const WATCH_MS = 20;

/** Runs `bench` of the command line on the device. */
async function benchModel(model: string, promptTokens: number, maxTokens: number, more: string[]): Promise<Json> {
  return await airkern([
    ...["bench", model, "--device", "cuda", "--prompt-tokens", String(promptTokens), "--max-tokens", String(maxTokens)],
    ...["--precision", "fast", ...more, "--json"],
  ]);
}

/** Decodes a model that lies in device memory. */
export async function decodeRows(
  bench: GpuBench,
  { resident, promptTokens, decodeTokens }: GpuModels,
  models: string,
): Promise<Row[]> {
  const model = await syntheticModel(models, resident.name, resident.config, false);
  const copy = await bench.deviceCopyBytesPerSecond();
  const figures = await benchModel(model, promptTokens, decodeTokens, []);
  const reached = figures.weightBytesPerPass / figures.secondsPerToken;
  return [{
    what: `${resident.name} resident: decode`,
    figure: `${(1 / figures.secondsPerToken).toFixed(1)} tokens/s, ${rate(reached)} of weights`,
    ceiling: `${rate(copy)} device-to-device copy`,
    share: percent(reached / copy),
  }];
}

/** Runs one pass of a model many times as large as the device's memory. */
export async function foundingRows(bench: GpuBench, { founding, promptTokens }: GpuModels, models: string): Promise<Row[]> {
  const model = await syntheticModel(models, founding.name, founding.config, true);
  using memory = new MemoryWatch(bench.context);
  const figures = await benchModel(model, promptTokens, 2, ["--vram", founding.vram]);
  const takenBytes = memory.takenBytes, vramBytes = parseBytes(founding.vram);
  const what = `${founding.name} within ${founding.vram}`;
  const disk = (figures.diskBytesPerSecondBefore + figures.diskBytesPerSecondAfter) / 2;
  return [
    {
      what: `${what}: one pass`,
      figure: `${figures.secondsPerToken.toFixed(2)} s`,
      ceiling: `${formatBytes(figures.copiedBytesPerPass)} to the device, ${
        formatBytes(figures.streamedBytesPerPass)
      } of them from the disk`,
    },
    {
      what: `${what}: weights over the bus`,
      figure: rate(figures.busShare * figures.busBytesPerSecond),
      ceiling: `${rate(figures.busBytesPerSecond)} bare page-locked copies`,
      share: percent(figures.busShare),
    },
    figures.streamedBytesPerPass === 0 ? { what: `${what}: weights from the disk`, figure: "none: host memory holds them" } : {
      what: `${what}: weights from the disk`,
      figure: rate(figures.readBytesPerSecond),
      ceiling: `${rate(disk)} bare direct reads before and after`,
      share: percent(figures.readBytesPerSecond / disk),
    },
    { what: `${what}: device memory reserved`, ...shareOf(figures.peakVramBytes, vramBytes) },
    // The emulator gives each process a device of its own.
    takenBytes === 0
      ? { what: `${what}: device memory taken, by the driver`, figure: "not seen by the driver" }
      : { what: `${what}: device memory taken, by the driver`, ...shareOf(takenBytes, vramBytes) },
  ];
}

function shareOf(bytes: number, ofBytes: number): Pick<Row, "figure" | "ceiling" | "share"> {
  return { figure: formatBytes(bytes), ceiling: formatBytes(ofBytes), share: percent(bytes / ofBytes) };
}

/** Watches how much device memory other processes take beyond what was taken when it began, by the driver's own count. */
class MemoryWatch implements Disposable {
  readonly #context: Context;
  readonly #beforeBytes: number;
  #leastBytes: number;
  readonly #timer: ReturnType<typeof setInterval>;

  constructor(context: Context) {
    this.#context = context;
    this.#beforeBytes = this.#leastBytes = context.memoryInfo().freeBytes;
    this.#timer = setInterval(() => this.#look(), WATCH_MS);
  }

  #look(): void {
    this.#leastBytes = Math.min(this.#leastBytes, this.#context.memoryInfo().freeBytes);
  }

  /** The most that was taken so far. */
  get takenBytes(): number {
    this.#look();
    return this.#beforeBytes - this.#leastBytes;
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer);
  }
}
