/**
 * A tokenizer read from the `tokenizer.model` of SentencePiece, for checkpoints that have no tokenizer.json: its own normalizer and models, with its own
 * ids, as its library gives them.
 *
 * Control pieces are text, as there; where special tokens are allowed, each text between two of them is encoded for itself.
 * @module
 */
import { FormatError, UnsupportedError } from "../errors.ts";
import { byteIds } from "./byte_pieces.ts";
import { type AddedToken, AddedTokenSplitter, type TokenEncoder } from "./encoder.ts";
import { type MergedPiece, mergePieces } from "./piece_merging.ts";
import { damagedModel, type Piece, PIECE_TYPES, readSentencePieceFile, type SentencePieceFile } from "./sentence_piece_file.ts";
import { type BarredText, SentencePieceNormalizer, SPACE, SymbolMatcher } from "./sentence_piece_normalizer.ts";
import type { TokenizerParts } from "./tokenizer_parts.ts";
import { crosses, Unigram, type UnigramPiece } from "./unigram.ts";

const MODEL_TYPES = ["bpe", "unigram", "word", "char"];

/** How much less likely than the least likely piece an unknown character is. */
const UNKNOWN_PENALTY = 10;

/** Cuts a normalized text into pieces; of those that are in the vocabulary with their ids. */
type PieceModel = (text: BarredText) => { id: number | undefined; text: string }[];

const isPiece = ({ type }: Piece): boolean =>
  type === PIECE_TYPES.normal || type === PIECE_TYPES.userDefined || type === PIECE_TYPES.unused;

/** Returns the merging of a model of type `bpe`. */
function bpeModel(pieces: readonly Piece[], ids: ReadonlyMap<string, number>, symbols: SymbolMatcher): PieceModel {
  const merged = new Map<string, MergedPiece>();
  for (const piece of pieces.filter(isPiece)) {
    merged.set(piece.text, { score: piece.score, isUnused: piece.type === PIECE_TYPES.unused });
  }
  return (source) => {
    const { text } = source, parts: { text: string; isFrozen: boolean }[] = [];
    for (let at = 0; at < text.length;) {
      const symbol = symbols.match(source, at);
      const part = symbol ?? text.slice(at, at + (text.codePointAt(at)! > 0xffff ? 2 : 1));
      parts.push({ text: part, isFrozen: symbol !== undefined });
      at += part.length;
    }
    return mergePieces(parts, merged).map((text) => ({ id: ids.get(text), text }));
  };
}

/** Returns the cutting of a model of type `char`: each character for itself, but for symbols. */
function charModel(ids: ReadonlyMap<string, number>, symbols: SymbolMatcher): PieceModel {
  return (source) => {
    const { text } = source, parts: string[] = [];
    for (let at = 0; at < text.length; at += parts[parts.length - 1].length) {
      parts.push(symbols.match(source, at) ?? text.slice(at, at + (text.codePointAt(at)! > 0xffff ? 2 : 1)));
    }
    return parts.map((text) => ({ id: ids.get(text), text }));
  };
}

/** Returns the cutting of a model of type `word`: before each space. */
function wordModel(ids: ReadonlyMap<string, number>, symbols: ReadonlySet<string>): PieceModel {
  const beforeSpace = new RegExp(`(?!^)(?=${SPACE})`);
  return ({ text, barriers }) => {
    let at = 0;
    return (text === "" ? [] : text.split(beforeSpace)).map((text) => {
      const start = at, isBarred = symbols.has(text) && crosses(barriers, start, at += text.length);
      return { id: isBarred ? undefined : ids.get(text), text };
    });
  };
}

