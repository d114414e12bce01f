/**
 * Checks what a caller brings to a pass and lays it out as rows. Pure: no memory is touched and no sequence changed.
 * @module
 */
import { BudgetError, UsageError } from "../errors.ts";
import type { BlankFilling } from "../models/architecture.ts";
import { type Blank, findBlank, textMask } from "./blank_filling.ts";
import type { Sequence } from "./sequence.ts";

/** Most of the likeliest tokens that a pass returns. */
export const MOST_TOP_K = 256;

/** What one sequence brings to a pass. */
export interface PassItem {
  sequence: Sequence;
  /** New tokens: a chunk of a prompt, one token, or a draft to verify. */
  tokens: ArrayLike<number>;
  /** For which of `tokens` the prediction of the next token is wanted; numbers are indexes into `tokens`. */
  logits: "none" | "last" | "all" | readonly number[];
  /** What is returned for those: all logits (the default), the likeliest token alone, or so many of the likeliest, {@linkcode MOST_TOP_K} at most. */
  output?: "logits" | "argmax" | { topK: number };
  /**
   * u8 [tokens, tokens]: token i sees token j where mask[i * tokens + j] is not 0; without it, all up to itself. A token's position is that of
   * its depth: the tokens cached before, plus the others of this pass that it sees.
   */
  mask?: Uint8Array;
  /** Length the sequence will have once the whole prompt is in, where this is a chunk of it; only dynamic rope depends on it. */
  ropeSpanTokens?: number;
}

/** What a pass may hold. */
export interface PassLimits {
  vocabSize: number;
  passTokens: number;
  logitRows: number;
  /** Of a model that fills blanks. */
  blankFilling?: BlankFilling;
}

/** One item's place in the pass. */
export interface ItemLayout {
  item: PassItem;
  /** Its first row among the pass's tokens. */
  firstToken: number;
  tokens: number;
  /** Its first row among the pass's logits. */
  firstRow: number;
  rows: number;
  /** The item's own mask, or that of a text which is read in both directions. */
  mask?: Uint8Array;
  /** The blank that the sequence fills, of a model that does that. */
  blank?: Blank;
}

/** A pass laid out: every token has a row, items one after the other. */
export interface PassLayout {
  items: ItemLayout[];
  tokens: number;
  /** [tokens] */
  ids: Int32Array;
  /** Rows of the pass whose logits are wanted, in the order of the items. */
  logitRows: number[];
  /** Whether any item has a mask. */
  masked: boolean;
}

/** Returns the indexes into `item.tokens` whose logits are wanted. */
function wantedRows(item: PassItem): number[] {
  const count = item.tokens.length;
  if (item.logits === "none") return [];
  if (item.logits === "last") return [count - 1];
  if (item.logits === "all") return Array.from({ length: count }, (_, index) => index);
  for (const index of item.logits) {
    if (!Number.isInteger(index) || index < 0 || index >= count) {
      throw new UsageError(`Cannot return logits of token ${index} of an item: it has ${count} tokens`);
    }
  }
  return [...item.logits];
}

function checkMask(mask: Uint8Array, tokens: number): void {
  if (mask.length !== tokens * tokens) {
    throw new UsageError(`Cannot use a mask of ${mask.length} entries: ${tokens} tokens require ${tokens * tokens}`);
  }
  for (let i = 0; i < tokens; i++) {
    if (mask[i * tokens + i] === 0) throw new UsageError(`Cannot use a mask in which token ${i} does not see itself`);
  }
}

/** Returns the blank that an item's sequence fills, found in its first pass. @throws {UsageError} */
function blankOf(item: PassItem, blankFilling: BlankFilling): Blank {
  const { sequence, tokens, mask } = item;
  if (sequence.cachedTokens > 0 && sequence.blank) return sequence.blank;
  if (mask) {
    throw new UsageError("Cannot use a mask in a sequence's first pass: this model reads a prompt's text in both directions");
  }
  return findBlank(blankFilling, tokens);
}

