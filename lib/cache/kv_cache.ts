/**
 * The paged KV cache: one pool of pages for all sequences, so that a sequence takes memory for the tokens it has, not for the tokens it may
 * get. Kwon et al. 2023 (PagedAttention), arXiv:2309.06180.
 * @module
 */
import { BudgetError, UsageError } from "../errors.ts";
import { AIRK_F16, AIRK_F32, AIRK_Q8 } from "../ffi/abi.ts";
import type { DeviceAllocator, DeviceSpan } from "../ffi/context.ts";
import { firstVisible, firstWithin, type View, viewKey } from "./view.ts";

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

/** Layers whose keys and values have one shape, and in which a token sees as much of its sequence. */
export interface KvGroup {
  numKvHeads: number;
  /** Elements of a key. */
  headDim: number;
  /** Elements of a value. */
  valueDim: number;
  /** Whether keys begin with their values, and keys alone are cached. */
  sharesKeys: boolean;
  /** What a token sees; all before it where this is absent. */
  view?: View;
}

/** Shape of a cache. */
export interface KvCacheShape {
  type: KvCacheType;
  groups: readonly KvGroup[];
  /** For each layer that keeps keys and values, the index of its group. */
  layers: readonly number[];
}

/** Returns the bytes that one token's keys and values take in a layer of a group. */
export function kvBytesPerToken(type: KvCacheType, { numKvHeads, headDim, valueDim, sharesKeys }: KvGroup): number {
  const { rowBytes } = CACHE_TYPES[type];
  return numKvHeads * (rowBytes(headDim) + (sharesKeys ? 0 : rowBytes(valueDim)));
}

/**
 * Returns the pages that a sequence holds at most in a group: all of its context, or what the first token of a pass sees and the pass itself, whose
 * first and last page may be used in part.
 */
export function pagesPerSequence({ view }: KvGroup, contextPages: number, passTokens: number): number {
  return view ? Math.min(contextPages, Math.ceil((view.tokens - 1 + passTokens) / PAGE_TOKENS) + 1) : contextPages;
}

/** Where a layer's keys and values are, relative to the cache's start. */
interface LayerPlace {
  keys: bigint;
  values: bigint;
  bytes: number;
}

/** Keys and values of all layers, in pages that sequences take and give back, of each group its own. */
export class KvCache implements Disposable {
  readonly shape: KvCacheShape;
  /** Pages of each group's pool. A page holds PAGE_TOKENS tokens of every layer of the group. */
  readonly pages: readonly number[];
  readonly #buffer: DeviceSpan;
  readonly #freePages: number[][];
  readonly #places: readonly LayerPlace[];

