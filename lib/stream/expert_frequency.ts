/**
 * Estimates how often each expert is used, which is what decides which experts stay in memory.
 *
 * Why not the least recently used: a pass goes through the layers in a circle, so what was used longest ago is what the next layers are about to
 * use; with less than a whole pass's experts in memory, such a cache hits next to nothing, and one expert that a single token happened to need
 * pushes out one that every second token needs. Frequency with aging keeps what is hot and follows a change of topic:
 * tests/stream/expert_frequency_test.ts compares the two on skewed routing.
 * @module
 */

/** Tokens after which a use counts half. Some sentences: long enough to tell hot from lucky, short enough to follow a new topic. */
const HALF_LIFE_TOKENS = 64;

/**
 * What an expert is worth in device memory that host memory has too, as a share of one that would have to be read from disk: the bus brings some eight
 * times as many bytes a second as a disk.
 */
const DISCOUNT = 1 / 8;

/** The probability that a token uses each expert: an average over the tokens so far, the later ones weighing more. */
export class ExpertFrequency {
  readonly #shares: Float64Array;
  /** What is cheap to get again counts less. */
  readonly #weights: Float64Array;
  /** Experts of a layer. */
  readonly #numExperts: number;
  readonly #numLayers: number;

  constructor(numLayers: number, numExperts: number) {
    this.#numLayers = numLayers;
    this.#numExperts = numExperts;
    this.#shares = new Float64Array(numLayers * numExperts);
    this.#weights = new Float64Array(numLayers * numExperts).fill(1);
  }

  /** Takes note of a pass of `tokens` tokens through a layer: for each expert used, how many of the tokens went to it. */
  count(layer: number, tokens: number, used: Iterable<readonly [expert: number, tokens: number]>): void {
    const kept = 0.5 ** (tokens / HALF_LIFE_TOKENS);
    const first = layer * this.#numExperts;
    for (let i = first; i < first + this.#numExperts; i++) this.#shares[i] *= kept;
    for (const [expert, count] of used) this.#shares[first + expert] += (1 - kept) * count / tokens;
  }

  /** Returns the share of tokens that use an expert, 0 to 1. `index`: layer * numExperts + expert. */
  share(index: number): number {
    return this.#shares[index];
  }

  /** Says whether host memory keeps an expert. */
  discount(index: number, isKept: boolean): void {
    this.#weights[index] = isKept ? DISCOUNT : 1;
  }

  /**
   * Compares what two experts are worth when layer `layer` is computed; negative where `a` should leave first: the rarer one (what is kept in host memory counting as rarer), and of two as rare
   * the one whose layer comes later, since passes go through the layers in a circle.
   */
  compare(a: number, b: number, layer: number): number {
    return this.#shares[a] * this.#weights[a] - this.#shares[b] * this.#weights[b] ||
      this.#distance(b, layer) - this.#distance(a, layer);
  }

  /** Layers to go until an expert can be used again; a layer's own are used up. */
  #distance(index: number, layer: number): number {
    const distance = Math.floor(index / this.#numExperts) - layer;
    return distance > 0 ? distance : distance + this.#numLayers;
  }
}
