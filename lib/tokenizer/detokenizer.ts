/**
 * Turns tokens into text one at a time, so that text can be shown as it is generated.
 *
 * A token may end in the middle of a character: its bytes are kept until the character is complete. The pieces joined are the text of all
 * tokens together. Follows the decoders of Hugging Face's `tokenizers` (decoders/byte_level.rs, metaspace.rs, byte_fallback.rs, strip.rs).
 * @module
 */
import { UnsupportedError } from "../errors.ts";

/** What a token stands for: bytes that may be a part of a character, or whole text. */
type TokenContent = Uint8Array | string;

/** How a tokenizer's tokens become text, read from the `decoder` of its tokenizer.json. */
export interface TokenDecoder {
  /**
   * Returns what a token adds, before spaces at the start of the text are removed.
   * @param isFirst Whether no token came before it.
   */
  content(id: number, isFirst: boolean): TokenContent;
  /** Whether the token is left out where special tokens are skipped. */
  isSpecial(id: number): boolean;
  /** Spaces removed from the start of a text: a number of them, or all those of the first token (`Metaspace`). */
  readonly leadingSpaces: number | "first token";
}

/** The vocabulary that a decoder works on. */
export interface DecoderVocabulary {
  /** Returns a token's text as the vocabulary spells it, undefined for an id without one. */
  token(id: number): string | undefined;
  /** Ids of the tokens beside the model's own, which stand for themselves, and whether they are special. */
  addedTokens: ReadonlyMap<number, { content: string; special: boolean }>;
}

/** The steps of a tokenizer.json's decoder that are known here. */
interface DecoderStep {
  type: string;
  decoders?: DecoderStep[];
  pattern?: { String?: string };
  content?: string;
  prefix?: string;
  cleanup?: boolean;
  start?: number;
  stop?: number;
  replacement?: string;
  prepend_scheme?: string;
}