  /** Reserves pools of so many pages from a device or an arena, one for each group. */
  constructor(memory: DeviceAllocator, shape: KvCacheShape, pages: readonly number[]) {
    this.shape = shape;
    this.pages = pages;
    let offset = 0;
    this.#places = shape.layers.map((index) => {
      const group = shape.groups[index], tokens = pages[index] * PAGE_TOKENS, bytes = tokens * kvBytesPerToken(shape.type, group);
      const keyBytes = tokens * group.numKvHeads * CACHE_TYPES[shape.type].rowBytes(group.headDim);
      const place = { keys: BigInt(offset), values: BigInt(offset + keyBytes), bytes };
      offset += bytes;
      return place;
    });
    this.#buffer = memory.deviceBuffer(offset);
    // Popped from the end, so that the first sequence gets the first pages.
    this.#freePages = pages.map((count) => Array.from({ length: count }, (_, index) => count - 1 - index));
  }

  /** Returns the bytes of a cache with so many pages in each group's pool. */
  static bytes({ type, groups, layers }: KvCacheShape, pages: readonly number[]): number {
    return layers.reduce((sum, group) => sum + pages[group] * PAGE_TOKENS * kvBytesPerToken(type, groups[group]), 0);
  }

  get bytes(): number {
    return this.#buffer.bytes;
  }

  /** Pages of a group that no sequence holds. */
  freePages(group: number): number {
    return this.#freePages[group].length;
  }

  /** AIRK_F16, AIRK_F32 or AIRK_Q8. */
  get nativeType(): number {
    return CACHE_TYPES[this.shape.type].native;
  }

  /** The group of a layer. */
  group(layer: number): KvGroup {
    return this.shape.groups[this.shape.layers[layer]];
  }

  /** Bytes of a layer's keys and values, and of its keys alone. */
  layerBytes(layer: number): { bytes: number; keyBytes: number } {
    const { keys, values, bytes } = this.#places[layer];
    return { bytes, keyBytes: Number(values - keys) };
  }

  /** Device address of a layer's keys: [pages, kvHeads, PAGE_TOKENS, headDim] in the type's layout. */
  keys(layer: number): bigint {
    return this.#buffer.address + this.#places[layer].keys;
  }

  /** Device address of a layer's values, [pages, kvHeads, PAGE_TOKENS, valueDim]; 0 where keys begin with them. */
  values(layer: number): bigint {
    return this.group(layer).sharesKeys ? 0n : this.#buffer.address + this.#places[layer].values;
  }

  /** Opens an empty sequence that may hold at most `capacityTokens`. */
  sequence(capacityTokens: number): CachedSequence {
    return new CachedSequence(this.shape.groups.map(({ view }, i) => ({ view, freePages: this.#freePages[i] })), capacityTokens);
  }

  [Symbol.dispose](): void {
    this.#buffer[Symbol.dispose]();
  }
}

/** The pages that one sequence has of a group. */
interface HeldPages {
  readonly view: View | undefined;
  /** The group's pool. */
  readonly freePages: number[];
  /** Page numbers in order of position; NO_PAGE for those that no token will see any more. */
  readonly pages: number[];
  /** Pages that were given back at the front. */
  forgotten: number;
}

/** Stands for a page that was given back; attention does not read what no token sees. */
export const NO_PAGE = -1;

/** The pages of one sequence. What lies before all that its next token sees is given back as it grows. */
export class CachedSequence implements Disposable {
  readonly capacityTokens: number;
  readonly #groups: readonly HeldPages[];
  #tokens = 0;
  #disposed = false;

  /** Made by {@linkcode KvCache.sequence}. */
  constructor(groups: readonly Pick<HeldPages, "view" | "freePages">[], capacityTokens: number) {
    this.#groups = groups.map((group) => ({ ...group, pages: [], forgotten: 0 }));
    this.capacityTokens = capacityTokens;
  }

  /** Tokens whose keys and values are in the cache, or were and are not seen any more. */
  get tokens(): number {
    return this.#tokens;
  }

  get disposed(): boolean {
    return this.#disposed;
  }

  /** Page numbers of a group in order of position, as many in each; NO_PAGE for those that were given back. */
  pages(group: number): readonly number[] {
    return this.#groups[group].pages;
  }

  /** Pages of a group that were given back: the first ones. */
  forgottenPages(group: number): number {
    return this.#groups[group].forgotten;
  }

  /** Returns the slot of a position in a group: its index among the tokens of the whole pool. */
  slot(group: number, position: number): number {
    return this.#groups[group].pages[Math.floor(position / PAGE_TOKENS)] * PAGE_TOKENS + position % PAGE_TOKENS;
  }

  /**
   * Makes room for `tokens` more, all or none.
   * @throws {BudgetError} where the sequence would outgrow its capacity or a pool has too few free pages.
   */
  extend(tokens: number): void {
    if (this.#disposed) throw new UsageError("Cannot extend a sequence: it is closed");
    const total = this.#tokens + tokens;
    if (total > this.capacityTokens) {
      throw new BudgetError(
        `Cannot hold ${total} tokens in a sequence (${this.#tokens} cached, ${tokens} new): the context is ${this.capacityTokens} tokens`,
      );
    }
    // Kept is what the first new token sees: so the sequence can be taken back to where it was.
    const steps = this.#groups.map((group) => ({
      group,
      forgotten: Math.max(group.forgotten, Math.floor(firstVisible(group.view, this.#tokens) / PAGE_TOKENS)),
      missing: Math.ceil(total / PAGE_TOKENS) - group.pages.length,
    }));
    for (const { group: { freePages, pages, forgotten: before }, forgotten, missing } of steps) {
      const available = freePages.length + forgotten - before;
      if (missing <= available) continue;
      const room = (available + pages.length) * PAGE_TOKENS - this.#tokens;
      throw new BudgetError(`Cannot cache ${tokens} more tokens: the KV cache has room for ${room}`);
    }
    for (const { group, forgotten, missing } of steps) {
      for (; group.forgotten < forgotten; group.forgotten++) {
        group.freePages.push(group.pages[group.forgotten]);
        group.pages[group.forgotten] = NO_PAGE;
      }
      for (let i = 0; i < missing; i++) group.pages.push(group.freePages.pop()!);
    }
    this.#tokens = total;
  }

  /**
   * Forgets all but the first `tokens` and gives their pages back.
   * @throws {UsageError} where the sequence has fewer, or has given back what the next token would see.
   */
  truncate(tokens: number): void {
    if (!Number.isInteger(tokens) || tokens < 0 || tokens > this.#tokens) {
      throw new UsageError(`Cannot truncate a sequence to ${tokens} tokens: it has ${this.#tokens}`);
    }
    for (const { view, forgotten } of tokens > 0 ? this.#groups : []) {
      const least = view && forgotten > 0 ? firstWithin(view, forgotten * PAGE_TOKENS) : 0;
      if (tokens >= least) continue;
      throw new UsageError(
        `Cannot truncate a sequence to ${tokens} tokens: layers that see a ${viewKey(view!)} have kept what comes after ` +
          `${forgotten * PAGE_TOKENS} tokens, required is 0 or at least ${least}`,
      );
    }
    const keep = Math.ceil(tokens / PAGE_TOKENS);
    for (const group of this.#groups) {
      while (group.pages.length > keep) {
        const page = group.pages.pop()!;
        if (page !== NO_PAGE) group.freePages.push(page);
      }
      group.forgotten = Math.min(group.forgotten, keep);
    }
    this.#tokens = tokens;
  }

  [Symbol.dispose](): void {
    if (this.#disposed) return;
    this.truncate(0);
    this.#disposed = true;
  }
}
