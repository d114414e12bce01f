/**
 * Shows how far long work is, on stderr: a bar on a terminal, a line now and then elsewhere.
 * @module
 */
import process from "node:process";
import { formatBytes } from "../memory/bytes.ts";
import { formatSeconds, printError } from "./output.ts";

/** How far work is. */
export interface Progress {
  phase: string;
  done: number;
  total: number;
  /** What `done` and `total` count. */
  unit: "bytes" | "tokens";
}

/** Work that is over sooner needs no display. */
const SILENT_MS = 1000;

/** Time between lines where stderr is no terminal. */
const LINE_INTERVAL_MS = 5000;

/** The part of cli-progress's SingleBar that is used here. */
interface Bar {
  start(total: number, done: number, values: Record<string, string>): void;
  update(done: number, values: Record<string, string>): void;
  stop(): void;
}

function amount(value: number, unit: Progress["unit"]): string {
  return unit === "bytes" ? formatBytes(value) : `${value} tokens`;
}

/** Shows the progress of one piece of work after the other. */
export class ProgressDisplay implements Disposable {
  #phase: string | undefined;
  #startMs = 0;
  #startDone = 0;
  #lastLineMs = 0;
  #bar: Bar | undefined;

  private constructor(private readonly makeBar: ((format: string) => Bar) | undefined) {}

  /** Returns a display; the library for bars is loaded only where one can be shown. */
  static async create(): Promise<ProgressDisplay> {
    if (!Deno.stderr.isTerminal()) return new ProgressDisplay(undefined);
    const { default: { Presets, SingleBar } } = await import("cli-progress");
    return new ProgressDisplay((format) =>
      new SingleBar(
        { format, stream: process.stderr, clearOnComplete: true, stopOnComplete: false, fps: 5 },
        Presets.shades_classic,
      )
    );
  }

  /** Shows a state; a new phase begins a new display. */
  show({ phase, done, total, unit }: Progress): void {
    const nowMs = performance.now();
    if (phase !== this.#phase) {
      this.stop();
      this.#phase = phase;
      this.#startMs = this.#lastLineMs = nowMs;
      this.#startDone = done;
    }
    const elapsedSeconds = (nowMs - this.#startMs) / 1000;
    if (elapsedSeconds * 1000 < SILENT_MS) return;
    // What an earlier run had done is not part of this run's speed.
    const rate = (done - this.#startDone) / elapsedSeconds;
    const left = rate > 0 ? `${formatSeconds(Math.ceil((total - done) / rate))} left` : "";
    const values = {
      amounts: `${amount(done, unit)} of ${amount(total, unit)}`,
      rate: `${amount(Math.round(rate), unit)}/s`,
      left,
    };
    if (this.makeBar) {
      if (!this.#bar) {
        this.#bar = this.makeBar(`${phase} {bar} {percentage}% | {amounts} | {rate} | {left}`);
        this.#bar.start(total, done, values);
      } else this.#bar.update(done, values);
    } else if (nowMs - this.#lastLineMs >= LINE_INTERVAL_MS) {
      this.#lastLineMs = nowMs;
      const percentage = total > 0 ? Math.floor(100 * done / total) : 0;
      printError(`${phase}: ${percentage}%, ${values.amounts}, ${values.rate}${left && `, ${left}`}`);
    }
  }

  /** Shows progress counted in bytes, as the library reports it. */
  readonly showBytes = ({ phase, doneBytes, totalBytes }: { phase: string; doneBytes: number; totalBytes: number }): void => {
    this.show({ phase: PHASES[phase] ?? phase, done: doneBytes, total: totalBytes, unit: "bytes" });
  };

  /** Removes the bar, so that other output starts on a clean line. */
  stop(): void {
    this.#bar?.stop();
    this.#bar = undefined;
    this.#phase = undefined;
  }

  [Symbol.dispose](): void {
    this.stop();
  }
}

/** What the library's phases are called on screen. */
const PHASES: Record<string, string> = {
  wait: "Waiting for another process that is at work on this model",
  download: "Downloading",
  quantize: "Quantizing",
  verify: "Verifying",
  load: "Loading",
};
