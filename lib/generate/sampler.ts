/**
 * Chooses the next token from a model's logits.
 * @module
 */
import { AirkernError, UsageError } from "../errors.ts";
import { applyRepetitionPenalty, type Candidates, type Processing, processLikeliest, processLogits } from "./processors.ts";
import { Random, randomSeed } from "./random.ts";

/** How tokens are chosen. Without any of these, the likeliest token each time (greedy). */
export interface SamplingOptions {
  /**
   * Above 0: tokens are drawn at random, the more evenly the higher; 0: the likeliest token each time, whatever topK, topP and minP say.
   * Default: 1 where one of those three is given, else 0.
   */
  temperature?: number;
  /** Draws only from this many likeliest tokens; 0 for all. Default: 0. */
  topK?: number;
  /** Draws only from the likeliest tokens that together have this probability. Default: 1. */
  topP?: number;
  /** Draws only from tokens at least this many times as likely as the likeliest. Default: 0. */
  minP?: number;
  /** Above 1: makes tokens of the prompt and of the text so far less likely. Default: 1. */
  repetitionPenalty?: number;
  /** Makes draws repeatable: a whole number from 0. Default: a random one. */
  seed?: number;
}

/** What each option must be, for messages and checks. */
const RANGES: Record<keyof SamplingOptions, [valid: (value: number) => boolean, required: string]> = {
  temperature: [(v) => v >= 0 && v < Infinity, "a number from 0"],
  topK: [(v) => Number.isSafeInteger(v) && v >= 0, "a whole number from 0"],
  topP: [(v) => v >= 0 && v <= 1, "a number from 0 to 1"],
  minP: [(v) => v >= 0 && v <= 1, "a number from 0 to 1"],
  repetitionPenalty: [(v) => v > 0 && v < Infinity, "a number above 0"],
  seed: [(v) => Number.isSafeInteger(v) && v >= 0, `a whole number from 0 to ${Number.MAX_SAFE_INTEGER}`],
};

/**
 * Checks sampling options.
 *
 * @throws {UsageError} that names the first option out of range.
 */
export function checkSamplingOptions(options: SamplingOptions): void {
  for (const [name, [valid, required]] of Object.entries(RANGES)) {
    const value = options[name as keyof SamplingOptions];
    if (value !== undefined && !valid(value)) throw new UsageError(`Cannot sample: ${name} is ${value}, required ${required}`);
  }
}

/** Chooses the tokens of one sequence. */
export class Sampler {
  readonly #processing: Processing;
  readonly #random: Random;
  readonly #seen = new Set<number>();

  /** @throws {UsageError} for options out of range. */
  constructor(options: SamplingOptions, promptIds: ArrayLike<number>) {
    checkSamplingOptions(options);
    const { topK = 0, topP = 1, minP = 0, repetitionPenalty = 1 } = options;
    const temperature = options.temperature ?? (topK > 0 || topP < 1 || minP > 0 ? 1 : 0);
    this.#processing = { temperature, topK, topP, minP, repetitionPenalty };
    this.#random = new Random(options.seed ?? randomSeed());
    for (let i = 0; i < promptIds.length; i++) this.#seen.add(promptIds[i]);
  }

  /** Whether the likeliest token is all that is needed, so that the logits can stay on the device. */
  get isArgmax(): boolean {
    return this.#processing.temperature === 0 && this.#processing.repetitionPenalty === 1;
  }

  /** How many of the likeliest tokens are needed to draw one, so that the other logits can stay on the device; undefined where all are. */
  get likeliestNeeded(): number | undefined {
    const { temperature, topK, repetitionPenalty } = this.#processing;
    // One more tells whether the last is as likely as those that are left out.
    return temperature > 0 && topK > 0 && repetitionPenalty === 1 ? topK + 1 : undefined;
  }

  /**
   * Returns the next token as {@linkcode sample} would, from the likeliest alone: `likeliestNeeded` logits in descending order and their tokens.
   * Undefined where all logits are needed after all.
   *
   * @throws {AirkernError} where the logits are not numbers.
   */
  sampleLikeliest(logits: Float32Array, ids: Int32Array): number | undefined {
    argmax(logits);
    const candidates = processLikeliest(logits, ids, this.#processing);
    return candidates && this.#draw(candidates);
  }

  /** Takes note of a token that joined the sequence. */
  accept(id: number): void {
    this.#seen.add(id);
  }

  /**
   * Returns the next token.
   *
   * @param logits [vocab]; the repetition penalty is applied in place.
   * @throws {AirkernError} where the logits are not numbers.
   */
  sample(logits: Float32Array): number {
    const { temperature, repetitionPenalty } = this.#processing;
    if (temperature === 0) {
      if (repetitionPenalty !== 1) applyRepetitionPenalty(logits, this.#seen, repetitionPenalty);
      return argmax(logits);
    }
    // Finds damage before it is drawn from.
    argmax(logits);
    return this.#draw(processLogits(logits, this.#seen, this.#processing));
  }

  /** Draws one of the candidates by their probabilities. */
  #draw({ ids, scores }: Candidates): number {
    let total = 0;
    const cumulative = scores.map((score) => total += Math.exp(score));
    const target = this.#random.uniform() * total;
    return ids[cumulative.findIndex((mass) => mass > target)];
  }
}

/**
 * Returns the position of the largest element, the first of equal ones.
 *
 * @throws {AirkernError} where one is NaN or infinite, or all are -Infinity: the weights or the computation are damaged.
 */
export function argmax(logits: ArrayLike<number>): number {
  let best = -1, max = -Infinity;
  for (let i = 0; i < logits.length; i++) {
    const value = logits[i];
    if (value > max) {
      max = value;
      best = i;
    } else if (value !== value) {
      throw new AirkernError(`Cannot choose a token: the logit of token ${i} is NaN; the weights may be damaged, see \`verify\``);
    }
  }
  if (best < 0 || max === Infinity) {
    throw new AirkernError(`Cannot choose a token: the largest logit is ${max}; the weights may be damaged, see \`verify\``);
  }
  return best;
}
