/**
 * The tokenizers of ChatGLM, which are SentencePiece's with rules of their own that no file holds. Follows what the published `tokenization_chatglm.py`
 * compute (THUDM/chatglm-6b, 8b7d335; THUDM/chatglm3-6b, 456aa87).
 * @module
 */
import { UnsupportedError } from "../errors.ts";
import type { AddedToken, TokenEncoder } from "./encoder.ts";
import { PIECE_TYPES, readSentencePieceFile } from "./sentence_piece_file.ts";
import { sentencePieceParts } from "./sentence_piece.ts";
import type { TokenizerParts } from "./tokenizer_parts.ts";

/** Control tokens of the first ChatGLM, which are pieces of its vocabulary. */
const FIRST_CONTROL = ["[MASK]", "[gMASK]", "[sMASK]", "<unused_0>", "<sop>", "<eop>", "<ENC>", "<dBLOCK>"];

/** Those of the others, which follow the vocabulary in this order; ChatGLM 2 was made without the last four. */
const LATER_CONTROL = ["[MASK]", "[gMASK]", "[sMASK]", "sop", "eop"];
const ROLES = ["<|system|>", "<|user|>", "<|assistant|>", "<|observation|>"];

/** Most spaces that one piece of the first ChatGLM stands for. */
const MOST_BLANKS = 80;

/** Image tokens before those of text where tokenizer_config.json does not say how many. */
const IMAGE_TOKENS = 20_000;

/** Spells line breaks, tabs and runs of spaces as the pieces that stand for them. */
function spellWhitespace(text: string): string {
  return text.replaceAll("\n", "<n>").replaceAll("\t", "<|tab|>").replace(/ {2,}/g, (run) => {
    const whole = `<|blank_${MOST_BLANKS}|>`.repeat(Math.floor(run.length / MOST_BLANKS)), rest = run.length % MOST_BLANKS;
    return whole + (rest > 1 ? `<|blank_${rest}|>` : " ".repeat(rest));
  });
}

/** Returns the steps of a decoder that bring back what {@linkcode spellWhitespace} spelled. */
function whitespaceSteps(): unknown[] {
  const replace = (piece: string, content: string) => ({ type: "Replace", pattern: { String: piece }, content });
  const blanks = Array.from({ length: MOST_BLANKS - 1 }, (_, i) => replace(`<|blank_${i + 2}|>`, " ".repeat(i + 2)));
  return [replace("<n>", "\n"), replace("<|tab|>", "\t"), ...blanks];
}

/** Moves all ids up. */
function shifted(parts: TokenizerParts, offset: number): TokenizerParts {
  const { encoder, vocabulary, idOf, added } = parts;
  const moved: TokenEncoder = { encode: (...given) => encoder.encode(...given).map((id) => id + offset) };
  return {
    ...parts,
    encoder: moved,
    vocabulary: [...Array(offset).fill(undefined), ...vocabulary],
    idOf: (token) => {
      const id = idOf(token);
      return id === undefined ? undefined : id + offset;
    },
    added: added.map((token) => ({ ...token, id: token.id + offset })),
  };
}

/** Returns tokens as an `added_tokens_decoder` has them. */
function described(tokens: readonly [id: number, content: string][]): Record<string, Partial<AddedToken>> {
  return Object.fromEntries(tokens.map(([id, content]) => [id, { content, special: true }]));
}

function firstParts(bytes: Uint8Array, pieces: readonly string[], config: Record<string, unknown>): TokenizerParts {
  for (const option of ["do_lower_case", "remove_space"]) {
    if (config[option]) throw new UnsupportedError(`Cannot use the tokenizer: ${option} is ${config[option]}, required false`);
  }
  const offset = config.num_image_tokens ?? IMAGE_TOKENS;
  if (typeof offset !== "number" || !Number.isSafeInteger(offset) || offset < 0 || offset > 1e6) {
    throw new UnsupportedError(`Cannot use the tokenizer: num_image_tokens is ${offset}, required is a count of tokens`);
  }
  const control = FIRST_CONTROL.flatMap((token): [number, string][] => {
    const id = pieces.indexOf(token);
    return id < 0 ? [] : [[id, token]];
  });
  const parts = sentencePieceParts(bytes, { added_tokens_decoder: described(control) }, spellWhitespace);
  const { decoders } = parts.decoder as { decoders: { type: string }[] };
  const strip = { type: "Strip", content: " ", start: 1, stop: 0 };
  const decoder = {
    type: "Sequence",
    decoders: [...decoders.filter(({ type }) => type !== "Strip"), ...whitespaceSteps(), strip],
  };
  return { ...shifted(parts, offset), before: [], after: ["[gMASK]", "<sop>"], decoder };
}

/**
 * Returns the parts of a ChatGLM's tokenizer from its `ice_text.model` or `tokenizer.model`.
 *
 * @throws as {@linkcode sentencePieceParts}.
 */
export function chatglmParts(bytes: Uint8Array, tokenizerConfig: Record<string, unknown>): TokenizerParts {
  const { pieces } = readSentencePieceFile(bytes), texts = pieces.map(({ text }) => text);
  if (texts.includes("<sop>")) return firstParts(bytes, texts, tokenizerConfig);
  const count = pieces.length;
  const listed = tokenizerConfig.added_tokens_decoder as Record<string, Partial<AddedToken>> | undefined;
  const control = described([...LATER_CONTROL, ...ROLES].map((content, i) => [count + i, content]));
  const parts = sentencePieceParts(bytes, { ...tokenizerConfig, added_tokens_decoder: { ...control, ...listed } });
  const hasEnd = pieces.some(({ text, type }) => text === "</s>" && type === PIECE_TYPES.control);
  return { ...parts, before: ["[gMASK]", "sop"], after: [], eosToken: hasEnd ? "</s>" : undefined };
}
