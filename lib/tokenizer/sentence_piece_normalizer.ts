/**
 * Brings text into the form that a SentencePiece model was trained on (sentencepiece, normalizer.cc).
 * @module
 */
import { CharacterTable } from "./character_table.ts";
import type { SentencePieceFile } from "./sentence_piece_file.ts";
import { crosses } from "./unigram.ts";

/** Stands for a space inside of pieces. */
export const SPACE = "\u2581";

const utf8 = new TextEncoder();

/** A text, and the indexes of UTF-16 units that no user-defined symbol reaches over. */
export interface BarredText {
  text: string;
  barriers: ReadonlySet<number>;
}

/** Finds the user-defined symbols of a model in texts, the longest at each place. */
export class SymbolMatcher {
  /** By their first UTF-16 unit, longer ones first. */
  readonly #byStart = new Map<string, string[]>();

  constructor(symbols: Iterable<string>) {
    for (const symbol of symbols) {
      const list = this.#byStart.get(symbol[0]);
      if (list) list.push(symbol);
      else this.#byStart.set(symbol[0], [symbol]);
    }
    for (const list of this.#byStart.values()) list.sort((a, b) => b.length - a.length);
  }

  /** Returns the symbol that begins at `start`; undefined where there is none. */
  match({ text, barriers }: BarredText, start: number): string | undefined {
    return this.#byStart.get(text[start])?.find((symbol) =>
      text.startsWith(symbol, start) && !(barriers.size > 0 && crosses(barriers, start, start + symbol.length))
    );
  }
}

/** Normalizes texts as one model does it. */
export class SentencePieceNormalizer {
  readonly #settings: SentencePieceFile;
  readonly #table: CharacterTable | undefined;
  readonly #symbols: SymbolMatcher;

  /** @throws {FormatError} for a table of characters that is damaged. */
  constructor(settings: SentencePieceFile, symbols: SymbolMatcher) {
    this.#settings = settings;
    this.#table = settings.characterTable.length > 0 ? new CharacterTable(settings.characterTable) : undefined;
    this.#symbols = symbols;
  }

  /** Returns a text as the model's pieces spell it. */
  normalize(source: BarredText): BarredText {
    const { addDummyPrefix, removeExtraWhitespaces, escapeWhitespaces } = this.#settings;
    const space = escapeWhitespaces ? SPACE : " ";
    const barriers = new Set<number>();
    let text = "", isPrevSpace = removeExtraWhitespaces, isEmpty = true;
    for (const { replacement, first, last } of this.#replacements(source)) {
      let part = replacement;
      // Of spaces in a row one is kept, of those at the beginning none.
      if (isPrevSpace) part = part.replace(/^ +/, "");
      if (isEmpty) {
        if (removeExtraWhitespaces && replacement === " ") continue;
        isEmpty = false;
        if (addDummyPrefix) text += space;
      }
      if (source.barriers.has(first)) barriers.add(text.length);
      const isBarred = source.barriers.size > 0 && crosses(source.barriers, first, last);
      if (isBarred) { for (let i = 1; i < part.length; i++) barriers.add(text.length + i); }
      // Both spell a space with one UTF-16 unit.
      text += escapeWhitespaces ? part.replaceAll(" ", SPACE) : part;
      if (part !== "") isPrevSpace = removeExtraWhitespaces && part.endsWith(" ");
    }
    if (removeExtraWhitespaces) { while (text.endsWith(space)) text = text.slice(0, -space.length); }
    return { text, barriers };
  }

  /** Goes through a text: each symbol, what the table replaces, or character, with what it becomes and the range it takes. */
  *#replacements(source: BarredText): Generator<{ replacement: string; first: number; last: number }> {
    const { text } = source, table = this.#table;
    // A lone surrogate has no bytes of its own: it becomes U+FFFD here as in UTF-8.
    const bytes = table && utf8.encode(text);
    for (let at = 0, byte = 0; at < text.length;) {
      const symbol = this.#symbols.match(source, at);
      let replacement = symbol ?? "", end = at + replacement.length;
      if (symbol === undefined) {
        const rule = bytes && table.longest(bytes, byte);
        end = at + (text.codePointAt(at)! > 0xffff ? 2 : 1);
        replacement = text.slice(at, end).toWellFormed();
        if (rule) {
          const ruleEnd = advance(text, at, rule.bytes);
          // One that ends inside a character is no rule of SentencePiece's.
          if (ruleEnd !== undefined) [replacement, end] = [rule.replacement, ruleEnd];
        }
      }
      yield { replacement, first: at, last: end };
      if (bytes) byte += byteLength(text, at, end);
      at = end;
    }
  }
}

/** Returns the bytes of UTF-8 of a part of a text. */
function byteLength(text: string, start: number, end: number): number {
  let bytes = 0;
  for (let at = start; at < end; at++) {
    const code = text.codePointAt(at)!;
    bytes += code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
    if (code > 0xffff) at++;
  }
  return bytes;
}

/** Returns the index after so many bytes of UTF-8 from `start`, undefined where that is inside a character. */
function advance(text: string, start: number, bytes: number): number | undefined {
  let at = start;
  while (bytes > 0 && at < text.length) {
    const next = at + (text.codePointAt(at)! > 0xffff ? 2 : 1);
    bytes -= byteLength(text, at, next);
    at = next;
  }
  return bytes === 0 ? at : undefined;
}
