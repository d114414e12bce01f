/**
 * Reads how rotary embeddings stretch, in the spellings of transformers v4 (`rope_scaling` + `rope_theta`) and v5 (`rope_parameters`).
 * @module
 */
import { UnsupportedError } from "../errors.ts";
import type { RopeConfig, RopeScaling } from "../layers/model_config.ts";
import type { ConfigReader } from "./config_reader.ts";

/** Keys of each type beyond `rope_type`, `type`, `rope_theta` and `partial_rotary_factor`. */
const SCALING_KEYS: Record<Exclude<RopeScaling["type"], "temperature" | "proportional">, readonly string[]> = {
  default: [],
  linear: ["factor"],
  dynamic: ["factor", "original_max_position_embeddings"],
  llama3: ["factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"],
  yarn: [
    ...[
      "factor",
      "original_max_position_embeddings",
      "attention_factor",
      "beta_fast",
      "beta_slow",
      "mscale",
      "mscale_all_dim",
      "truncate",
    ],
  ],
  longrope: ["short_factor", "long_factor", "factor", "original_max_position_embeddings", "attention_factor"],
};

/** Former names of types; `mrope` is that of positions within pictures, which those of text are not. */
const ALIASES: Readonly<Record<string, keyof typeof SCALING_KEYS>> = { su: "longrope", mrope: "default" };

/** Keys that say which elements turn by which of a picture's positions: those of text are all the same. */
export const MROPE_KEYS: readonly string[] = ["mrope_section", "mrope_interleaved"];

/** What rotary embeddings depend on beside their own keys. */
export interface RopeDefaults {
  contextTokens: number;
  headDim: number;
  /** Base where none is given. */
  theta: number;
  /** Share of a head that is rotated where none is given; without it, the family rotates heads whole and refuses another share. */
  partialRotaryFactor?: number;
  /** Keys without meaning for what the family computes. */
  needlessKeys?: readonly string[];
}

/** Reads the type, which v4 wrote as `type` and later as `rope_type`. */
function ropeType(parameters: ConfigReader): keyof typeof SCALING_KEYS {
  const [current, former] = ["rope_type", "type"].map((key) => {
    const written = parameters.raw(key);
    return typeof written === "string" && Object.hasOwn(ALIASES, written) ? ALIASES[written] : written;
  });
  if (parameters.has("rope_type") && parameters.has("type") && current !== former) {
    throw parameters.refuse("type", `the same as rope_type (${JSON.stringify(current)})`);
  }
  const type = current ?? former ?? "default";
  if (typeof type !== "string" || !Object.hasOwn(SCALING_KEYS, type)) {
    throw new UnsupportedError(
      `Cannot use rope type ${JSON.stringify(type)}: known types are ${Object.keys(SCALING_KEYS).join(", ")}`,
    );
  }
  return type as keyof typeof SCALING_KEYS;
}

/** Returns the factor of cos and sin that YaRN takes for a stretch. */
function yarnAttentionFactor(factor: number, multiplier = 1): number {
  return factor <= 1 ? 1 : 0.1 * multiplier * Math.log(factor) + 1;
}

function yarnScaling(parameters: ConfigReader, contextTokens: number): RopeScaling {
  const originalContextTokens = parameters.integer("original_max_position_embeddings", contextTokens);
  const factor = parameters.positive("factor", contextTokens / originalContextTokens);
  const scaled = parameters.has("mscale") && parameters.has("mscale_all_dim")
    ? yarnAttentionFactor(factor, parameters.positive("mscale")) /
      yarnAttentionFactor(factor, parameters.positive("mscale_all_dim"))
    : yarnAttentionFactor(factor);
  return {
    type: "yarn",
    factor,
    originalContextTokens,
    attentionFactor: parameters.positive("attention_factor", scaled),
    betaFast: parameters.positive("beta_fast", 32),
    betaSlow: parameters.positive("beta_slow", 1),
    truncate: parameters.boolean("truncate", true),
  };
}

function longropeScaling(parameters: ConfigReader, config: ConfigReader, contextTokens: number): RopeScaling {
  // Phi-3 keeps the original length beside the rope parameters, and that one counts.
  const place = config.has("original_max_position_embeddings") ? config : parameters;
  const originalContextTokens = place.integer("original_max_position_embeddings", contextTokens);
  const factor = parameters.positive("factor", contextTokens / originalContextTokens);
  const attentionFactor = factor <= 1 ? 1 : Math.sqrt(1 + Math.log(factor) / Math.log(originalContextTokens));
  return {
    type: "longrope",
    shortFactors: parameters.positives("short_factor"),
    longFactors: parameters.positives("long_factor"),
    originalContextTokens,
    attentionFactor: parameters.positive("attention_factor", attentionFactor),
  };
}

