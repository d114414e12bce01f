/**
 * What a tokenizer is made of, whatever file describes it. Types only.
 * @module
 */
import type { AddedToken, TokenEncoder } from "./encoder.ts";

/** The parts of a tokenizer. */
export interface TokenizerParts {
  encoder: TokenEncoder;
  /** The text of each token, by id; holes where there is none. */
  vocabulary: readonly (string | undefined)[];
  /** Returns the id of a token by its text. */
  idOf(token: string): number | undefined;
  /** Tokens that stand for themselves. */
  added: readonly AddedToken[];
  /** What is done to a text before tokens that are `normalized` are looked for. */
  normalize(text: string): string;
  /** Tokens put around a text, unless tokenizer_config.json says otherwise. */
  before: readonly string[];
  after: readonly string[];
  /** The token that ends a text, where tokenizer_config.json names none. */
  eosToken?: string;
  /** How tokens become text, as the `decoder` of a tokenizer.json says it. */
  decoder: unknown;
}
