/**
 * Measures how well a model predicts a text, and how far two models' predictions are apart.
 *
 * The definition is that of scripts/model/perplexity.py: the text is encoded without special tokens and cut into consecutive chunks of
 * window - 1 tokens, of which the last may be shorter. Each chunk is run on its own behind one BOS token, so that every token of the text is
 * predicted exactly once. Perplexity is exp of the mean negative log-likelihood (natural logarithm).
 * @module
 */
import { AirkernError, UsageError } from "../errors.ts";

/** What a sequence brings to a pass whose logits are all wanted. */
export interface ScoringPassItem<S> {
  sequence: S;
  tokens: ArrayLike<number>;
  logits: "all";
}

/** The part of an engine that scoring drives; S is its handle of a sequence's KV cache. */
export interface ScoringEngine<S extends Disposable> {
  readonly plan: { readonly contextTokens: number; readonly passTokens: number };
  readonly config: { readonly vocabSize: number };
  openSequence(): S;
  pass(
    items: ScoringPassItem<S>[],
    options: { expectAnother: boolean; signal?: AbortSignal },
  ): Promise<{ logits?: Float32Array }[]>;
}

/** What is measured, and how. */
export interface PerplexityOptions {
  /** Tokens of the text, without special ones. */
  tokenIds: readonly number[];
  /** Token put before each chunk. */
  bosTokenId: number;
  /** Most tokens the model sees at once, the BOS token included; at least 2. */
  windowTokens: number;
  /** Most rows of logits that the engine gives in a pass. */
  logitRows: number;
  onProgress?: (progress: { doneTokens: number; totalTokens: number }) => void;
  signal?: AbortSignal;
}

/** How well a model predicts a text. */
export interface Perplexity {
  perplexity: number;
  /** Mean negative log-likelihood of a token, in nats. */
  meanNll: number;
  predictedTokens: number;
  windowTokens: number;
}

/** How a model predicts a text beside a reference. */
export interface PerplexityComparison extends Perplexity {
  reference: Perplexity;
  /** Mean Kullback-Leibler divergence from the reference's distribution to the model's, in nats a token. */
  klDivergence: number;
  /** Share of the tokens for which both find the same token likeliest. */
  topOneAgreement: number;
}

/** Returns log(sum(exp(row))), by which logits become log-probabilities. */
function logSumExp(row: Float32Array): number {
  let max = -Infinity;
  for (const logit of row) if (logit > max) max = logit;
  let sum = 0;
  for (const logit of row) sum += Math.exp(logit - max);
  return max + Math.log(sum);
}

function argmax(row: Float32Array): number {
  let best = 0;
  for (let i = 1; i < row.length; i++) if (row[i] > row[best]) best = i;
  return best;
}

/** Checks the options against an engine's plan. */
function check<S extends Disposable>(engine: ScoringEngine<S>, { tokenIds, windowTokens }: PerplexityOptions): void {
  if (tokenIds.length === 0) throw new UsageError("Cannot measure perplexity: the text is empty, required at least one token");
  const { contextTokens } = engine.plan;
  if (!Number.isSafeInteger(windowTokens) || windowTokens < 2 || windowTokens > contextTokens) {
    throw new UsageError(
      `Cannot measure perplexity with a window of ${windowTokens} tokens: required 2 to ${contextTokens}, the context`,
    );
  }
}

/** Runs the text through all engines side by side; `score` sees each predicted token and its logits by every engine. */
async function walk<S extends Disposable>(
  engines: readonly ScoringEngine<S>[],
  options: PerplexityOptions,
  score: (tokenId: number, rows: Float32Array[]) => void,
): Promise<void> {
  const { tokenIds, bosTokenId, windowTokens, logitRows, onProgress, signal } = options;
  const { vocabSize } = engines[0].config;
  const passTokens = Math.min(logitRows, ...engines.map((engine) => engine.plan.passTokens));
  for (let start = 0; start < tokenIds.length; start += windowTokens - 1) {
    const chunk = tokenIds.slice(start, start + windowTokens - 1);
    const input = [bosTokenId, ...chunk.slice(0, -1)];
    const sequences = engines.map((engine) => engine.openSequence());
    try {
      for (let at = 0; at < input.length; at += passTokens) {
        const tokens = input.slice(at, at + passTokens);
        const expectAnother = start + at + tokens.length < tokenIds.length;
        // One engine after the other: each has all cores.
        const logits: Float32Array[] = [];
        for (const [i, engine] of engines.entries()) {
          const [output] = await engine.pass([{ sequence: sequences[i], tokens, logits: "all" }], { expectAnother, signal });
          logits.push(output.logits!);
        }
        for (let row = 0; row < tokens.length; row++) {
          score(chunk[at + row], logits.map((all) => all.subarray(row * vocabSize, (row + 1) * vocabSize)));
        }
        onProgress?.({ doneTokens: start + at + tokens.length, totalTokens: tokenIds.length });
      }
    } finally {
      for (const sequence of sequences) sequence[Symbol.dispose]();
    }
  }
}

/** Sums negative log-likelihoods and returns the measure they give. */
class NllSum {
  #sum = 0;
  add(nll: number): void {
    if (!Number.isFinite(nll)) throw new AirkernError(`Cannot measure perplexity: a token's log-likelihood is ${-nll}`);
    this.#sum += nll;
  }
  result({ tokenIds, windowTokens }: PerplexityOptions): Perplexity {
    const meanNll = this.#sum / tokenIds.length;
    return { perplexity: Math.exp(meanNll), meanNll, predictedTokens: tokenIds.length, windowTokens };
  }
}

/**
 * Returns a model's perplexity on a text.
 *
 * @throws {UsageError} for an empty text or a window that does not fit the context.
 */
export async function perplexity<S extends Disposable>(
  engine: ScoringEngine<S>,
  options: PerplexityOptions,
): Promise<Perplexity> {
  check(engine, options);
  const nll = new NllSum();
  await walk([engine], options, (tokenId, [row]) => nll.add(logSumExp(row) - row[tokenId]));
  return nll.result(options);
}

/**
 * Returns a model's perplexity on a text, and how far its predictions are from those of a reference that sees the same.
 *
 * @throws {UsageError} as {@linkcode perplexity}, and where the vocabularies differ in size.
 */
export async function comparePerplexity<S extends Disposable>(
  engine: ScoringEngine<S>,
  reference: ScoringEngine<S>,
  options: PerplexityOptions,
): Promise<PerplexityComparison> {
  check(engine, options);
  check(reference, options);
  if (engine.config.vocabSize !== reference.config.vocabSize) {
    throw new UsageError(
      `Cannot compare the models: their vocabularies have ${engine.config.vocabSize} and ${reference.config.vocabSize} tokens, required equal`,
    );
  }
  const nll = new NllSum(), referenceNll = new NllSum();
  let divergence = 0, agreeing = 0;
  await walk([engine, reference], options, (tokenId, [p, q]) => {
    const pLog = logSumExp(p), qLog = logSumExp(q);
    nll.add(pLog - p[tokenId]);
    referenceNll.add(qLog - q[tokenId]);
    for (let i = 0; i < q.length; i++) {
      const log = q[i] - qLog;
      // A token that the reference rules out adds nothing, also where its logit is -Infinity.
      const mass = Math.exp(log);
      if (mass > 0) divergence += mass * (log - (p[i] - pLog));
    }
    if (argmax(p) === argmax(q)) agreeing++;
  });
  const tokens = options.tokenIds.length;
  return {
    ...nll.result(options),
    reference: referenceNll.result(options),
    klDivergence: divergence / tokens,
    topOneAgreement: agreeing / tokens,
  };
}