function checkOutput({ output }: PassItem, { vocabSize }: PassLimits): void {
  if (typeof output !== "object") return;
  const { topK } = output, most = Math.min(MOST_TOP_K, vocabSize);
  if (!Number.isInteger(topK) || topK < 1 || topK > most) {
    throw new UsageError(`Cannot return the ${topK} likeliest tokens: required is a whole number from 1 to ${most}`);
  }
}

/**
 * Returns the layout of a pass.
 *
 * @throws {UsageError} for an item that means nothing: no tokens, a token outside the vocabulary, a sequence given twice.
 * @throws {BudgetError} where the items need more rows than the plan has.
 */
export function layOutPass(items: readonly PassItem[], limits: PassLimits): PassLayout {
  if (items.length === 0) throw new UsageError("Cannot run a pass: it has no items");
  const tokens = items.reduce((sum, item) => sum + item.tokens.length, 0);
  if (tokens > limits.passTokens) {
    throw new BudgetError(`Cannot run ${tokens} tokens in one pass: the plan has room for ${limits.passTokens}`);
  }
  const layout: PassLayout = { items: [], tokens, ids: new Int32Array(tokens), logitRows: [], masked: false };
  const seen = new Set<Sequence>();
  let firstToken = 0;
  for (const item of items) {
    const count = item.tokens.length;
    if (count === 0) throw new UsageError("Cannot run a pass: an item has no tokens");
    if (seen.has(item.sequence)) throw new UsageError("Cannot run a pass: a sequence is in two of its items");
    seen.add(item.sequence);
    for (let i = 0; i < count; i++) {
      const id = item.tokens[i];
      if (!Number.isInteger(id) || id < 0 || id >= limits.vocabSize) {
        throw new UsageError(`Cannot run token ${id}: the vocabulary has ids 0 to ${limits.vocabSize - 1}`);
      }
      layout.ids[firstToken + i] = id;
    }
    if (item.mask) checkMask(item.mask, count);
    const blank = limits.blankFilling && blankOf(item, limits.blankFilling);
    // Only of a text must tokens see what comes after them.
    const mask = blank && item.sequence.cachedTokens === 0 ? textMask(blank, count) : item.mask;
    if (mask) layout.masked = true;
    const endTokens = item.sequence.cachedTokens + count;
    if (item.ropeSpanTokens !== undefined && !(item.ropeSpanTokens >= endTokens)) {
      throw new UsageError(
        `Cannot use ropeSpanTokens ${item.ropeSpanTokens}: the sequence has ${endTokens} tokens after the pass`,
      );
    }
    const rows = wantedRows(item);
    checkOutput(item, limits);
    layout.items.push({ item, firstToken, tokens: count, firstRow: layout.logitRows.length, rows: rows.length, mask, blank });
    for (const row of rows) layout.logitRows.push(firstToken + row);
    firstToken += count;
  }
  if (layout.logitRows.length > limits.logitRows) {
    throw new BudgetError(
      `Cannot return ${layout.logitRows.length} rows of logits in one pass: the plan has room for ${limits.logitRows}`,
    );
  }
  return layout;
}

/** Returns how many of the pass's own tokens token `index` of an item sees before itself, which is its depth. */
export function depthInPass(item: PassItem, index: number): number {
  if (!item.mask) return index;
  const tokens = item.tokens.length;
  let depth = -1;
  for (let j = 0; j < tokens; j++) if (item.mask[index * tokens + j] !== 0) depth++;
  return depth;
}

/** Writes the mask of the whole pass, u8 [tokens, tokens], items without one in causal order. */
export function fillMask(layout: PassLayout, mask: Uint8Array): void {
  mask.fill(0, 0, layout.tokens * layout.tokens);
  for (const { mask: own, firstToken, tokens } of layout.items) {
    for (let i = 0; i < tokens; i++) {
      const start = (firstToken + i) * layout.tokens + firstToken;
      if (own) mask.set(own.subarray(i * tokens, (i + 1) * tokens), start);
      else mask.fill(1, start, start + i + 1);
    }
  }
}
