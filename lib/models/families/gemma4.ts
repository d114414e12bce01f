/**
 * The language models of Gemma 4 31B and 26B-A4B: layers that see all have wider heads, of which a share is rotated, and values that are their keys; every
 * layer scales the residual stream; experts beside a dense layer. Follows transformers' `modeling_gemma4.py`.
 * @module
 */
import type {
  AttentionConfig,
  HeadNormConfig,
  LayerConfig,
  MlpConfig,
  MoeConfig,
  RopeConfig,
} from "../../layers/model_config.ts";
import type { ModelConfig, TensorSource } from "../architecture.ts";
import type { ConfigReader } from "../config_reader.ts";
import {
  decoderConfig,
  type DecoderShape,
  gatedMlp,
  plainAttention,
  readActivation,
  readShape,
  readSlidingLayers,
  rmsNorm,
} from "../decoder_config.ts";
import { readSoftcap } from "./gemma2.ts";
import { type LanguageFamily, languageModel, NESTED, wholeModel } from "../language_model.ts";
import { plainMoe, plainRouter, readExperts, stackedExpertSource, widestIntermediate } from "../moe_config.ts";
import { ropeOf } from "../rope_config.ts";
import { refuseUnimplemented } from "../unimplemented_keys.ts";

/** Sizes of transformers' configuration class. */
const MISSING = {
  ...{ hiddenSize: 2304, intermediateSize: 9216, numLayers: 30, numHeads: 8, numKvHeads: 4, headDim: 256 },
  ...{ vocabSize: 262_144, contextTokens: 131_072 },
};

type Heads = NonNullable<AttentionConfig["heads"]>;

/** Returns the heads of a layer, which transformers writes by layer and releases for all that see everything. */
function readHeads(config: ConfigReader, { numHeads, numKvHeads, headDim }: DecoderShape, layer: number, slides: boolean): Heads {
  const listed = config.object("per_layer_config"), own = listed?.object(`${layer}`);
  const ownDim = own ? own.integer("head_dim", headDim) : headDim, ownHeads = own?.integer("num_key_value_heads", numKvHeads);
  const globalHeads = config.boolean("attention_k_eq_v", false)
    ? config.integer("num_global_key_value_heads", numKvHeads)
    : numKvHeads;
  const heads = listed || slides
    ? { numKvHeads: ownHeads ?? numKvHeads, headDim: ownDim }
    : { numKvHeads: globalHeads, headDim: config.integer("global_head_dim", 512) };
  if (numHeads % heads.numKvHeads !== 0) {
    throw config.refuse(
      listed ? "per_layer_config" : "num_global_key_value_heads",
      `divisors of num_attention_heads (${numHeads})`,
    );
  }
  return { ...heads, valueDim: heads.headDim };
}

/** Returns the rotation of layers that see all or of those with a window. */
function readRope(
  config: ConfigReader,
  key: "full_attention" | "sliding_attention",
  contextTokens: number,
  headDim: number,
): RopeConfig {
  const written = config.object("rope_parameters"), parameters = written?.object(key);
  if (written && !parameters) throw written.refuse(key, "an object");
  const proportional = parameters ? parameters.raw("rope_type") === "proportional" : key === "full_attention";
  if (!proportional) {
    const readers = parameters ? [parameters] : [];
    return ropeOf(readers, config, readers, { contextTokens, headDim, theta: 10_000 });
  }
  const known = ["rope_type", "rope_theta", "partial_rotary_factor", "factor"];
  for (const key of parameters?.keys() ?? []) {
    if (!known.includes(key)) throw parameters!.refuse(key, `only ${known.join(", ")} for rope type proportional`);
  }
  const share = parameters?.positive("partial_rotary_factor", 1) ?? 0.25;
  if (share > 1) throw parameters!.refuse("partial_rotary_factor", "1 at most");
  if (headDim % 2 !== 0) throw config.refuse("head_dim", "even, since rotary embeddings pair its halves");
  return {
    dim: headDim,
    theta: parameters?.positive("rope_theta", 10_000) ?? 1e6,
    scaling: {
      type: "proportional",
      factor: parameters?.positive("factor", 1) ?? 1,
      rotatedPairs: Math.floor(share * headDim / 2),
    },
  };
}

function readAttention(config: ConfigReader, heads: Heads, slides: boolean, eps: number): AttentionConfig {
  const bias = config.boolean("attention_bias", false);
  const norm = (name: string): HeadNormConfig => ({ ...rmsNorm(`self_attn.${name}`, eps), scope: "head" });
  return plainAttention(heads.headDim, {
    qkvBias: bias,
    outputBias: bias,
    queryNorm: norm("q_norm"),
    keyNorm: norm("k_norm"),
    valueNorm: { ...norm("v_norm"), weightless: true },
    valuesAreKeys: !slides && config.boolean("attention_k_eq_v", false),
    rope: { index: slides ? 0 : 1, interleaved: false },
    scale: 1,
    heads,
    ...slides && { windowTokens: config.integer("sliding_window", 512) },
  });
}

