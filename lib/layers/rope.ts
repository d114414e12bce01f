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
 * Returns f32 [dim / 2], the radians a position of each pair of elements.
 *
 * `spanTokens` is the length of the sequence at the end of the pass; only `dynamic` scaling depends on it.
 */
export function inverseFrequencies({ scaling, theta, dim }: RopeConfig, spanTokens: number): Float32Array<ArrayBuffer> {
  switch (scaling.type) {
    case "default":
      return plainInverseFrequencies(theta, dim);
    case "linear":
      return plainInverseFrequencies(theta, dim).map((frequency) => frequency / scaling.factor);
    case "dynamic": {
      const stretched = spanTokens > scaling.originalContextTokens;
      return plainInverseFrequencies(stretched ? dynamicBase(theta, scaling, dim, spanTokens) : theta, dim);
    }
    case "llama3":
      return plainInverseFrequencies(theta, dim).map((frequency) => llama3Frequency(frequency, scaling));
  }
}

/** Fills the cos and sin tables of one kind of rotary embedding for the tokens of a pass. */
export class RotaryTable {
  readonly #config: RopeConfig;
  #frequencies: Float32Array;
  #spanTokens = 1;

  constructor(config: RopeConfig) {
    this.#config = config;
    this.#frequencies = inverseFrequencies(config, 1);
  }

  /**
   * Writes row `row` of the tables for a token at `position` of a sequence that is `spanTokens` long at the end of the pass.
   *
   * cos, sin: f32 [tokens, dim / 2].
   */
  fill(cos: Float32Array, sin: Float32Array, row: number, position: number, spanTokens: number): void {
    if (this.#config.scaling.type === "dynamic" && spanTokens !== this.#spanTokens) {
      this.#frequencies = inverseFrequencies(this.#config, spanTokens);
      this.#spanTokens = spanTokens;
    }
    const frequencies = this.#frequencies, pairs = frequencies.length;
    for (let i = 0, at = row * pairs; i < pairs; i++, at++) {
      const angle = f32(position * frequencies[i]);
      cos[at] = Math.cos(angle);
      sin[at] = Math.sin(angle);
    }
  }
}
