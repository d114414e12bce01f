/**
 * The Unigram model: of all ways to cut a text into pieces the likeliest, found by Viterbi's algorithm. Kudo 2018, arXiv:1804.10959; ties and unknown
 * characters as in sentencepiece's unigram_model.cc (`EncodeOptimized`) and tokenizers' models/unigram/model.rs.
 * @module
 */

/** A piece of the vocabulary. */
export interface UnigramPiece {
  id: number;
  /** Its log probability. */
  score: number;
  /** Whether it must not reach over a barrier. */
  isSymbol?: boolean;
}

/** What the algorithm works with. */
export interface UnigramOptions {
  pieces: ReadonlyMap<string, UnigramPiece>;
  /** Of a character without a piece. */
  unknownScore: number;
  /** What sums are rounded to. */
  round: (sum: number) => number;
}

/** A part of a text: a piece, or a character that has none. */
export interface UnigramPart {
  /** Undefined of an unknown character. */
  id: number | undefined;
  text: string;
}

/** Cuts texts into pieces. */
export class Unigram {
  readonly #options: UnigramOptions;
  /** Most UTF-16 units of a piece. */
  readonly #longest: number;

  constructor(options: UnigramOptions) {
    this.#options = options;
    let longest = 0;
    for (const piece of options.pieces.keys()) longest = Math.max(longest, piece.length);
    this.#longest = longest;
  }

  /** Returns the parts of a text. `barriers` are indexes of UTF-16 units that a piece with `isSymbol` must not reach over. */
  encode(text: string, barriers?: ReadonlySet<number>): UnigramPart[] {
    const { pieces, unknownScore, round } = this.#options;
    const size = text.length;
    const scores = new Float64Array(size + 1), starts = new Int32Array(size + 1).fill(-1), ids = new Int32Array(size + 1);
    const relax = (start: number, end: number, id: number, sum: number): void => {
      const rounded = round(sum);
      if (starts[end] >= 0 && !(rounded > scores[end])) return;
      scores[end] = rounded;
      starts[end] = start;
      ids[end] = id;
    };
    for (let start = 0, next = 0; start < size; start = next) {
      next = start + (text.codePointAt(start)! > 0xffff ? 2 : 1);
      let hasSingle = false;
      const most = Math.min(size, start + this.#longest);
      for (let end = next; end <= most; end++) {
        const piece = pieces.get(text.slice(start, end));
        if (piece === undefined || (piece.isSymbol && barriers && crosses(barriers, start, end))) continue;
        relax(start, end, piece.id, scores[start] + piece.score);
        if (end === next) hasSingle = true;
      }
      if (!hasSingle) relax(start, next, -1, scores[start] + unknownScore);
    }
    const parts: UnigramPart[] = [];
    for (let end = size; end > 0; end = starts[end]) {
      parts.push({ id: ids[end] < 0 ? undefined : ids[end], text: text.slice(starts[end], end) });
    }
    return parts.reverse();
  }
}

/** Whether a barrier lies inside a range. */
export function crosses(barriers: ReadonlySet<number>, start: number, end: number): boolean {
  for (let at = start + 1; at < end; at++) if (barriers.has(at)) return true;
  return false;
}