/** Returns the dense layer, or what works beside it. */
function readFeedForward(
  config: ConfigReader,
  { intermediateSize, hiddenSize }: DecoderShape,
  eps: number,
): MlpConfig | MoeConfig {
  const activation = readActivation(config, "hidden_activation", "gelu_pytorch_tanh");
  const mlp = gatedMlp(intermediateSize, { activation });
  if (!config.boolean("enable_moe_block", false)) return mlp;
  const router = plainRouter(readExperts(config, "num_experts", {}, "top_k_experts"), {
    normalize: true,
    logitMultiplier: hiddenSize ** -0.5,
  });
  return plainMoe(router, activation, config.integer("moe_intermediate_size"), {
    expertScales: true,
    beside: {
      mlp,
      outputNorm: rmsNorm("post_feedforward_layernorm_1", eps),
      routerNorm: rmsNorm("mlp.gate_norm", eps),
      expertInputNorm: rmsNorm("pre_feedforward_layernorm_2", eps),
      expertOutputNorm: rmsNorm("post_feedforward_layernorm_2", eps),
    },
  });
}

/** Refuses what the small models have, and texts that are read in both directions. */
function refuseFurther(config: ConfigReader): void {
  if (config.count("hidden_size_per_layer_input", 256) !== 0) {
    throw config.refuse("hidden_size_per_layer_input", "0: embeddings for each layer (Gemma 4 E2B and E4B) are not implemented");
  }
  if (config.count("num_kv_shared_layers", 0) !== 0) {
    throw config.refuse("num_kv_shared_layers", "0: layers that attend to the keys of others are not implemented");
  }
  // "vision" says that a picture's tokens see each other, which those of text do not.
  if (config.has("use_bidirectional_attention") && config.raw("use_bidirectional_attention") !== "vision") {
    throw config.refuse("use_bidirectional_attention", `"vision" or null`);
  }
}

function parseGemma4(config: ConfigReader, modelType: string): ModelConfig {
  refuseUnimplemented(config, [
    ...["attention_bias", "sliding_window", "layer_types", "final_logit_softcapping", "num_experts"],
    "use_bidirectional_attention",
  ]);
  refuseFurther(config);
  const shape = readShape(config, MISSING), { contextTokens } = shape;
  const eps = config.positive("rms_norm_eps", 1e-6);
  const sliding = readSlidingLayers(config, shape.numLayers, (layer) => (layer + 1) % 6 !== 0);
  if (sliding.at(-1)) {
    throw config.refuse(config.has("layer_types") ? "layer_types" : "num_hidden_layers", "a last layer of full_attention");
  }
  const heads = sliding.map((slides, layer) => readHeads(config, shape, layer, slides));
  const dimOf = (slides: boolean): number => heads[sliding.includes(slides) ? sliding.indexOf(slides) : 0].headDim;
  if (heads.some(({ headDim }, layer) => headDim !== dimOf(sliding[layer]))) {
    throw config.refuse("per_layer_config", "the same head_dim for all layers of a type");
  }
  const feedForward = readFeedForward(config, shape, eps);
  const norms: LayerConfig["norms"] = {
    attentionInput: rmsNorm("input_layernorm", eps),
    attentionOutput: rmsNorm("post_attention_layernorm", eps),
    feedForwardInput: rmsNorm("pre_feedforward_layernorm", eps),
    feedForwardOutput: rmsNorm("post_feedforward_layernorm", eps),
  };
  const headDim = Math.max(...heads.map(({ headDim }) => headDim));
  return decoderConfig(modelType, { ...shape, headDim, intermediateSize: widestIntermediate([feedForward]) }, {
    ropes: [
      readRope(config, "sliding_attention", contextTokens, dimOf(true)),
      readRope(config, "full_attention", contextTokens, dimOf(false)),
    ],
    layers: sliding.map((slides, layer) => ({
      ...{ attention: readAttention(config, heads[layer], slides, eps), feedForward, norms },
      ...{ parallel: false, residualMultiplier: 1, outputScaled: true },
    })),
    finalNorm: rmsNorm("model.norm", eps),
    tieWordEmbeddings: config.boolean("tie_word_embeddings", true),
    embeddingMultiplier: Math.sqrt(shape.hiddenSize),
    logitsSoftcap: readSoftcap(config, "final_logit_softcapping", 0),
  });
}

const NAMES: Readonly<Record<string, string>> = {
  "mlp.gate.weight": "router.proj.weight",
  "mlp.gate.per_expert_scale": "router.per_expert_scale",
  "mlp.gate_norm.weight": "router.scale",
};

function layerSource(name: string, config: ModelConfig, layer: number): TensorSource | undefined {
  if (NAMES[name]) return { name: NAMES[name] };
  const source = stackedExpertSource(name, config, layer);
  return source && { ...source, name: source.name.replace("mlp.", "") };
}

const TEXT: LanguageFamily = { parse: parseGemma4, layerSource };

/** The language model by itself. */
export const GEMMA4_TEXT = languageModel(["gemma4_text"], TEXT);

/** The language model within the whole model, as it is released. */
export const GEMMA4 = wholeModel({
  modelTypes: ["gemma4"],
  languages: { gemma4_text: TEXT },
  missing: "gemma4_text",
  names: [NESTED],
  needless: /^model\.(vision_tower|embed_vision|audio_tower|embed_audio)\./,
  tied: true,
});
