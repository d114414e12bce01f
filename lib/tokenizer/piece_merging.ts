/**
 * SentencePiece's BPE: of all neighbours that together are a piece, those of the best score are merged first, the first of equals first. Sennrich et al.
 * 2016, arXiv:1508.07909; order and unused pieces as in sentencepiece's bpe_model.cc.
 * @module
 */

/** A piece that others can be merged to. */
export interface MergedPiece {
  score: number;
  /** Whether it only stands between others and is taken apart in the end. */
  isUnused: boolean;
}

/** A pair of neighbours that make a piece. */
interface Candidate {
  left: number;
  right: number;
  score: number;
  /** Length of both when the candidate was found: another since means that one of them has been merged. */
  length: number;
}

/** Whether `a` is merged before `b`. */
function isBefore(a: Candidate, b: Candidate): boolean {
  return a.score > b.score || (a.score === b.score && a.left < b.left);
}

/** Candidates, the best one at the root of a binary heap. */
class CandidateHeap {
  readonly #items: Candidate[] = [];

  push(candidate: Candidate): void {
    const items = this.#items;
    let at = items.push(candidate) - 1;
    for (let parent; at > 0 && isBefore(candidate, items[parent = (at - 1) >> 1]); at = parent) items[at] = items[parent];
    items[at] = candidate;
  }

  pop(): Candidate | undefined {
    const items = this.#items, top = items[0], moved = items.pop();
    if (items.length === 0 || moved === undefined) return top;
    let at = 0;
    for (;;) {
      let child = 2 * at + 1;
      if (child >= items.length) break;
      if (child + 1 < items.length && isBefore(items[child + 1], items[child])) child++;
      if (!isBefore(items[child], moved)) break;
      items[at] = items[child];
      at = child;
    }
    items[at] = moved;
    return top;
  }
}

/**
 * Returns the pieces that a text's symbols are merged to, and single symbols that are none.
 *
 * @param symbols Characters, and symbols that stay as they are.
 */
export function mergePieces(
  symbols: readonly { text: string; isFrozen: boolean }[],
  pieces: ReadonlyMap<string, MergedPiece>,
): string[] {
  const texts = symbols.map(({ text }) => text);
  const previous = texts.map((_, i) => i - 1), next = texts.map((_, i) => i + 1 < texts.length ? i + 1 : -1);
  const heap = new CandidateHeap(), unusedParts = new Map<string, [string, string]>();
  const consider = (left: number, right: number): void => {
    if (left < 0 || right < 0 || symbols[left].isFrozen || symbols[right].isFrozen) return;
    const text = texts[left] + texts[right], piece = pieces.get(text);
    if (piece === undefined) return;
    heap.push({ left, right, score: piece.score, length: text.length });
    if (piece.isUnused) unusedParts.set(text, [texts[left], texts[right]]);
  };
  for (let i = 1; i < texts.length; i++) consider(i - 1, i);
  for (let top = heap.pop(); top; top = heap.pop()) {
    const { left, right, length } = top;
    if (texts[left] === "" || texts[right] === "" || texts[left].length + texts[right].length !== length) continue;
    texts[left] += texts[right];
    texts[right] = "";
    next[left] = next[right];
    if (next[right] >= 0) previous[next[right]] = left;
    consider(previous[left], left);
    consider(left, next[left]);
  }
  const merged: string[] = [];
  const add = (text: string): void => {
    const parts = pieces.get(text)?.isUnused ? unusedParts.get(text) : undefined;
    if (parts) parts.forEach(add);
    else merged.push(text);
  };
  for (const text of texts) if (text !== "") add(text);
  return merged;
}