/** Returns the search of a model of type `unigram`, which sums in float32. */
function unigramModel(pieces: readonly Piece[]): PieceModel {
  const scores = pieces.filter(({ type }) => type === PIECE_TYPES.normal).map(({ score }) => score);
  const least = scores.reduce((a, b) => Math.min(a, b), Infinity);
  const found = new Map<string, UnigramPiece>();
  const bytes = new TextEncoder();
  pieces.forEach(({ text, score, type }, id) => {
    if (type === PIECE_TYPES.normal) found.set(text, { id, score });
    // So good that it is always taken; of symbols made of others this decides which, as in version 0.2.3.
    const symbolScore = Math.fround(bytes.encode(text).length * 0.1 - 0.1);
    if (type === PIECE_TYPES.userDefined) found.set(text, { id, score: symbolScore, isSymbol: true });
  });
  const unigram = new Unigram({ pieces: found, unknownScore: Math.fround(least - UNKNOWN_PENALTY), round: Math.fround });
  return ({ text, barriers }) => unigram.encode(text, barriers);
}

/** Encodes texts as SentencePiece does. */
class SentencePieceEncoder implements TokenEncoder {
  readonly #normalizer: SentencePieceNormalizer;
  readonly #model: PieceModel;
  readonly #byteId: (piece: string) => number | undefined;
  readonly #unknownId: number | undefined;
  readonly #spell: (text: string) => string;
  readonly #trusted: AddedTokenSplitter;
  readonly #untrusted: AddedTokenSplitter;

  constructor(
    file: SentencePieceFile,
    ids: ReadonlyMap<string, number>,
    added: readonly AddedToken[],
    spell: (text: string) => string,
  ) {
    this.#spell = spell;
    const { modelType, byteFallback } = file;
    // What the config makes a special token is one that no text may spell, whatever the file says of it.
    const special = new Set(added.flatMap((token) => token.special ? [token.id] : []));
    const pieces = file.pieces.map((piece, id) => special.has(id) ? { ...piece, type: PIECE_TYPES.control } : piece);
    const symbols = pieces.filter(({ type }) => type === PIECE_TYPES.userDefined).map(({ text }) => text);
    const matcher = new SymbolMatcher(symbols);
    this.#normalizer = new SentencePieceNormalizer(file, matcher);
    const spelled = new Map(pieces.flatMap((piece, id) => isPiece(piece) ? [[piece.text, id]] : []));
    const models: Record<string, () => PieceModel> = {
      bpe: () => bpeModel(pieces, ids, matcher),
      unigram: () => unigramModel(pieces),
      // Here a text could spell a control piece, which it must not.
      char: () => charModel(spelled, matcher),
      word: () => wordModel(spelled, new Set(symbols)),
    };
    this.#model = models[modelType]();
    this.#byteId = (piece) => byteFallback ? ids.get(piece) : undefined;
    const unknown = file.pieces.findIndex(({ type }) => type === PIECE_TYPES.unknown);
    this.#unknownId = unknown < 0 ? undefined : unknown;
    // User-defined symbols are the model's to find, once a text is normalized.
    const known = new Set(symbols);
    const cut = added.filter(({ content, special }) => special || !known.has(content));
    this.#trusted = new AddedTokenSplitter(cut, (content) => content);
    this.#untrusted = new AddedTokenSplitter(cut.filter(({ special }) => !special), (content) => content);
  }

