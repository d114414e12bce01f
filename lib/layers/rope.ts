/**
 * Tables of rotary position embeddings: Su et al. 2021, arXiv:2104.09864, stretched as transformers' `modeling_rope_utils.py` does.
 *
 * Every step is rounded to float32 where transformers rounds, so that tables agree to the last bits also at positions where the angle is
 * thousands of radians.
 * @module
 */
import type { RopeConfig, RopeScaling } from "./model_config.ts";

const f32 = Math.fround;

/** Returns f32 [dim / 2], base ^ (-2 i / dim). */
function plainInverseFrequencies(base: number, dim: number): Float32Array<ArrayBuffer> {
  return Float32Array.from({ length: dim / 2 }, (_, i) => 1 / f32(f32(base) ** f32((2 * i) / dim)));
}

/** Returns the base that NTK-aware scaling uses for a sequence longer than the original context. */
function dynamicBase(theta: number, scaling: RopeScaling & { type: "dynamic" }, dim: number, spanTokens: number): number {
  const { factor, originalContextTokens } = scaling;
  const stretch = f32(f32(f32(factor * spanTokens) / originalContextTokens) - (factor - 1));
  return f32(theta * f32(stretch ** f32(dim / (dim - 2))));
}

/** Stretches long wavelengths by `factor`, leaves short ones, and blends between: Llama 3.1. */
function llama3Frequency(frequency: number, scaling: RopeScaling & { type: "llama3" }): number {
  const { factor, lowFreqFactor, highFreqFactor, originalContextTokens } = scaling;
  const wavelength = f32(f32(1 / frequency) * f32(2 * Math.PI));
  if (wavelength < originalContextTokens / highFreqFactor) return frequency;
  if (wavelength > originalContextTokens / lowFreqFactor) return f32(frequency / factor);
  const turns = f32(f32(1 / wavelength) * originalContextTokens);
  const smooth = f32(f32(turns - lowFreqFactor) / (highFreqFactor - lowFreqFactor));
  return f32(f32(f32(f32(1 - smooth) * frequency) / factor) + f32(smooth * frequency));
}

/**
 * Stretches wavelengths that turn less than `betaSlow` times in the original context by `factor`, leaves those that turn more than `betaFast`
 * times, and blends between: YaRN, Peng et al. 2023, arXiv:2309.00071.
 */
function yarnInverseFrequencies(
  { scaling, theta, dim }: RopeConfig & { scaling: RopeScaling & { type: "yarn" } },
): Float32Array<ArrayBuffer> {
  const { factor, originalContextTokens, betaFast, betaSlow, truncate } = scaling;
  // The pair of elements that turns this many times in the original context.
  const pairOf = (turns: number): number =>
    (dim * Math.log(originalContextTokens / (turns * 2 * Math.PI))) / (2 * Math.log(theta));
  const round = (pair: number, to: (value: number) => number): number => truncate ? to(pair) : pair;
  const low = Math.max(round(pairOf(betaFast), Math.floor), 0);
  let high = Math.min(round(pairOf(betaSlow), Math.ceil), dim - 1);
  if (high === low) high += 0.001;
  return Float32Array.from({ length: dim / 2 }, (_, i) => {
    const wavelength = f32(f32(theta) ** f32((2 * i) / dim));
    const ramp = Math.min(1, Math.max(0, f32(f32(i - low) / f32(high - low))));
    const kept = f32(1 - ramp);
    return f32(f32(f32(1 / f32(factor * wavelength)) * f32(1 - kept)) + f32(f32(1 / wavelength) * kept));
  });
}

/**
 * Divides each frequency by a searched factor of its own: LongRoPE, Ding et al. 2024, arXiv:2402.13753. Keys that were cached while the sequence was
 * short keep the short factors, as in transformers' forward pass (its `generate()` starts over where the length is crossed).
 */
function longropeInverseFrequencies(theta: number, dim: number, factors: readonly number[]): Float32Array<ArrayBuffer> {
  return Float32Array.from(factors, (factor, i) => 1 / f32(f32(factor) * f32(f32(theta) ** f32((2 * i) / dim))));
}

