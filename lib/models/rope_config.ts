/**
 * Reads how rotary embeddings stretch, in the spellings of transformers v4 (`rope_scaling` + `rope_theta`) and v5 (`rope_parameters`).
 * @module
 */
import { UnsupportedError } from "../errors.ts";
import type { RopeScaling } from "./architecture.ts";
import type { ConfigReader } from "./config_reader.ts";

/** Keys of each type beyond `rope_type`, `type`, `rope_theta` and `partial_rotary_factor`. */
const SCALING_KEYS: Record<RopeScaling["type"], readonly string[]> = {
  default: [],
  linear: ["factor"],
  dynamic: ["factor", "original_max_position_embeddings"],
  llama3: ["factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"],
};

/** What a config.json says about rotary embeddings. */
export interface RopeConfig {
  theta: number;
  scaling: RopeScaling;
}

/** Reads the type, which v4 wrote as `type` and later as `rope_type`. */
function ropeType(parameters: ConfigReader): RopeScaling["type"] {
  const current = parameters.raw("rope_type"), former = parameters.raw("type");
  if (parameters.has("rope_type") && parameters.has("type") && current !== former) {
    throw parameters.refuse("type", `the same as rope_type (${JSON.stringify(current)})`);
  }
  const type = current ?? former ?? "default";
  if (typeof type !== "string" || !Object.hasOwn(SCALING_KEYS, type)) {
    throw new UnsupportedError(
      `Cannot use rope type ${JSON.stringify(type)}: known types are ${Object.keys(SCALING_KEYS).join(", ")}`,
    );
  }
  return type as RopeScaling["type"];
}

/** Reads one scaling's parameters. A key that the type does not have would change the result unseen, so it is refused. */
function ropeScaling(parameters: ConfigReader, contextTokens: number): RopeScaling {
  const type = ropeType(parameters);
  const known = new Set(["rope_type", "type", "rope_theta", "partial_rotary_factor", ...SCALING_KEYS[type]]);
  for (const key of parameters.keys()) {
    if (!known.has(key)) throw parameters.refuse(key, `only ${[...known].join(", ")} for rope type ${type}`);
  }
  if (type === "default") return { type };
  const factor = parameters.positive("factor");
  if (factor < 1) throw parameters.refuse("factor", "at least 1");
  if (type === "linear") return { type, factor };
  const originalContextTokens = parameters.integer("original_max_position_embeddings", contextTokens);
  if (type === "dynamic") {
    // transformers stretches from max_position_embeddings and does not read this key; where they differ, one of them is wrong.
    if (originalContextTokens !== contextTokens) {
      throw parameters.refuse("original_max_position_embeddings", `max_position_embeddings (${contextTokens})`);
    }
    return { type, factor, originalContextTokens };
  }
  const lowFreqFactor = parameters.positive("low_freq_factor");
  const highFreqFactor = parameters.positive("high_freq_factor");
  if (highFreqFactor <= lowFreqFactor) throw parameters.refuse("high_freq_factor", `above low_freq_factor (${lowFreqFactor})`);
  return { type, factor, lowFreqFactor, highFreqFactor, originalContextTokens };
}

/**
 * Returns base and scaling of the rotary embeddings.
 * @throws {UnsupportedError} for an unknown type or key, contradicting spellings, or heads that are rotated in part.
 */
export function parseRope(config: ConfigReader, contextTokens: number, defaultTheta: number): RopeConfig {
  const written = [config.object("rope_parameters"), config.object("rope_scaling")].filter((found) => found !== undefined);
  const scalings = written.map((parameters) => ropeScaling(parameters, contextTokens));
  if (scalings.length === 2 && JSON.stringify(scalings[0]) !== JSON.stringify(scalings[1])) {
    throw config.refuse("rope_scaling", "the same scaling as rope_parameters");
  }
  const thetas: number[] = [];
  for (const reader of [...written, config]) {
    if (reader.has("rope_theta")) thetas.push(reader.positive("rope_theta"));
    if (reader.has("partial_rotary_factor") && reader.raw("partial_rotary_factor") !== 1) {
      throw reader.refuse("partial_rotary_factor", "1");
    }
  }
  if (thetas.some((theta) => theta !== thetas[0])) {
    throw config.refuse("rope_theta", `the same value as in the rope parameters (${thetas[0]})`);
  }
  return { theta: thetas[0] ?? defaultTheta, scaling: scalings[0] ?? { type: "default" } };
}
