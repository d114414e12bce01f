/**
 * Families that are Llama but for a choice or two: Seed-OSS with biases of queries, keys and values; ERNIE 4.5 and Helium, which rotate neighbours; Arcee's AFM,
 * whose feed-forward layers have no gate. Follows transformers' `modeling_seed_oss.py`, `modeling_ernie4_5.py`, `modeling_helium.py` and
 * `modeling_arcee.py`.
 * @module
 */
import type { AttentionConfig, MlpConfig } from "../../layers/model_config.ts";
import type { Architecture } from "../architecture.ts";
import { ConfigReader } from "../config_reader.ts";
import { decoderArchitecture } from "../decoder.ts";
import {
  decoderConfig,
  type DecoderShape,
  gatedMlp,
  plainAttention,
  preNormLayer,
  readActivation,
  readShape,
  rmsNorm,
} from "../decoder_config.ts";
import { parseRope } from "../rope_config.ts";
import { refuseUnimplemented } from "../unimplemented_keys.ts";

/** What a family has instead of what Llama has. */
interface Kin {
  modelType: string;
  /** Keys that others refuse. */
  keys: string[];
  /** Defaults of its configuration class. */
  missing: Partial<DecoderShape> & { contextTokens: number };
  eps: number;
  theta: number;
  activation: string;
  tied: boolean;
  attention(config: ConfigReader): Partial<AttentionConfig>;
  mlp(config: ConfigReader): Partial<MlpConfig>;
}

function kin({ modelType, keys, missing, eps: missingEps, theta, activation, tied, attention, mlp }: Kin): Architecture {
  return decoderArchitecture({
    modelTypes: [modelType],
    parseConfig: (values) => {
      const config = new ConfigReader(values, "config.json");
      refuseUnimplemented(config, keys);
      // As with Llama, the product in slices is the same up to rounding.
      config.integer("pretraining_tp", 1);
      const shape = readShape(config, missing);
      const eps = config.positive("rms_norm_eps", missingEps);
      const feedForward = gatedMlp(shape.intermediateSize, {
        activation: readActivation(config, "hidden_act", activation),
        ...mlp(config),
      });
      return decoderConfig(modelType, shape, {
        ropes: [parseRope(config, { ...shape, theta })],
        layers: Array(shape.numLayers).fill(
          preNormLayer(plainAttention(shape.headDim, attention(config)), feedForward, eps),
        ),
        finalNorm: rmsNorm("model.norm", eps),
        tieWordEmbeddings: config.boolean("tie_word_embeddings", tied),
      });
    },
  });
}

function attentionBias(config: ConfigReader): Partial<AttentionConfig> {
  const bias = config.boolean("attention_bias", false);
  return { qkvBias: bias, outputBias: bias };
}

/** Seed-OSS 36B. */
export const SEED_OSS = kin({
  modelType: "seed_oss",
  keys: ["attention_bias", "mlp_bias"],
  missing: { contextTokens: 524_288, numKvHeads: 8, headDim: 128 },
  ...{ eps: 1e-6, theta: 10_000, activation: "silu", tied: false },
  attention: (config) => ({
    qkvBias: config.boolean("attention_bias", true),
    outputBias: config.boolean("attention_out_bias", false),
  }),
  mlp: (config) => ({ bias: config.boolean("mlp_bias", false) }),
});

/** ERNIE 4.5 0.3B. */
export const ERNIE4_5 = kin({
  modelType: "ernie4_5",
  keys: [],
  missing: { contextTokens: 131_072, numKvHeads: 2, headDim: 128 },
  ...{ eps: 1e-5, theta: 500_000, activation: "silu", tied: true },
  attention: (config) => {
    const bias = config.boolean("use_bias", false);
    return { qkvBias: bias, outputBias: bias, rope: { index: 0, interleaved: true } };
  },
  mlp: (config) => ({ bias: config.boolean("use_bias", false) }),
});

/** Helium 1. */
export const HELIUM = kin({
  modelType: "helium",
  keys: ["attention_bias", "mlp_bias"],
  missing: { contextTokens: 4096, numKvHeads: 20, headDim: 128 },
  ...{ eps: 1e-8, theta: 100_000, activation: "silu", tied: false },
  // Its output has no bias, whatever the key says.
  attention: (config) => ({ ...attentionBias(config), outputBias: false, rope: { index: 0, interleaved: true } }),
  mlp: (config) => ({ bias: config.boolean("mlp_bias", false) }),
});

/** AFM 4.5B. */
export const ARCEE = kin({
  modelType: "arcee",
  keys: ["attention_bias", "mlp_bias"],
  missing: { contextTokens: 4096 },
  ...{ eps: 1e-5, theta: 10_000, activation: "relu2", tied: false },
  attention: attentionBias,
  mlp: (config) => ({ kind: "plain", bias: config.boolean("mlp_bias", false) }),
});
