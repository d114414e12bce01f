/**
 * Chooses the experts of a token from its router's logits. Pure: numbers in, experts and weights out.
 *
 * The kinds of routers are data. Every step is rounded to float32 where transformers rounds, so that near ties are decided as it decides them.
 * @module
 */

const f32 = Math.fround;

/** How a layer's router works. */
export interface RouterConfig {
  /** Experts of a layer. */
  numExperts: number;
  /** Experts a token goes to. */
  topK: number;
  /**
   * How logits become weights. `softmax` (Mixtral, Qwen, ERNIE) and `sigmoid` (DeepSeek-V3, GLM-4.5): of all, before the choice. `topk_softmax` (gpt-oss,
   * Granite) and `topk_sigmoid` (Llama 4): of the chosen alone, after a choice by logits. `sparsemixer` (Phi 3.5 MoE): of each choice among those left
   * that are nearly as good, see `jitter`.
   */
  score: "softmax" | "sigmoid" | "topk_softmax" | "topk_sigmoid" | "sparsemixer";
  /** Of a sparsemixer: how far below the best, relative to the larger of both, a logit still counts; times two. */
  jitter?: number;
  /** Whether the chosen experts' weights are divided by their sum. */
  normalize: boolean;
  /** Added to that sum. */
  normalizeEpsilon: number;
  /** What that sum is raised to where it is less (ERNIE 4.5). */
  normalizeLeast?: number;
  /** What the weights are multiplied by in the end. */
  scale: number;
  /**
   * Experts are chosen from the `kept` best of `count` equal groups alone: a group is as good as its best expert (`max`, DeepSeek-V2), or as the sum of
   * its two best (`top2`, DeepSeek-V3).
   */
  groups?: { count: number; kept: number; score: "max" | "top2" };
  /** Multiplies the logits; 1 without it. */
  logitMultiplier?: number;
  /** Whether the weights multiply the experts' input (Llama 4), not their output. */
  scalesInput: boolean;
}

/** What a layer has for each of its experts: f32 [numExperts]. */
export interface ExpertFactors {
  /** Added to the scores for the choice alone (DeepSeek-V3, arXiv:2412.19437, 2.1.2). */
  correction?: Float32Array;
  /** Multiplies the weights in the end (Gemma 4). */
  scales?: Float32Array;
}

/** Where a pass's tokens go, ascending by expert within each token. */
export interface Routing {
  /** [tokens, topK] */
  experts: Int32Array<ArrayBuffer>;
  /** [tokens, topK] */
  weights: Float32Array<ArrayBuffer>;
}

/** Returns softmax(logits) in float32. */
function softmax(logits: Float32Array): Float32Array {
  const max = logits.reduce((most, value) => Math.max(most, value), -Infinity);
  const powers = logits.map((value) => f32(Math.exp(f32(value - max))));
  const sum = f32(powers.reduce((total, value) => total + value, 0));
  return powers.map((value) => f32(value / sum));
}

/** Returns 1 / (1 + exp(-x)) in float32. */
function sigmoid(logits: Float32Array): Float32Array {
  return logits.map((value) => f32(1 / f32(1 + f32(Math.exp(-value)))));
}

/** Returns the indexes of the `count` largest, descending, the first among equals first. */
function largest(values: Float32Array, count: number): number[] {
  const chosen: number[] = [];
  for (let i = 0; i < values.length; i++) {
    let place = chosen.length;
    while (place > 0 && values[i] > values[chosen[place - 1]]) place--;
    if (place >= count) continue;
    chosen.splice(place, 0, i);
    if (chosen.length > count) chosen.pop();
  }
  return chosen;
}

/** Returns the scores with those of all but the best groups put below every other. */
function keepBestGroups(scores: Float32Array, { count, kept, score }: NonNullable<RouterConfig["groups"]>): Float32Array {
  const size = scores.length / count;
  const groupScores = Float32Array.from({ length: count }, (_, group) => {
    const members = scores.subarray(group * size, (group + 1) * size);
    const [first, second] = largest(members, 2);
    return score === "max" ? members[first] : members[first] + members[second];
  });
  const keep = new Set(largest(groupScores, kept));
  return scores.map((value, expert) => keep.has(Math.floor(expert / size)) ? value : -Infinity);
}