  encode(text: string, allowSpecialTokens: boolean, mark?: string): number[] {
    const sections = (allowSpecialTokens ? this.#trusted : this.#untrusted).split(text);
    return sections.flatMap((section) => "token" in section ? [section.token.id] : this.#encodeText(section.text, mark));
  }

  #encodeText(text: string, mark: string | undefined): number[] {
    text = this.#spell(text);
    const parts = mark === undefined ? [text] : text.split(mark), barriers = new Set<number>();
    let length = 0;
    for (const part of parts.slice(0, -1)) barriers.add(length += part.length);
    const ids: number[] = [];
    let isUnknown = false;
    for (const part of this.#model(this.#normalizer.normalize({ text: parts.join(""), barriers }))) {
      if (part.id !== undefined) {
        ids.push(part.id);
        isUnknown = false;
        continue;
      }
      const bytes = byteIds(part.text, this.#byteId);
      if (bytes) ids.push(...bytes);
      // Unknown characters in a row are one token.
      else if (!isUnknown) ids.push(this.#unknown(part.text));
      isUnknown = bytes === undefined;
    }
    return ids;
  }

  #unknown(text: string): number {
    if (this.#unknownId !== undefined) return this.#unknownId;
    throw new FormatError(`Cannot encode ${JSON.stringify(text)}: tokenizer.model has no token for it, nor one for the unknown`);
  }
}

/** Returns the tokens that stand for themselves: of the file, and those that tokenizer_config.json adds or gives other properties. */
function addedTokens(pieces: readonly Piece[], tokenizerConfig: Record<string, unknown>): AddedToken[] {
  const added = new Map<number, AddedToken>();
  const plain = { normalized: false, single_word: false, lstrip: false, rstrip: false };
  pieces.forEach(({ text, type }, id) => {
    const special = type === PIECE_TYPES.control || type === PIECE_TYPES.unknown;
    if (special || type === PIECE_TYPES.userDefined) added.set(id, { ...plain, id, content: text, special });
  });
  const decoder = (tokenizerConfig.added_tokens_decoder ?? {}) as Record<string, Partial<AddedToken> | null>;
  for (const [id, token] of Object.entries(decoder)) {
    if (!/^\d+$/.test(id) || typeof token?.content !== "string") {
      throw new FormatError(
        `Cannot read tokenizer_config.json: added_tokens_decoder has ${JSON.stringify(id)}, which is no token`,
      );
    }
    const { content, special = false, single_word = false, lstrip = false, rstrip = false } = token;
    added.set(Number(id), { ...plain, id: Number(id), content, special, single_word, lstrip, rstrip });
  }
  return [...added.values()];
}

/** Returns the steps by which tokens become text. */
function decoderOf({ addDummyPrefix, removeExtraWhitespaces, byteFallback }: SentencePieceFile): unknown {
  return {
    type: "Sequence",
    decoders: [
      { type: "Replace", pattern: { String: SPACE }, content: " " },
      ...(byteFallback ? [{ type: "ByteFallback" }] : []),
      { type: "Fuse" },
      // What removes spaces before it encodes removes them after it decodes.
      ...(removeExtraWhitespaces || addDummyPrefix
        ? [{ type: "Strip", content: " ", start: removeExtraWhitespaces ? 2 ** 31 : 1, stop: 0 }]
        : []),
    ],
  };
}

/**
 * Returns the parts of a tokenizer from a SentencePiece model.
 *
 * @param spell What is done to a text before the model's own normalization.
 * @throws {FormatError} where the file is damaged, {UnsupportedError} for another type or a setting that is not known.
 */
export function sentencePieceParts(
  bytes: Uint8Array,
  tokenizerConfig: Record<string, unknown> = {},
  spell: (text: string) => string = (text) => text,
): TokenizerParts {
  const file = readSentencePieceFile(bytes), { pieces, modelType } = file;
  const refuse = (what: string) =>
    new UnsupportedError(`Cannot use the tokenizer: its tokenizer.model ${what}; save it as tokenizer.json with transformers`);
  if (!MODEL_TYPES.includes(modelType)) throw refuse(`is of type ${modelType}, supported are ${MODEL_TYPES.join(", ")}`);
  if (file.whitespaceIsSuffix) throw refuse("has spaces at the end of words (treat_whitespace_as_suffix)");
  if (file.denormalizes) throw refuse("has a table of characters for decoded text (denormalizer_spec)");
  const ids = new Map(pieces.map(({ text }, id) => [text, id]));
  if (ids.size !== pieces.length || ids.has("")) throw damagedModel();
  const added = addedTokens(pieces, tokenizerConfig);
  const vocabulary = pieces.map(({ text }) => text);
  for (const { id, content } of added) vocabulary[id] = content;
  const addedIds = new Map(added.map(({ id, content }) => [content, id]));
  const bos = pieces.find(({ text, type }) => type === PIECE_TYPES.control && text === "<s>");
  return {
    encoder: new SentencePieceEncoder(file, ids, added, spell),
    vocabulary,
    idOf: (token) => addedIds.get(token) ?? ids.get(token),
    added,
    // Symbols are found after normalization, but nothing becomes one by it that a message must not spell.
    normalize: (text) => text,
    before: bos ? [bos.text] : [],
    after: [],
    decoder: decoderOf(file),
  };
}
