/**
 * How rotary embeddings stretch in a GGUF file, as config.json has it. Keys: gguf-py's constants.py; which are written: llama.cpp's
 * `conversion/base.py`.
 * @module
 */
import { FormatError, UnsupportedError } from "../errors.ts";
import type { ArchitectureKeys } from "./gguf_keys.ts";

/** Returns Llama 3's factors of head dimension `2 * pairs` (transformers, modeling_rope_utils.py). */
function llama3Factors(pairs: number, theta: number, factor: number): number[] {
  return Array.from({ length: pairs }, (_, i) => {
    const wavelength = 2 * Math.PI * theta ** (i / pairs);
    if (wavelength < 8192 / 4) return 1;
    if (wavelength > 8192) return factor;
    const smooth = (8192 / wavelength - 1) / (4 - 1);
    return 1 / ((1 - smooth) / factor + smooth);
  });
}

/** Returns the scaling that factors of frequencies stand for: Llama 3's where they are that, else what divides by them whatever the length. */
function scalingOf(factors: Float32Array, theta: number, contextTokens: number): Record<string, unknown> {
  for (const factor of [8, 32]) {
    const known = llama3Factors(factors.length, theta, factor);
    if (known.every((value, i) => Math.abs(value - factors[i]) <= 1e-4 * value)) {
      return { rope_type: "llama3", factor, low_freq_factor: 1, high_freq_factor: 4, original_max_position_embeddings: 8192 };
    }
  }
  const same = [...factors];
  return {
    ...{ rope_type: "longrope", short_factor: same, long_factor: same, attention_factor: 1 },
    original_max_position_embeddings: contextTokens,
  };
}

/** Settings of YaRN by the names of config.json. */
function yarn(keys: ArchitectureKeys, factor: number, original: number): Record<string, unknown> {
  keys.only("rope.scaling.yarn_ext_factor", 1);
  const scaling: Record<string, unknown> = { rope_type: "yarn", factor, original_max_position_embeddings: original };
  for (const name of ["beta_fast", "beta_slow"]) {
    if (keys.has(`rope.scaling.yarn_${name}`)) scaling[name] = keys.number(`rope.scaling.yarn_${name}`);
  }
  if (keys.has("rope.scaling.yarn_attn_factor")) scaling.attention_factor = keys.number("rope.scaling.yarn_attn_factor");
  if (keys.has("rope.scaling.attn_factor")) scaling.attention_factor = keys.number("rope.scaling.attn_factor");
  if (keys.has("rope.scaling.yarn_log_multiplier")) {
    // DeepSeek's two are equal in all releases; the file has the second, times 0.1.
    const sharpness = Math.fround(keys.number("rope.scaling.yarn_log_multiplier") * 10);
    scaling.mscale = scaling.mscale_all_dim = Number(sharpness.toPrecision(6));
  }
  return scaling;
}

/**
 * Returns how rotary embeddings stretch.
 * @param factors Values of the file's tensors that are factors of rotary frequencies, by name.
 * @throws {UnsupportedError} for a kind that is not known. @throws {FormatError} where settings are missing.
 */
export function ggufRopeScaling(
  keys: ArchitectureKeys,
  theta: number,
  contextTokens: number,
  factors: ReadonlyMap<string, Float32Array>,
): Record<string, unknown> {
  const { where, architecture } = keys;
  const type = keys.take("rope.scaling.type"), factor = keys.take("rope.scaling.factor");
  const original = keys.take("rope.scaling.original_context_length");
  keys.take("rope.scaling.finetuned");
  const all = factors.get("rope_freqs.weight"), long = factors.get("rope_factors_long.weight");
  if (long !== undefined) {
    const short = factors.get("rope_factors_short.weight");
    if (short === undefined || typeof original !== "number") {
      throw new FormatError(
        `Cannot read ${where}: rope_factors_long.weight is there without rope_factors_short.weight or its length`,
      );
    }
    const attention = keys.has("rope.scaling.attn_factor") && { attention_factor: keys.number("rope.scaling.attn_factor") };
    const scaling = { rope_type: "longrope", long_factor: [...long], short_factor: [...short], ...attention };
    return { original_max_position_embeddings: original, rope_scaling: scaling };
  }
  if (all !== undefined) return { rope_scaling: scalingOf(all, theta, contextTokens) };
  if (type === "linear" && typeof factor === "number") return { rope_scaling: { rope_type: "linear", factor } };
  if (type === "yarn" && typeof factor === "number" && typeof original === "number") {
    return { rope_scaling: yarn(keys, factor, original) };
  }
  if (type === undefined || type === "none") return {};
  throw new UnsupportedError(
    `Cannot use ${where}: ${architecture}.rope.scaling.type is ${JSON.stringify(type)} with factor ${
      JSON.stringify(factor)
    } and ` +
      `original_context_length ${JSON.stringify(original)}, supported: none, linear, yarn, longrope with its factors`,
  );
}