/**
 * Returns the experts of a token, the best first, and the weight of each: its share in a softmax over those that were not chosen before and are nearly as
 * good. Liu et al. 2024 (SparseMixer-v2), arXiv:2409.12136.
 */
function sparsemixer({ topK, jitter = 0 }: RouterConfig, logits: Float32Array): { experts: number[]; weights: Float32Array } {
  const experts = largest(logits, topK);
  const weights = experts.map((expert, place) => {
    const best = logits[expert], earlier = experts.slice(0, place);
    const shares = softmax(logits.map((logit, i) => {
      const distance = f32(f32(best - logit) / Math.max(Math.abs(logit), best));
      return earlier.includes(i) || distance > 2 * jitter ? -Infinity : logit;
    }));
    return shares[expert];
  });
  return { experts, weights: Float32Array.from(weights) };
}

/** Routes one token. */
function routeToken(config: RouterConfig, given: Float32Array, { correction, scales }: ExpertFactors): [number, number][] {
  const { score, topK, groups, logitMultiplier = 1 } = config;
  const logits = logitMultiplier === 1 ? given : given.map((value) => f32(value * logitMultiplier));
  if (score === "sparsemixer") {
    const { experts, weights } = sparsemixer(config, logits);
    return experts.map((expert, i): [number, number] => [expert, weights[i]]).sort(([a], [b]) => a - b);
  }
  const scores = score === "softmax" ? softmax(logits) : score === "sigmoid" ? sigmoid(logits) : logits;
  let choice = correction ? scores.map((value, expert) => f32(value + correction[expert])) : scores;
  if (groups) choice = keepBestGroups(choice, groups);
  const experts = largest(choice, topK);
  let weights: Float32Array = Float32Array.from(experts, (expert) => scores[expert]);
  if (score === "topk_softmax") weights = softmax(weights);
  if (score === "topk_sigmoid") weights = sigmoid(weights);
  if (config.normalize) {
    const total = f32(f32(weights.reduce((total, value) => f32(total + value), 0)) + config.normalizeEpsilon);
    const sum = Math.max(total, f32(config.normalizeLeast ?? 0));
    weights = weights.map((value) => value / sum);
  }
  return experts.map((expert, i): [number, number] => {
    const weight = f32(weights[i] * config.scale);
    return [expert, scales ? f32(weight * scales[expert]) : weight];
  }).sort(([a], [b]) => a - b);
}

/**
 * Routes the tokens of a pass. Among equal scores the first expert wins.
 *
 * logits: f32 [tokens, numExperts].
 */
export function route(config: RouterConfig, logits: Float32Array, tokens: number, factors: ExpertFactors = {}): Routing {
  const { numExperts, topK } = config;
  const routing: Routing = { experts: new Int32Array(tokens * topK), weights: new Float32Array(tokens * topK) };
  for (let token = 0; token < tokens; token++) {
    const row = logits.subarray(token * numExperts, (token + 1) * numExperts);
    routeToken(config, row, factors).forEach(([expert, weight], i) => {
      routing.experts[token * topK + i] = expert;
      routing.weights[token * topK + i] = weight;
    });
  }
  return routing;
}

/** The tokens that one expert computes in a pass. */
export interface ExpertTokens {
  expert: number;
  /** Indexes into the routing, token * topK + place, ascending. */
  entries: number[];
}

/** Returns the experts that a routing uses, ascending, with their tokens. */
export function byExpert(routing: Routing): ExpertTokens[] {
  const entries = new Map<number, number[]>();
  routing.experts.forEach((expert, entry) => {
    const known = entries.get(expert);
    if (known) known.push(entry);
    else entries.set(expert, [entry]);
  });
  return [...entries].map(([expert, entries]) => ({ expert, entries })).sort((a, b) => a.expert - b.expert);
}
