/**
 * Where the text of a sequence ends and which blank of it is filled: Du et al. 2022 (GLM), arXiv:2103.10360. Pure: numbers in, numbers out.
 * @module
 */
import { UsageError } from "../errors.ts";
import type { BlankFilling } from "../models/architecture.ts";

/** What of a sequence's text its later tokens depend on. */
export interface Blank {
  /** Tokens of the text, which see each other in both directions. */
  textTokens: number;
  /** Place of the blank in the text. */
  position: number;
}

/**
 * Finds the blank of a prompt's text.
 * @throws {UsageError} where the tokens hold no blank, or no token that ends the text.
 */
export function findBlank({ startTokenId, blankTokenIds }: BlankFilling, tokens: ArrayLike<number>): Blank {
  const all = Array.from(tokens), textTokens = all.indexOf(startTokenId);
  const blankTokenId = blankTokenIds.find((id) => all.includes(id));
  if (textTokens < 0 || blankTokenId === undefined) {
    const missing = textTokens < 0
      ? `token ${startTokenId}, which ends its text`
      : `a blank (token ${blankTokenIds.join(" or ")})`;
    throw new UsageError(
      `Cannot run a prompt of ${all.length} tokens: this model reads a prompt's text as a whole, required in its first pass is ${missing}`,
    );
  }
  return { textTokens, position: all.indexOf(blankTokenId) };
}

/** Returns the mask of a pass that begins with the text, u8 [tokens, tokens]: all see the text, what follows in causal order. */
export function textMask({ textTokens }: Blank, tokens: number): Uint8Array {
  const mask = new Uint8Array(tokens * tokens);
  for (let i = 0; i < tokens; i++) mask.fill(1, i * tokens, i * tokens + Math.max(textTokens, i + 1));
  return mask;
}

/** Returns the text and span positions of the token in a place of the sequence. */
export function blankPositions({ textTokens, position }: Blank, place: number): { text: number; span: number } {
  return place < textTokens ? { text: place, span: 0 } : { text: position, span: place - textTokens + 1 };
}