/** Reads one scaling's parameters. A key that the type does not have would change the result unseen, so it is refused. */
function ropeScaling(
  parameters: ConfigReader,
  config: ConfigReader,
  { contextTokens, needlessKeys = [] }: RopeDefaults,
): RopeScaling {
  const type = ropeType(parameters);
  const known = new Set(["rope_type", "type", "rope_theta", "partial_rotary_factor", ...SCALING_KEYS[type], ...needlessKeys]);
  for (const key of parameters.keys()) {
    if (!known.has(key)) throw parameters.refuse(key, `only ${[...known].join(", ")} for rope type ${type}`);
  }
  if (type === "default") return { type };
  if (type === "yarn") return yarnScaling(parameters, contextTokens);
  if (type === "longrope") return longropeScaling(parameters, config, contextTokens);
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
  // Where both are equal nothing is blended.
  if (highFreqFactor < lowFreqFactor) throw parameters.refuse("high_freq_factor", `at least low_freq_factor (${lowFreqFactor})`);
  return { type, factor, lowFreqFactor, highFreqFactor, originalContextTokens };
}

/**
 * Returns how the heads of a model are rotated.
 * @throws {UnsupportedError} for an unknown type or key, contradicting spellings, or heads that cannot be rotated as asked.
 */
export function parseRope(config: ConfigReader, defaults: RopeDefaults): RopeConfig {
  const written = [config.object("rope_parameters"), config.object("rope_scaling")].filter((found) => found !== undefined);
  return ropeOf(written, config, [...written, config], defaults);
}

/**
 * Returns the rotary embeddings of layers that see all and of those with a window, as transformers v5 writes them, or v4: its scaling is that of the first.
 * @param thetas Bases where v5's spelling gives none; v4's of layers that see all.
 * @param windowedTheta Base of layers with a window in v4's spelling.
 * @throws {UnsupportedError} as {@linkcode parseRope}.
 */
export function parseLayerRopes(
  config: ConfigReader,
  defaults: Omit<RopeDefaults, "theta">,
  thetas: { all: number; windowed: number },
  windowedTheta: number,
): [all: RopeConfig, windowed: RopeConfig] {
  const nested = config.object("rope_parameters");
  if (nested?.has("full_attention") || nested?.has("sliding_attention")) {
    for (const key of nested.keys()) {
      if (key !== "full_attention" && key !== "sliding_attention") {
        throw nested.refuse(key, "full_attention or sliding_attention");
      }
    }
    const of = (key: string, theta: number): RopeConfig => {
      const parameters = nested.object(key);
      const readers = parameters ? [parameters] : [];
      return ropeOf(readers, config, readers, { ...defaults, theta });
    };
    return [of("full_attention", thetas.all), of("sliding_attention", thetas.windowed)];
  }
  const windowed: RopeConfig = { dim: defaults.headDim, theta: windowedTheta, scaling: { type: "default" } };
  return [parseRope(config, { ...defaults, theta: thetas.all }), windowed];
}

/**
 * Returns how heads are rotated as some objects of a config say alike.
 * @param written The objects that give the scaling.
 * @param readers All objects that may give base and share.
 * @throws {UnsupportedError} as {@linkcode parseRope}.
 */
export function ropeOf(
  written: readonly ConfigReader[],
  config: ConfigReader,
  readers: readonly ConfigReader[],
  defaults: RopeDefaults,
): RopeConfig {
  const { headDim } = defaults;
  const scalings = written.map((parameters) => ropeScaling(parameters, config, defaults));
  if (scalings.length === 2 && JSON.stringify(scalings[0]) !== JSON.stringify(scalings[1])) {
    throw config.refuse("rope_scaling", "the same scaling as rope_parameters");
  }
  const scaling = scalings[0] ?? { type: "default" };
  const theta = agreeing(readers, "rope_theta") ?? defaults.theta;
  const share = agreeing(readers, "partial_rotary_factor") ?? defaults.partialRotaryFactor ?? 1;
  if (share > 1 || (share !== 1 && defaults.partialRotaryFactor === undefined)) {
    const reader = readers.find((reader) => reader.has("partial_rotary_factor"))!;
    throw reader.refuse("partial_rotary_factor", defaults.partialRotaryFactor === undefined ? "1" : "1 at most");
  }
  const dim = Math.trunc(headDim * share);
  if (dim % 2 !== 0 || dim === 0) {
    throw share === 1
      ? config.refuse("head_dim", "even, since rotary embeddings pair its halves")
      : new UnsupportedError(`Cannot rotate ${dim} of ${headDim} elements of a head: required an even number above 0`);
  }
  if (scaling.type === "dynamic" && dim < 4) throw config.refuse("head_dim", "above 2 for dynamic rope");
  if (scaling.type === "longrope") {
    for (const key of ["short_factor", "long_factor"]) {
      if (written[0].positives(key).length !== dim / 2) throw written[0].refuse(key, `${dim / 2} numbers`);
    }
  }
  return { dim, theta, scaling };
}

/** Returns the one value that all objects which have a key give it. */
function agreeing(readers: readonly ConfigReader[], key: string): number | undefined {
  const having = readers.filter((reader) => reader.has(key));
  const values = having.map((reader) => reader.positive(key));
  const other = values.findIndex((value) => value !== values[0]);
  if (other > 0) throw having[other].refuse(key, `the same value as in the rope parameters (${values[0]})`);
  return values[0];
}