/**
 * Returns f32 [dim / 2], the radians a position of each pair of elements.
 *
 * `spanTokens` is the length of the sequence at the end of the pass; only `dynamic` and `longrope` depend on it.
 */
export function inverseFrequencies(config: RopeConfig, spanTokens: number): Float32Array<ArrayBuffer> {
  const frequencies = stretchedFrequencies(config, spanTokens);
  return config.halfFrequencies ? Float32Array.from(new Float16Array(frequencies)) : frequencies;
}

function stretchedFrequencies({ scaling, theta, dim }: RopeConfig, spanTokens: number): Float32Array<ArrayBuffer> {
  switch (scaling.type) {
    case "default":
      return plainInverseFrequencies(theta, dim);
    case "linear":
      return plainInverseFrequencies(theta, dim).map((frequency) => frequency / scaling.factor);
    case "dynamic": {
      const stretched = spanTokens > scaling.originalContextTokens;
      return plainInverseFrequencies(stretched ? dynamicBase(theta, scaling, dim, spanTokens) : theta, dim);
    }
    case "proportional":
      return plainInverseFrequencies(theta, dim).map((frequency, i) => i < scaling.rotatedPairs ? frequency / scaling.factor : 0);
    case "llama3":
      return plainInverseFrequencies(theta, dim).map((frequency) => llama3Frequency(frequency, scaling));
    case "yarn":
      return yarnInverseFrequencies({ scaling, theta, dim });
    case "temperature":
      return new Float32Array(dim / 2);
    case "longrope": {
      const { shortFactors, longFactors, originalContextTokens } = scaling;
      return longropeInverseFrequencies(theta, dim, spanTokens > originalContextTokens ? longFactors : shortFactors);
    }
  }
}

/** Fills the cos and sin tables of one kind of rotary embedding for the tokens of a pass. */
export class RotaryTable {
  readonly #config: RopeConfig;
  /** Whether the frequencies depend on the length of the sequence. */
  readonly #followsSpan: boolean;
  /** What cos and sin are multiplied by. */
  readonly #factor: number;
  #frequencies: Float32Array;
  #spanTokens = 1;

  constructor(config: RopeConfig) {
    const { scaling } = config;
    this.#config = config;
    this.#followsSpan = scaling.type === "dynamic" || scaling.type === "longrope";
    this.#factor = "attentionFactor" in scaling ? f32(scaling.attentionFactor) : 1;
    this.#frequencies = inverseFrequencies(config, 1);
  }

  /**
   * Writes row `row` of the tables for a token at `position` of a sequence that is `spanTokens` long at the end of the pass.
   *
   * cos, sin: f32 [tokens, dim / 2].
   */
  fill(cos: Float32Array, sin: Float32Array, row: number, position: number, spanTokens: number): void {
    if (this.#followsSpan && spanTokens !== this.#spanTokens) {
      this.#frequencies = inverseFrequencies(this.#config, spanTokens);
      this.#spanTokens = spanTokens;
    }
    const { scaling } = this.#config;
    if (scaling.type === "temperature") {
      // Rounded as transformers does it.
      const logarithm = f32(Math.log1p(Math.floor(f32((position + scaling.firstPosition) / scaling.floorTokens))));
      const pairs = this.#frequencies.length;
      cos.fill(f32(f32(logarithm * scaling.attentionScale) + 1), row * pairs, (row + 1) * pairs);
      sin.fill(0, row * pairs, (row + 1) * pairs);
      return;
    }
    const frequencies = this.#frequencies, pairs = frequencies.length, factor = this.#factor;
    const sineFactor = this.#config.reversed ? -factor : factor;
    for (let i = 0, at = row * pairs; i < pairs; i++, at++) {
      const angle = f32(position * frequencies[i]);
      cos[at] = f32(Math.cos(angle)) * factor;
      sin[at] = f32(Math.sin(angle)) * sineFactor;
    }
  }
}
