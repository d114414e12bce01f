/**
 * A KV cache in host memory, of which the layers at work are on the device.
 *
 * The pool is page-locked host memory. Two layers' parts of it have room on the device, in the same pages: while one layer is computed, the pages that
 * the pass's sequences have of the next are copied, and what a layer adds goes back to the pool. A pass thus moves its context over the bus once, and
 * the device holds two layers' worth however many there are.
 * @module
 */
import { type CachedSequence, type KvCache, PAGE_TOKENS } from "../cache/kv_cache.ts";
import type { DeviceSpan, Event } from "../ffi/context.ts";
import type { Ops } from "../ffi/ops.ts";
import type { Transfer } from "../stream/transfer.ts";
import { KV_WINDOW_LAYERS } from "./memory_needs.ts";

/** Page numbers that follow each other. */
interface PageRun {
  first: number;
  pages: number;
}

/** Returns numbers as runs, each number once. */
function runsOf(numbers: Iterable<number>): PageRun[] {
  const runs: PageRun[] = [];
  for (const number of [...new Set(numbers)].sort((a, b) => a - b)) {
    const last = runs.at(-1);
    if (last && last.first + last.pages === number) last.pages++;
    else runs.push({ first: number, pages: 1 });
  }
  return runs;
}

/** The part of the pool that is on the device. A pass is `beginPass`, then for each layer in order `enter`, appending to it, `appended`. */
export class KvWindow implements Disposable {
  readonly #pool: KvCache;
  readonly #transfer: Transfer;
  readonly #ops: Ops;
  readonly #device: DeviceSpan;
  readonly #layers: number;
  readonly #pageBytes: number;
  /** Bytes of a layer's keys, and of its values where it has them beside. */
  readonly #partBytes: bigint;
  readonly #parts: number;
  #earlier: PageRun[] = [];
  #written: PageRun[] = [];
  /** A layer whose pages are on their way, and an event behind their copies. */
  #brought: { layer: number; copied: Event } | undefined;

  /**
   * Takes the device memory of the window. `transfer` is the window's own, so that its copies do not wait behind those of weights; `ops` are the
   * computing stream's.
   */
  constructor(pool: KvCache, transfer: Transfer, ops: Ops) {
    this.#pool = pool;
    this.#transfer = transfer;
    this.#ops = ops;
    this.#layers = Math.min(KV_WINDOW_LAYERS, pool.shape.numLayers);
    const layerBytes = pool.bytes / pool.shape.numLayers;
    this.#parts = pool.shape.sharedValueDim === undefined ? 2 : 1;
    this.#partBytes = BigInt(layerBytes / this.#parts);
    this.#pageBytes = layerBytes / this.#parts / pool.pages;
    this.#device = transfer.memory.deviceBuffer(layerBytes * this.#layers);
  }

  /** Begins a pass in which each sequence, already extended by them, has so many new tokens. The pass before must be over. */
  beginPass(sequences: readonly CachedSequence[], newTokens: readonly number[]): void {
    const earlier: number[] = [], written: number[] = [];
    sequences.forEach(({ pages, tokens }, index) => {
      const before = tokens - newTokens[index];
      earlier.push(...pages.slice(0, Math.ceil(before / PAGE_TOKENS)));
      written.push(...pages.slice(Math.floor(before / PAGE_TOKENS)));
    });
    this.#earlier = runsOf(earlier);
    this.#written = runsOf(written);
    this.#bring(0);
  }

  /** Returns the device addresses of a layer's keys and values, 0 for values that keys begin with; operations enqueued from now on see them. Begins to copy the next layer's. */
  enter(layer: number): { keys: bigint; values: bigint } {
    // A layer may be left out, where it keeps no keys and values.
    if (this.#brought?.layer !== layer) this.#bring(layer);
    this.#transfer.computeAfter(this.#brought!.copied);
    if (layer + 1 < this.#pool.shape.numLayers) this.#bring(layer + 1);
    const keys = this.#address(layer);
    return { keys, values: this.#parts === 2 ? keys + this.#partBytes : 0n };
  }

  /** Enqueues taking back to the pool what was appended to a layer. */
  appended(layer: number): void {
    for (const [to, from] of this.#addresses(layer)) {
      for (const { first, pages } of this.#written) {
        const offset = BigInt(first * this.#pageBytes);
        this.#ops.copyToHost(to + offset, from + offset, pages * this.#pageBytes);
      }
    }
  }

  /** Waits for copies under way after a pass that was given up. */
  async settle(): Promise<void> {
    await this.#transfer.settle();
    this.#forget();
  }

  /** Enqueues copying what the sequences had before the pass of a layer, behind the layer whose place it takes: what was computed last. */
  #bring(layer: number): void {
    this.#forget();
    const used = this.#transfer.computed();
    this.#transfer.copyAfter(used);
    this.#transfer.events.giveBack(used);
    for (const [from, to] of this.#addresses(layer)) {
      for (const { first, pages } of this.#earlier) {
        const offset = BigInt(first * this.#pageBytes);
        this.#transfer.copy(to + offset, from + offset, pages * this.#pageBytes);
      }
    }
    this.#brought = { layer, copied: this.#transfer.copied() };
  }

  /** The addresses of a layer's keys, and of its values if it has them beside, in the pool, each with that on the device. */
  #addresses(layer: number): [pool: bigint, device: bigint][] {
    const device = this.#address(layer);
    const keys: [bigint, bigint] = [this.#pool.keys(layer), device];
    return this.#parts === 1 ? [keys] : [keys, [this.#pool.values(layer), device + this.#partBytes]];
  }

  #address(layer: number): bigint {
    return this.#device.address + BigInt(this.#parts) * this.#partBytes * BigInt(layer % this.#layers);
  }

  #forget(): void {
    if (this.#brought) this.#transfer.events.giveBack(this.#brought.copied);
    this.#brought = undefined;
  }

  [Symbol.dispose](): void {
    this.#forget();
    this.#device[Symbol.dispose]();
  }
}
