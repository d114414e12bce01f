/**
 * Turns text into tokens: added tokens are cut out first, the rest goes through the tokenizer's normalizer, pre-tokenizer and model.
 *
 * The pieces come from `@huggingface/tokenizers`. The walk over them is ours, because the library's own parses special tokens inside any
 * text: whoever writes `<|eot_id|>` into a chat could end a turn. Here special tokens are text like any other unless they are allowed.
 * @module
 */
import type { Tokenizer as HuggingFaceTokenizer } from "@huggingface/tokenizers";
import type { TextNormalizer } from "./normalizer.ts";
import type { PreTokenizer } from "./pre_tokenizer.ts";
import { unigramEncoder } from "./unigram_vocabulary.ts";

/** A token beside the model's own vocabulary, as tokenizer.json describes it. */
export interface AddedToken {
  id: number;
  content: string;
  special: boolean;
  single_word: boolean;
  lstrip: boolean;
  rstrip: boolean;
  normalized: boolean;
}

/** A part of a text: an added token, or text to tokenize. */
type Section = { token: AddedToken } | { text: string };

/** Encodes text without what is put around it. */
export interface TokenEncoder {
  /**
   * Returns the tokens of a text; special tokens in it are recognised only where they are allowed.
   *
   * @param mark A character that is taken out once added tokens were found: an added token with a mark in it is ordinary text.
   */
  encode(text: string, allowSpecialTokens: boolean, mark?: string): number[];
}

/** Finds added tokens in a text, the longest one first where several start at a place. */
export class AddedTokenSplitter {
  readonly #tokens = new Map<string, AddedToken>();
  readonly #pattern: RegExp | undefined;

  /** @param spell what a token looks like in the text that is split. */
  constructor(tokens: readonly AddedToken[], spell: (content: string) => string) {
    for (const token of tokens) this.#tokens.set(spell(token.content), token);
    this.#tokens.delete("");
    if (this.#tokens.size === 0) return;
    const alternatives = [...this.#tokens].sort(([a], [b]) => b.length - a.length).map(([content, token]) => {
      const literal = content.replace(/[\\^$.*+?()[\]{}|/-]/g, "\\$&");
      return token.single_word ? `(?<![\\p{L}\\p{N}_])${literal}(?![\\p{L}\\p{N}_])` : literal;
    });
    this.#pattern = new RegExp(`(${alternatives.join("|")})`, "u");
  }

  /** Whether there is no token to find. */
  get isEmpty(): boolean {
    return this.#pattern === undefined;
  }

  split(text: string): Section[] {
    if (!this.#pattern) return text === "" ? [] : [{ text }];
    // With a capturing group, every second part is a match.
    const parts = text.split(this.#pattern);
    for (let i = 1; i < parts.length; i += 2) {
      const token = this.#tokens.get(parts[i])!;
      if (token.lstrip) parts[i - 1] = parts[i - 1].trimEnd();
      if (token.rstrip) parts[i + 1] = parts[i + 1].trimStart();
    }
    return parts.map((part, i) => i % 2 === 1 ? { token: this.#tokens.get(part)! } : { text: part })
      .filter((section) => "token" in section || section.text !== "");
  }
}

/** Encodes text without what a post-processor adds. */
export class Encoder implements TokenEncoder {
  /** Turns words into tokens. */
  readonly #encodeWords: (words: string[]) => number[];
  readonly #normalize: TextNormalizer;
  readonly #preTokenize: PreTokenizer;
  readonly #trusted: AddedTokenSplitter[];
  readonly #untrusted: AddedTokenSplitter[];

  /** @param library Its model is used alone, unless `model`, that of tokenizer.json, is a Unigram. */
  constructor(
    library: HuggingFaceTokenizer,
    normalize: TextNormalizer,
    preTokenize: PreTokenizer,
    addedTokens: readonly AddedToken[],
    model: Record<string, unknown>,
  ) {
    this.#normalize = normalize;
    this.#preTokenize = preTokenize;
    const special = new Set(addedTokens.filter((token) => token.special).map(({ content }) => content));
    if (model.type === "Unigram") {
      const encode = unigramEncoder(model, special);
      this.#encodeWords = (words) => words.flatMap(encode);
    } else {
      this.#encodeWords = libraryEncoder(library.model!, special);
    }
    const splitters = (tokens: readonly AddedToken[]) => [
      new AddedTokenSplitter(tokens.filter((token) => !token.normalized), (content) => content),
      new AddedTokenSplitter(tokens.filter((token) => token.normalized), normalize),
    ];
    this.#trusted = splitters(addedTokens);
    this.#untrusted = splitters(addedTokens.filter((token) => !token.special));
  }

  encode(text: string, allowSpecialTokens: boolean, mark?: string): number[] {
    const unmarked = (text: string) => mark === undefined ? text : text.replaceAll(mark, "");
    const [raw, normalized] = allowSpecialTokens ? this.#trusted : this.#untrusted;
    const ids: number[] = [];
    raw.split(text).forEach((section, sectionIndex) => {
      if ("token" in section) {
        ids.push(section.token.id);
        return;
      }
      // Marks keep tokens from being found after normalization too; where there are none to find, nothing but the text is normalized.
      const plain = normalized.isEmpty ? unmarked(section.text) : section.text;
      for (const part of normalized.split(this.#normalize(plain))) {
        if ("token" in part) {
          ids.push(part.token.id);
          continue;
        }
        part.text = unmarked(part.text);
        // Metaspace prepends its space to the first section alone.
        ids.push(...this.#encodeWords(this.#preTokenize(part.text, sectionIndex)));
      }
    });
    return ids;
  }
}

/** Returns what turns words into tokens with the library's model. */
function libraryEncoder(
  model: NonNullable<HuggingFaceTokenizer["model"]>,
  special: ReadonlySet<string>,
): (words: string[]) => number[] {
  // Models that take whole words from the vocabulary (ignore_merges) must not find special tokens there.
  for (const content of special) model.tokens_to_ids.delete(content);
  const unknownText = model.unk_token ?? undefined, unknownId = model.unk_token_id;
  return (words) =>
    model._call(words).map((token) => {
      const id = model.tokens_to_ids.get(token) ?? (token === unknownText ? unknownId : undefined);
      if (id === undefined) throw new Error(`tokenizer.json's model gave ${JSON.stringify(token)}, which its vocabulary lacks`);
      return id;
    });
}
