/**
 * What may change a model's logits before a token is drawn.
 *
 * Semantics and order are those of Hugging Face transformers (generation/logits_process.py; the order is that of
 * `_get_logits_processor` in generation/utils.py): repetition penalty, temperature, top-k, top-p, min-p. They work on candidates that
 * shrink from step to step, so that a vocabulary is sorted only as far as a choice depends on it.
 * @module
 */

/** Tokens that may still be drawn, and their logits less that of the likeliest one, whose score is therefore 0. */
export interface Candidates {
  ids: Int32Array;
  scores: Float64Array;
}

/** What is done to logits; each as in `SamplingOptions`. */
export interface Processing {
  repetitionPenalty: number;
  /** Above 0. */
  temperature: number;
  topK: number;
  topP: number;
  minP: number;
}

/** Returns the tokens that may be drawn, and their scores. The repetition penalty is applied in place. */
export function processLogits(logits: Float32Array, seen: Iterable<number>, processing: Processing): Candidates {
  const { repetitionPenalty, temperature, topK, topP, minP } = processing;
  if (repetitionPenalty !== 1) applyRepetitionPenalty(logits, seen, repetitionPenalty);
  const max = logits.reduce((a, b) => Math.max(a, b));
  let candidates: Candidates = {
    ids: Int32Array.from(logits, (_, id) => id),
    // Subtracted before the division, so that no temperature is too low for it.
    scores: Float64Array.from(logits, (logit) => (logit - max) / temperature),
  };
  if (topK > 0) candidates = keepTopK(candidates, topK);
  if (topP < 1) candidates = keepTopP(candidates, topP);
  if (minP > 0) candidates = keepMinP(candidates, minP);
  return candidates;
}

/**
 * Returns what {@linkcode processLogits} would of all logits, from the likeliest alone: `topK` of them and at least one more, in descending order.
 * Undefined where it depends on more of them, since as many as are given are equally likely. There is no repetition penalty.
 */
export function processLikeliest(logits: Float32Array, ids: Int32Array, processing: Processing): Candidates | undefined {
  const { temperature, topK, topP, minP } = processing;
  if (logits[topK] === logits[topK - 1]) return undefined;
  // In the order of the ids, as all logits are.
  const order = Int32Array.from({ length: topK }, (_, i) => i).sort((a, b) => ids[a] - ids[b]);
  let candidates: Candidates = {
    ids: Int32Array.from(order, (i) => ids[i]),
    scores: Float64Array.from(order, (i) => (logits[i] - logits[0]) / temperature),
  };
  if (topP < 1) candidates = keepTopP(candidates, topP);
  if (minP > 0) candidates = keepMinP(candidates, minP);
  return candidates;
}

/** Keeps the candidates at some positions, in the given order. */
function pick({ ids, scores }: Candidates, positions: readonly number[] | Int32Array): Candidates {
  return { ids: Int32Array.from(positions, (i) => ids[i]), scores: Float64Array.from(positions, (i) => scores[i]) };
}

/**
 * Makes tokens that were there before less likely, in place: positive logits are divided by the penalty, negative ones multiplied
 * (RepetitionPenaltyLogitsProcessor; Keskar et al., CTRL). Each token counts once, however often it occurred.
 */
export function applyRepetitionPenalty(logits: Float32Array, seen: Iterable<number>, penalty: number): void {
  for (const id of seen) {
    if (id < logits.length) logits[id] = logits[id] < 0 ? logits[id] * penalty : logits[id] / penalty;
  }
}

/** Keeps the k highest scores, and all that equal the lowest of them (TopKLogitsWarper). */
function keepTopK(candidates: Candidates, k: number): Candidates {
  const { scores } = candidates;
  if (k >= scores.length) return candidates;
  const threshold = nthLargest(scores, k);
  const kept: number[] = [];
  for (let i = 0; i < scores.length; i++) if (scores[i] >= threshold) kept.push(i);
  return pick(candidates, kept);
}

/** Returns the k-th largest value, by a heap of the k largest so far. */
function nthLargest(values: Float64Array, k: number): number {
  // Beyond a few hundred, sorting is as fast.
  if (k > 256) return values.slice().sort()[values.length - k];
  const heap = new Float64Array(k).fill(-Infinity);
  for (const value of values) {
    if (!(value > heap[0])) continue;
    let i = 0;
    for (;;) {
      let child = 2 * i + 1;
      if (child >= k) break;
      if (child + 1 < k && heap[child + 1] < heap[child]) child++;
      if (heap[child] >= value) break;
      heap[i] = heap[child];
      i = child;
    }
    heap[i] = value;
  }
  return heap[0];
}

/** Keeps the fewest highest scores whose probabilities sum to at least p, but at least one (TopPLogitsWarper; Holtzman et al.). */
function keepTopP(candidates: Candidates, p: number): Candidates {
  const { scores } = candidates;
  let total = 0;
  for (const score of scores) total += Math.exp(score);
  // Only candidates near the top are sorted at first; the cut moves down where they do not hold enough probability.
  for (let depth = 8;; depth *= 2) {
    const near: number[] = [];
    for (let i = 0; i < scores.length; i++) if (-scores[i] <= depth) near.push(i);
    near.sort((a, b) => scores[b] - scores[a]);
    let above = 0;
    for (let kept = 0; kept < near.length; kept++) {
      if (kept > 0 && !(above < p * total)) return pick(candidates, near.slice(0, kept));
      above += Math.exp(scores[near[kept]]);
    }
    // The next depth would add only tokens whose probability is zero in double precision.
    if (near.length === scores.length || depth > 1024) return pick(candidates, near);
  }
}

/** Keeps candidates at least minP times as likely as the likeliest (MinPLogitsWarper; Nguyen et al., arXiv 2407.01082). */
function keepMinP(candidates: Candidates, minP: number): Candidates {
  const { scores } = candidates;
  const kept: number[] = [];
  for (let i = 0; i < scores.length; i++) if (Math.exp(scores[i]) >= minP) kept.push(i);
  return pick(candidates, kept);
}
