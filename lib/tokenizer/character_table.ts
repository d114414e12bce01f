/**
 * The table of characters that SentencePiece normalizes with, `precompiled_charsmap`: a trie of what is replaced and the texts that replace it
 * (sentencepiece, normalizer.cc). The trie is a double array of Darts-clone: a unit says where its children lie and which byte leads to it.
 * @module
 */
import { FormatError } from "../errors.ts";

const utf8 = new TextEncoder();

/** A rule that matches a text. */
export interface CharacterRule {
  /** Bytes of UTF-8 that it replaces. */
  bytes: number;
  replacement: string;
}

/** Rules by what they replace. */
export class CharacterTable {
  readonly #units: Uint32Array;
  readonly #texts: Uint8Array;
  readonly #replacements = new Map<number, string>();
  readonly #graphemes = new Intl.Segmenter("en", { granularity: "grapheme" });

  /**
   * Reads a table: u32 of the trie's bytes, the trie, and texts that end with a zero.
   * @throws {FormatError} where the sizes contradict each other.
   */
  constructor(file: Uint8Array) {
    const view = new DataView(file.buffer, file.byteOffset, file.byteLength);
    const trieBytes = file.length < 4 ? 0 : view.getUint32(0, true);
    if (trieBytes === 0 || trieBytes % 4 !== 0 || 4 + trieBytes > file.length) {
      throw new FormatError(`Cannot use the tokenizer: its table of characters of ${file.length} bytes is damaged`);
    }
    this.#units = Uint32Array.from({ length: trieBytes / 4 }, (_, i) => view.getUint32(4 + 4 * i, true));
    this.#texts = file.subarray(4 + trieBytes);
  }

  /** Goes through the rules that match the beginning of `text.subarray(start)`, shorter ones first. */
  *#rules(text: Uint8Array, start: number): Generator<CharacterRule> {
    const units = this.#units;
    let node = childrenOf(units[0]);
    for (let at = start; at < text.length && text[at] !== 0; at++) {
      node ^= text[at];
      // A number outside of the array is undefined, which no byte equals.
      const unit = units[node];
      if (unit === undefined || ((unit & 0x800000ff) >>> 0) !== text[at]) return;
      node ^= childrenOf(unit);
      const leaf = units[node];
      if ((unit >>> 8 & 1) === 1 && leaf !== undefined) {
        yield { bytes: at + 1 - start, replacement: this.#replacement(leaf & 0x7fffffff) };
      }
    }
  }

  #replacement(offset: number): string {
    let text = this.#replacements.get(offset);
    if (text === undefined) {
      const end = this.#texts.indexOf(0, offset);
      text = new TextDecoder().decode(this.#texts.subarray(offset, end < 0 ? undefined : end));
      this.#replacements.set(offset, text);
    }
    return text;
  }

  /** Returns the longest rule that matches the beginning of `text.subarray(start)`, as SentencePiece applies them. */
  longest(text: Uint8Array, start: number): CharacterRule | undefined {
    let found: CharacterRule | undefined;
    for (const rule of this.#rules(text, start)) found = rule;
    return found;
  }

  /**
   * Returns a text with its characters replaced as Hugging Face's `tokenizers` does it, not as SentencePiece: of a short grapheme as a whole or of each
   * character, the shortest rule that matches its beginning (spm_precompiled, lib.rs).
   */
  replaceGraphemes(text: string): string {
    let result = "";
    for (const { segment } of this.#graphemes.segment(text)) {
      const bytes = utf8.encode(segment);
      const whole = bytes.length < 6 ? this.#shortest(bytes) : undefined;
      if (whole !== undefined) result += whole;
      else for (const character of segment) result += this.#shortest(utf8.encode(character)) ?? character;
    }
    return result;
  }

  #shortest(bytes: Uint8Array): string | undefined {
    for (const { replacement } of this.#rules(bytes, 0)) return replacement;
  }
}

/** Returns what the place of a unit's children is combined with. */
function childrenOf(unit: number): number {
  return (unit >>> 10) << ((unit & 0x200) >>> 6);
}
