/**
 * The paged KV cache: one pool of pages for all sequences, so that a sequence takes memory for the tokens it has, not for the tokens it may
 * get. Kwon et al. 2023 (PagedAttention), arXiv:2309.06180.
 * @module
 */
import { BudgetError, UsageError } from "../errors.ts";
import { AIRK_F16, AIRK_F32, AIRK_Q8 } from "../ffi/abi.ts";
import type { DeviceAllocator, DeviceSpan } from "../ffi/context.ts";

/**
 * Tokens a page. A run of 32 keys of one head is 8 KiB at head size 128 in f16, long enough to read at full speed; larger pages would leave
 * more memory unused at the end of each sequence (405B: 16 MB a page as it is).
 */
export const PAGE_TOKENS = 32;

/** Element type of cached keys and values. */
export type KvCacheType = "f16" | "f32" | "q8";

/**
 * The native id of each element type, and the bytes of a row of `dim` elements. q8 is 8-bit codes with a float16 scale for each 32 elements: see
 * airk_kv_append in cuda/airkern.h.
 */
const CACHE_TYPES: Record<KvCacheType, { native: number; rowBytes(dim: number): number }> = {
  f16: { native: AIRK_F16, rowBytes: (dim) => 2 * dim },
  f32: { native: AIRK_F32, rowBytes: (dim) => 4 * dim },
  q8: { native: AIRK_Q8, rowBytes: (dim) => 34 * Math.ceil(dim / 32) },
};

/** All of them, the default first. */
export const KV_CACHE_TYPES: readonly ["f16", "f32", "q8"] = ["f16", "f32", "q8"];

/** Shape of a cache. */
export interface KvCacheShape {
  numLayers: number;
  numKvHeads: number;
  headDim: number;
  /** Elements of a value where keys begin with their values, and keys alone are cached; absent where values are cached beside keys. */
  sharedValueDim?: number;
  type: KvCacheType;
}

/** Returns the bytes that one token's keys and values take in all layers. */
export function kvBytesPerToken(shape: KvCacheShape): number {
  const { numLayers, numKvHeads, headDim, sharedValueDim, type } = shape;
  return numLayers * (sharedValueDim === undefined ? 2 : 1) * numKvHeads * CACHE_TYPES[type].rowBytes(headDim);
}

/** Keys and values of all layers, in pages that sequences take and give back. */
export class KvCache implements Disposable {
  readonly shape: KvCacheShape;
  /** Pages of the pool. A page holds PAGE_TOKENS tokens of every layer. */
  readonly pages: number;
  readonly #buffer: DeviceSpan;
  readonly #freePages: number[];
  readonly #layerBytes: bigint;

  /** Reserves a pool of `pages` pages from a device or an arena. */
  constructor(memory: DeviceAllocator, shape: KvCacheShape, pages: number) {
    this.shape = shape;
    this.pages = pages;
    const bytes = pages * PAGE_TOKENS * kvBytesPerToken(shape);
    this.#buffer = memory.deviceBuffer(bytes);
    this.#layerBytes = BigInt(bytes / shape.numLayers);
    // Popped from the end, so that the first sequence gets the first pages.
    this.#freePages = Array.from({ length: pages }, (_, index) => pages - 1 - index);
  }

  get bytes(): number {
    return this.#buffer.bytes;
  }

  /** Pages that no sequence holds. */
  get freePages(): number {
    return this.#freePages.length;
  }

  /** AIRK_F16, AIRK_F32 or AIRK_Q8. */
  get nativeType(): number {
    return CACHE_TYPES[this.shape.type].native;
  }

  /** Device address of a layer's keys: [pages, kvHeads, PAGE_TOKENS, headDim] in the type's layout. */
  keys(layer: number): bigint {
    return this.#buffer.address + BigInt(layer) * this.#layerBytes;
  }

  /** Device address of a layer's values, in the shape of its keys; 0 where those begin with them. */
  values(layer: number): bigint {
    return this.shape.sharedValueDim === undefined ? this.keys(layer) + this.#layerBytes / 2n : 0n;
  }

  /** Opens an empty sequence that may hold at most `capacityTokens`. */
  sequence(capacityTokens: number): CachedSequence {
    return new CachedSequence(this.#freePages, capacityTokens);
  }

  [Symbol.dispose](): void {
    this.#buffer[Symbol.dispose]();
  }
}

/** The pages of one sequence. */
export class CachedSequence implements Disposable {
  readonly capacityTokens: number;
  readonly #freePages: number[];
  readonly #pages: number[] = [];
  #tokens = 0;
  #disposed = false;

  /** Made by {@linkcode KvCache.sequence}. */
  constructor(freePages: number[], capacityTokens: number) {
    this.#freePages = freePages;
    this.capacityTokens = capacityTokens;
  }

  /** Tokens whose keys and values are in the cache. */
  get tokens(): number {
    return this.#tokens;
  }

  get disposed(): boolean {
    return this.#disposed;
  }

  /** Page numbers in order of position. */
  get pages(): readonly number[] {
    return this.#pages;
  }

  /** Returns the slot of a position: its index among the tokens of the whole pool. */
  slot(position: number): number {
    return this.#pages[Math.floor(position / PAGE_TOKENS)] * PAGE_TOKENS + position % PAGE_TOKENS;
  }

  /**
   * Makes room for `tokens` more, all or none.
   * @throws {BudgetError} where the sequence would outgrow its capacity or the pool has too few free pages.
   */
  extend(tokens: number): void {
    if (this.#disposed) throw new UsageError("Cannot extend a sequence: it is closed");
    const total = this.#tokens + tokens;
    if (total > this.capacityTokens) {
      throw new BudgetError(
        `Cannot hold ${total} tokens in a sequence (${this.#tokens} cached, ${tokens} new): the context is ${this.capacityTokens} tokens`,
      );
    }
    const missing = Math.ceil(total / PAGE_TOKENS) - this.#pages.length;
    if (missing > this.#freePages.length) {
      const free = this.#freePages.length * PAGE_TOKENS + this.#pages.length * PAGE_TOKENS - this.#tokens;
      throw new BudgetError(`Cannot cache ${tokens} more tokens: the KV cache has room for ${free}`);
    }
    for (let i = 0; i < missing; i++) this.#pages.push(this.#freePages.pop()!);
    this.#tokens = total;
  }

  /**
   * Forgets all but the first `tokens` and gives their pages back.
   * @throws {UsageError} where the sequence has fewer.
   */
  truncate(tokens: number): void {
    if (!Number.isInteger(tokens) || tokens < 0 || tokens > this.#tokens) {
      throw new UsageError(`Cannot truncate a sequence to ${tokens} tokens: it has ${this.#tokens}`);
    }
    const keep = Math.ceil(tokens / PAGE_TOKENS);
    while (this.#pages.length > keep) this.#freePages.push(this.#pages.pop()!);
    this.#tokens = tokens;
  }

  [Symbol.dispose](): void {
    if (this.#disposed) return;
    this.truncate(0);
    this.#disposed = true;
  }
}
