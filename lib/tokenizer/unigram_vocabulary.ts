/**
 * The Unigram model of a tokenizer.json, as Hugging Face's `tokenizers` has it (models/unigram/model.rs).
 * @module
 */
import { FormatError } from "../errors.ts";
import { byteIds } from "./byte_pieces.ts";
import { Unigram, type UnigramPiece } from "./unigram.ts";

/** How much less likely than the least likely piece an unknown character is. */
const UNKNOWN_PENALTY = 10;

/**
 * Returns what turns a word into tokens.
 *
 * @param model The `model` of tokenizer.json.
 * @param special Tokens that are no pieces: what a text spells out is text.
 * @throws {FormatError} where its vocabulary is none.
 */
export function unigramEncoder(model: Record<string, unknown>, special: ReadonlySet<string>): (word: string) => number[] {
  const { vocab, unk_id: unknownId, byte_fallback: byteFallback } = model;
  const isEntry = (entry: unknown): entry is [string, number] =>
    Array.isArray(entry) && typeof entry[0] === "string" && typeof entry[1] === "number";
  if (!Array.isArray(vocab) || !vocab.every(isEntry)) {
    throw new FormatError("Cannot use the tokenizer: the vocab of its Unigram is no list of pieces and scores");
  }
  const ids = new Map<string, number>(), pieces = new Map<string, UnigramPiece>();
  let least = Infinity;
  vocab.forEach(([piece, score], id) => {
    ids.set(piece, id);
    if (piece !== "" && !special.has(piece)) pieces.set(piece, { id, score });
    least = Math.min(least, score);
  });
  const unigram = new Unigram({ pieces, unknownScore: least - UNKNOWN_PENALTY, round: (sum) => sum });
  const unknown = (text: string): number[] => {
    const bytes = byteFallback === true ? byteIds(text, (piece) => ids.get(piece)) : undefined;
    if (bytes) return bytes;
    if (typeof unknownId === "number") return [unknownId];
    throw new FormatError(`Cannot encode ${JSON.stringify(text)}: the tokenizer has no token for it, nor one for the unknown`);
  };
  return (word) => {
    const encoded: number[] = [];
    let fused = "";
    for (const { id, text } of unigram.encode(word)) {
      if (id === undefined) {
        fused += text;
        continue;
      }
      if (fused !== "") encoded.push(...unknown(fused));
      fused = "";
      encoded.push(id);
    }
    return fused === "" ? encoded : [...encoded, ...unknown(fused)];
  };
}