/** Returns for each character of GPT-2's byte alphabet the byte it stands for (openai/gpt-2, encoder.py, bytes_to_unicode). */
export function byteAlphabet(): Map<string, number> {
  const alphabet = new Map<string, number>();
  let next = 256;
  for (let byte = 0; byte < 256; byte++) {
    const printable = (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
    alphabet.set(String.fromCharCode(printable ? byte : next++), byte);
  }
  return alphabet;
}

const utf8 = new TextEncoder();

/** The byte-level decoder of GPT-2 and Llama 3: every character of a token is one byte. */
function byteLevelDecoder(vocabulary: DecoderVocabulary): TokenDecoder {
  const alphabet = byteAlphabet();
  return {
    leadingSpaces: 0,
    isSpecial: (id) => vocabulary.addedTokens.get(id)?.special ?? false,
    content(id) {
      const added = vocabulary.addedTokens.get(id);
      if (added) return utf8.encode(added.content);
      const token = vocabulary.token(id) ?? "";
      const bytes = new Uint8Array(token.length);
      for (let i = 0; i < token.length; i++) {
        const byte = alphabet.get(token[i]);
        // A token that is not spelled in the byte alphabet stands for itself.
        if (byte === undefined) return utf8.encode(token);
        bytes[i] = byte;
      }
      return bytes;
    },
  };
}

/** What BERT's decoder makes of a token's text, in this order: spaces that its pre-tokenizer put in go. */
const CLEANUPS: [string, string][] = [
  ...[[" .", "."], [" ?", "?"], [" !", "!"], [" ,", ","], [" ' ", "'"], [" n't", "n't"], [" 'm", "'m"]] as [string, string][],
  ...[[" do not", " don't"], [" 's", "'s"], [" 've", "'ve"], [" 're", "'re"]] as [string, string][],
];

/** The decoder of BERT: a space before each token but those that go on a word (decoders/wordpiece.rs). */
function wordPieceDecoder(vocabulary: DecoderVocabulary, prefix: string, cleanup: boolean): TokenDecoder {
  return {
    leadingSpaces: 0,
    isSpecial: (id) => vocabulary.addedTokens.get(id)?.special ?? false,
    content(id, isFirst) {
      const token = vocabulary.addedTokens.get(id)?.content ?? vocabulary.token(id) ?? "";
      const text = isFirst ? token : token.startsWith(prefix) ? token.replace(prefix, "") : ` ${token}`;
      return cleanup ? CLEANUPS.reduce((text, [from, to]) => text.replaceAll(from, to), text) : text;
    },
  };
}

/** The decoder of SentencePiece vocabularies (Llama 1 and 2): `▁` for a space, `<0xNN>` for a byte without a token. */
function sentencePieceDecoder(
  vocabulary: DecoderVocabulary,
  replacements: [string, string][],
  byteFallback: boolean,
  leadingSpaces: TokenDecoder["leadingSpaces"],
): TokenDecoder {
  return {
    leadingSpaces,
    isSpecial: (id) => vocabulary.addedTokens.get(id)?.special ?? false,
    content(id) {
      let text = vocabulary.addedTokens.get(id)?.content ?? vocabulary.token(id) ?? "";
      for (const [from, to] of replacements) text = text.replaceAll(from, to);
      const byte = byteFallback ? /^<0x([0-9A-Fa-f]{2})>$/.exec(text) : null;
      return byte ? Uint8Array.of(parseInt(byte[1], 16)) : text;
    },
  };
}

/**
 * Returns the decoder that a tokenizer.json's `decoder` describes.
 *
 * @throws {UnsupportedError} for a decoder, or an option of one, that is not known.
 */
export function tokenDecoder(decoder: unknown, vocabulary: DecoderVocabulary): TokenDecoder {
  const step = decoder as DecoderStep | null;
  const steps = step?.type === "Sequence" ? step.decoders ?? [] : step ? [step] : [];
  const known = "known are ByteLevel, WordPiece, Metaspace, and a Sequence of Replace, ByteFallback, Fuse and Strip";
  if (steps.length === 1 && steps[0].type === "ByteLevel") return byteLevelDecoder(vocabulary);
  if (steps.length === 1 && steps[0].type === "WordPiece") {
    return wordPieceDecoder(vocabulary, steps[0].prefix ?? "##", steps[0].cleanup ?? true);
  }
  const replacements: [string, string][] = [];
  let byteFallback = false;
  let leadingSpaces: TokenDecoder["leadingSpaces"] = 0;
  for (const { type, pattern, content, start, stop, replacement, prepend_scheme } of steps) {
    if (type === "Replace" && typeof pattern?.String === "string") {
      replacements.push([pattern.String, content ?? ""]);
    } else if (type === "ByteFallback") {
      byteFallback = true;
    } else if (type === "Strip" && content === " " && !stop) {
      leadingSpaces = start ?? 0;
    } else if (type === "Metaspace") {
      replacements.push([replacement ?? "▁", " "]);
      leadingSpaces = prepend_scheme === "never" ? 0 : "first token";
    } else if (type !== "Fuse") {
      throw new UnsupportedError(`Cannot decode tokens: decoder step ${JSON.stringify(type)} of tokenizer.json; ${known}`);
    }
  }
  if (steps.length === 0) throw new UnsupportedError(`Cannot decode tokens: tokenizer.json has no decoder; ${known}`);
  return sentencePieceDecoder(vocabulary, replacements, byteFallback, leadingSpaces);
}

/** How {@linkcode Detokenizer} treats what it gets. */
export interface DetokenizerOptions {
  /** Leaves special tokens out of the text. Default: true. */
  skipSpecialTokens?: boolean;
  /** The tokens go on from an earlier text, so that a space at their start is kept. Default: false. */
  continuation?: boolean;
}

/** Decodes one stream of tokens. */
export class Detokenizer {
  readonly #decoder: TokenDecoder;
  readonly #skipSpecialTokens: boolean;
  // A byte order mark is text like any other.
  readonly #utf8 = new TextDecoder("utf-8", { ignoreBOM: true });
  #leadingSpaces: number;
  #stripFirstToken: boolean;
  #isFirst: boolean;

  /** Starts a stream. Use the tokenizer's `detokenizer()`, which knows the decoder. */
  constructor(decoder: TokenDecoder, options: DetokenizerOptions = {}) {
    this.#decoder = decoder;
    this.#skipSpecialTokens = options.skipSpecialTokens ?? true;
    const leadingSpaces = options.continuation ? 0 : decoder.leadingSpaces;
    this.#leadingSpaces = leadingSpaces === "first token" ? 0 : leadingSpaces;
    this.#stripFirstToken = leadingSpaces === "first token";
    this.#isFirst = !options.continuation;
  }

  /** Returns the text that a token completes: empty where a character is still missing bytes. */
  push(id: number): string {
    if (this.#skipSpecialTokens && this.#decoder.isSpecial(id)) return "";
    const content = this.#decoder.content(id, this.#isFirst);
    this.#isFirst = false;
    if (typeof content !== "string") return this.#strip(this.#utf8.decode(content, { stream: true }));
    const text = this.#stripFirstToken ? content.replace(/^ +/, "") : content;
    this.#stripFirstToken = false;
    // Text after an unfinished character ends it: what there is of it becomes U+FFFD.
    return this.#strip(this.#utf8.decode() + text);
  }

  /** Returns what is left when no token follows: U+FFFD for an unfinished character. The stream may then start anew. */
  flush(): string {
    return this.#strip(this.#utf8.decode());
  }

  #strip(text: string): string {
    let start = 0;
    while (start < text.length && this.#leadingSpaces > 0) {
      if (text[start] !== " ") this.#leadingSpaces = 0;
      else {
        this.#leadingSpaces--;
        start++;
      }
    }
    return text.slice(start);
  }
}
