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
  /** Device bytes from one layer to the next. */
  readonly #stride: number;
  /** Of each group, pages that the sequences had before the pass, and those that it writes to. */
  #pages: readonly { earlier: PageRun[]; written: PageRun[] }[] = [];
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
    const { length } = pool.shape.layers;
    this.#layers = Math.min(KV_WINDOW_LAYERS, length);
    this.#stride = Math.max(...Array.from({ length }, (_, layer) => pool.layerBytes(layer).bytes));
    this.#device = transfer.memory.deviceBuffer(this.#stride * this.#layers);
  }

  /** Begins a pass in which each sequence, already extended by them, has so many new tokens. The pass before must be over. */
  beginPass(sequences: readonly CachedSequence[], newTokens: readonly number[]): void {
    this.#pages = this.#pool.shape.groups.map((_, group) => {
      const earlier: number[] = [], written: number[] = [];
      sequences.forEach((sequence, index) => {
        const before = sequence.tokens - newTokens[index], pages = sequence.pages(group);
        earlier.push(...pages.slice(sequence.forgottenPages(group), Math.ceil(before / PAGE_TOKENS)));
        written.push(...pages.slice(Math.floor(before / PAGE_TOKENS)));
      });
      return { earlier: runsOf(earlier), written: runsOf(written) };
    });
    this.#bring(0);
  }

  /** Returns the device addresses of a layer's keys and values, 0 for values that keys begin with; operations enqueued from now on see them. Begins to copy the next layer's. */
  enter(layer: number): { keys: bigint; values: bigint } {
    // A layer may be left out, where it keeps no keys and values.
    if (this.#brought?.layer !== layer) this.#bring(layer);
    this.#transfer.computeAfter(this.#brought!.copied);
    if (layer + 1 < this.#pool.shape.layers.length) this.#bring(layer + 1);
    const [{ device: keys }, values] = this.#parts(layer);
    return { keys, values: values?.device ?? 0n };
  }

  /** Enqueues taking back to the pool what was appended to a layer. */
  appended(layer: number): void {
    for (const { pool, device, pageBytes } of this.#parts(layer)) {
      for (const { first, pages } of this.#pagesOf(layer).written) {
        const offset = BigInt(first * pageBytes);
        this.#ops.copyToHost(pool + offset, device + offset, pages * pageBytes);
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
    for (const { pool, device, pageBytes } of this.#parts(layer)) {
      for (const { first, pages } of this.#pagesOf(layer).earlier) {
        const offset = BigInt(first * pageBytes);
        this.#transfer.copy(device + offset, pool + offset, pages * pageBytes);
      }
    }
    this.#brought = { layer, copied: this.#transfer.copied() };
  }

  #pagesOf(layer: number): { earlier: PageRun[]; written: PageRun[] } {
    return this.#pages[this.#pool.shape.layers[layer]];
  }

  /** A layer's keys, and its values if it has them beside: where they are in the pool and on the device, and the bytes of a page of them. */
  #parts(layer: number): { pool: bigint; device: bigint; pageBytes: number }[] {
    const device = this.#device.address + BigInt(this.#stride * (layer % this.#layers));
    const { bytes, keyBytes } = this.#pool.layerBytes(layer), pages = this.#pool.pages[this.#pool.shape.layers[layer]];
    const keys = { pool: this.#pool.keys(layer), device, pageBytes: keyBytes / pages };
    if (bytes === keyBytes) return [keys];
    const values = { pool: this.#pool.values(layer), device: device + BigInt(keyBytes), pageBytes: (bytes - keyBytes) / pages };
    return [keys, values];
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
