/**
 * The hyperparameters that layers work from: a model is a list of layers, each a handful of choices. Types only.
 * @module
 */

/** A function of a feed-forward layer; cuda/airkern.h has each formula at airk_gated. */
export type Activation = "silu" | "gelu" | "gelu_tanh" | "relu" | "relu2" | "sigmoid" | "tanh" | "swiglu_oai";

import type { RouterConfig } from "./router.ts";

/** How rotary position embeddings stretch; each field as in Hugging Face's `rope_scaling` of that type. */
export type RopeScaling =
  | { type: "default" }
  | { type: "linear"; factor: number }
  | { type: "dynamic"; factor: number; originalContextTokens: number }
  | { type: "llama3"; factor: number; lowFreqFactor: number; highFreqFactor: number; originalContextTokens: number }
  | {
    type: "yarn";
    factor: number;
    originalContextTokens: number;
    /** Multiplies cos and sin. */
    attentionFactor: number;
    betaFast: number;
    betaSlow: number;
    /** Whether the bounds of the blend are rounded to whole elements. */
    truncate: boolean;
  }
  | {
    type: "longrope";
    /** [dim / 2], what divides each frequency in sequences of up to `originalContextTokens`, and in longer ones. */
    shortFactors: number[];
    longFactors: number[];
    originalContextTokens: number;
    /** Multiplies cos and sin. */
    attentionFactor: number;
  }
  /** Of `dim` elements only the first `rotatedPairs` pairs turn, with the frequencies that they have among all. */
  | { type: "proportional"; factor: number; rotatedPairs: number }
  /**
   * No rotation: what is "rotated" is multiplied by 1 + attentionScale * log(1 + floor((position + firstPosition) / floorTokens)), so that attention stays
   * sharp over long contexts: Nakanishi 2025, arXiv:2501.19399. Of queries alone.
   */
  | { type: "temperature"; attentionScale: number; floorTokens: number; firstPosition: 0 | 1 };

/** One kind of rotary position embedding; layers name it by its index in {@linkcode ModelConfig.ropes}. */
export interface RopeConfig {
  /** Elements of a head that are rotated, from its first. */
  dim: number;
  /** Base of the frequencies. */
  theta: number;
  /** How it stretches. */
  scaling: RopeScaling;
  /** Whether frequencies are rounded to float16, in which a model keeps them. */
  halfFrequencies?: boolean;
  /** Whether it turns the other way round. */
  reversed?: boolean;
  /** Which of a token's two positions turns it, where {@linkcode ModelConfig.blankFilling} gives it two; its place in the sequence without it. */
  positions?: "text" | "span";
}

/** A normalisation with a weight. */
export interface NormConfig {
  /** `rms` divides by the root mean square, `layer` subtracts the mean first. */
  kind: "rms" | "layer";
  /** Name of its tensors, without `.weight` and `.bias`, relative to the layer; of the final norm from the root. */
  name: string;
  /** Added to the mean square or the variance under the root. */
  eps: number;
  /** Whether it has a bias. */
  bias: boolean;
  /** Whether it has no weight and so no tensor. */
  weightless?: boolean;
  /** Added to each element of the weight when it is loaded: 1 where the checkpoint stores the distance from 1. */
  offset: number;
}

/** A normalisation of queries or keys. */
export interface HeadNormConfig extends NormConfig {
  /** What a norm spans: every head, with one weight for all (`head`) or a weight for each (`each`, of kind `layer`), or all heads together (`whole`). */
  scope: "head" | "each" | "whole";
}

/** Grouped-query attention of one layer. Tensors: `self_attn.` and `q_proj`, `k_proj`, `v_proj`, `o_proj`. */
export interface AttentionConfig {
  /** Biases of q_proj, k_proj and v_proj. */
  qkvBias: boolean;
  /** Bias of o_proj. */
  outputBias: boolean;
  /** Normalisation of queries. */
  queryNorm?: HeadNormConfig;
  /** Normalisation of keys. */
  keyNorm?: HeadNormConfig;
  /** Whether these come behind the rotation. */
  normsRotated?: boolean;
  /** Normalisation of values. */
  valueNorm?: HeadNormConfig;
  /** Whether values are what keys are before they are normalised and rotated; there is no `v_proj` then. */
  valuesAreKeys?: boolean;
  /** Multiplies values. */
  valueMultiplier?: number;
  /** Present where the layer's heads differ from the model's; a divisor of `numHeads`, and the elements of a head's key and value. */
  heads?: { numKvHeads: number; headDim: number; valueDim: number };
  /** Absent where the layer has no rotary embedding. `interleaved` pairs elements 2i and 2i + 1, else i and i + dim / 2. */
  rope?: { index: number; interleaved: boolean };
  /** Rotation of further elements of a head, those from `first` on. */
  secondRope?: { index: number; interleaved: boolean; first: number };
  /** Multiplication of queries alone, by a rope of type `temperature`. */
  queryScaling?: { index: number };
  /** Largest size of an element of queries, keys and values before anything else is done with them; absent where there is none. */
  clip?: number;
  /** Multiplies queries times keys. */
  scale: number;
  /** 0, or c: a score becomes c * tanh(score / c). */
  softcap: number;
  /** Present where the layer attends to latents, which a model does in all layers or none; of the above, only `queryScaling`, `scale` and `softcap` then count. */
  latent?: LatentConfig;
  /** Present where the layer is a gated delta net and attends to nothing; none of the above then counts. */
  deltaNet?: DeltaNetConfig;
  /** Present where the layer is a state space, likewise. */
  mamba?: MambaConfig;
  /** Present where the layer is a gated short convolution, likewise. */
  shortConvolution?: ShortConvolutionConfig;
  /** Whether the softmax has one more score a head, `self_attn.sinks`, that has no value. */
  sinks?: boolean;
  /** Whether what a head attends to is multiplied by the sigmoid of a projection, `self_attn.gate_proj`, which has a bias where q_proj has one. */
  gated?: boolean;
  /** Tokens that a token sees, itself included; absent where it sees all before it. */
  windowTokens?: number;
  /** Tokens of a chunk: a token sees those before it that lie in its own chunk, counted from the start; absent where it sees all before it. */
  chunkTokens?: number;
}

/**
 * What makes a layer's attention one over latents, see `latent_attention.ts`. Tensors: `self_attn.` and `q_proj`, or `q_a_proj`, `q_a_layernorm` and
 * `q_b_proj`; `kv_a_proj_with_mqa`, `kv_a_layernorm`, `k_b_proj`, `v_b_proj`, `o_proj`.
 */
export interface LatentConfig {
  /** Width that queries go through; absent where they are projected at once. */
  queryRank?: number;
  /** Elements of a latent. */
  rank: number;
  /** Elements of a head's query and key that are not rotated. */
  plainDim: number;
  /** Those that are. */
  rotaryDim: number;
  /** Elements of a head's value. */
  valueDim: number;
  /** Which of the config's ropes, and whether it pairs neighbours. */
  rope: { index: number; interleaved: boolean };
  /** Of the norms of latents. */
  eps: number;
  /** Biases of q_a_proj, kv_a_proj_with_mqa and o_proj. */
  bias: boolean;
}

/**
 * A gated delta net, see `delta_net.ts`. Tensors: `linear_attn.` and `in_proj_` with `q`, `k`, `v`, `z` (the gate of the output), `b` (how much a token
 * corrects), `a` (how much decays); `conv1d_q`, `conv1d_k`, `conv1d_v`, `A_log`, `dt_bias`, `norm`, `out_proj`.
 */
export interface DeltaNetConfig {
  /** Heads of queries and keys; a divisor of `valueHeads`. */
  keyHeads: number;
  /** Heads of values. */
  valueHeads: number;
  /** Whether value head h reads key head h modulo those there are, else neighbouring value heads share one. */
  keyHeadsTakeTurns?: boolean;
  /** Elements of a query or key. */
  keyDim: number;
  /** Elements of a value. */
  valueDim: number;
  /** Tokens that a convolution sees, the present one included. */
  kernel: number;
  /** Of the convolutions. */
  activation: Exclude<Activation, "swiglu_oai">;
  /** Of the norm of what heads answer. */
  eps: number;
}

/**
 * A state space of Mamba 2, see `mamba.ts`. Tensors: `mamba.` and `in_proj_` with `x` (values), `b`, `c` (what they are written and read under), `z` (the
 * gate of the output), `dt` (the step); `conv1d_x`, `conv1d_b`, `conv1d_c`, `A_log`, `D`, `dt_bias`, `norm`, `out_proj`.
 */
export interface MambaConfig {
  /** Heads; a multiple of `groups`. */
  heads: number;
  /** Elements of a head's value. */
  headDim: number;
  /** Groups of heads that write and read under the same. */
  groups: number;
  /** Elements of that: rows of a head's state. */
  stateDim: number;
  /** Tokens that a convolution sees, the present one included. */
  kernel: number;
  /** Whether the convolutions have biases. */
  convolutionBias: boolean;
  /** Of the convolutions. */
  activation: Exclude<Activation, "swiglu_oai">;
  /** Groups of heads that are normalised together. */
  normGroups: number;
  /** Of that norm. */
  eps: number;
}

/** A gated short convolution, see `short_convolution.ts`. Tensors: `conv.` and `in_proj_b`, `in_proj_c`, `in_proj_v`, `conv`, `out_proj`. */
export interface ShortConvolutionConfig {
  /** Channels: the width of the residual stream. */
  width: number;
  /** Tokens that the convolution sees, the present one included. */
  kernel: number;
}

/**
 * What stands between a feed-forward layer's products: xIELU has parameters of its own, `mlp.act_fn.` and `alpha_p`, `alpha_n`, `beta`, `eps`, and stands in
 * plain layers alone.
 */
export type MlpActivation = Activation | "xielu";

/**
 * `gated`: down(activation(gate(x)) * up(x)). `plain`: down(activation(up(x))). `none`: there is no such layer. Tensors: `mlp.` and `gate_proj`, `up_proj`,
 * `down_proj`.
 */
export interface MlpConfig {
  /** Whether a gate multiplies. */
  kind: "gated" | "plain" | "none";
  /** Its function. */
  activation: MlpActivation;
  /** Width between its products. */
  intermediateSize: number;
  /** Whether its products have biases. */
  bias: boolean;
}

/**
 * Experts, of which each token goes to a few: Shazeer et al. 2017, arXiv:1701.06538. Every expert is a gated layer, or a plain one. Tensors: `mlp.gate`, the router;
 * `mlp.experts.N.` and `mlp.shared_expert.`, each with `gate_proj`, `up_proj`, `down_proj`; `mlp.shared_expert_gate`.
 */
export interface MoeConfig {
  /** Tells it from {@linkcode MlpConfig}. */
  kind: "moe";
  /** Between the two products of an expert. */
  activation: Activation;
  /** Whether experts are plain layers, without `gate_proj`. */
  plain?: boolean;
  /** Width inside one expert. */
  intermediateSize: number;
  /** Whether the experts' projections have biases. */
  bias: boolean;
  /** How experts are chosen and weighed. */
  router: RouterConfig;
  /** Whether the router's logits have a bias. */
  routerBias: boolean;
  /** Whether `mlp.gate.e_score_correction_bias` is added to the scores that experts are chosen by. */
  correctionBias: boolean;
  /** An expert that every token goes to; `gated`: times the sigmoid of `mlp.shared_expert_gate`. */
  shared?: { mlp: MlpConfig; gated: boolean };
  /** Present where a dense layer works beside the experts. */
  beside?: DenseBesideExperts;
  /** Whether the weight of each expert is multiplied by its own number, `mlp.gate.per_expert_scale`. */
  expertScales?: boolean;
}

/**
 * A dense layer beside experts (Gemma 4). It reads the layer's input, while experts and router read the residual stream through norms of their own; what both
 * give is normalised and added. Tensors: `mlp.` and `gate_proj`, `up_proj`, `down_proj`, and those of the norms.
 */
export interface DenseBesideExperts {
  /** The dense layer. */
  mlp: MlpConfig;
  /** Of what the dense layer gives. */
  outputNorm: NormConfig;
  /** Of what the router reads. */
  routerNorm: NormConfig;
  /** Of what experts read. */
  expertInputNorm: NormConfig;
  /** Of what they give together. */
  expertOutputNorm: NormConfig;
}

/** One decoder block. */
export interface LayerConfig {
  /** Its first sublayer. */
  attention: AttentionConfig;
  /** Its second sublayer. */
  feedForward: MlpConfig | MoeConfig;
  /** Norms of a sublayer's input and of its output before it joins the residual stream; each may be absent. */
  norms: {
    attentionInput?: NormConfig;
    attentionOutput?: NormConfig;
    feedForwardInput?: NormConfig;
    feedForwardOutput?: NormConfig;
  };
  /**
   * Whether both sublayers read the residual stream of the block's start. Then the feed-forward layer without an input norm of its own reads
   * what the attention's input norm gave.
   */
  parallel: boolean;
  /** Multiplies what a sublayer adds to the residual stream. */
  residualMultiplier: number;
  /** Whether the residual stream is multiplied by a number of the layer's own, `layer_scalar`, in the end. */
  outputScaled?: boolean;
  /** Present where a sublayer adds not to the residual stream but to this times its own normed input, which takes the stream's place. */
  normedResidual?: number;
}

/**
 * How a model that fills blanks reads a sequence: Du et al. 2022 (GLM), arXiv:2103.10360. All that comes before `startTokenId` is the text, whose tokens see
 * each other in both directions; what follows is written into a blank of the text, causally. A token of it has the blank's place in the text as its
 * `text` position and counts from 1 as its `span` position; those of the text are in their place, with 0.
 */
export interface BlankFilling {
  /** The token that what is written begins with. */
  startTokenId: number;
  /** Tokens that mark a blank; the first occurrence of the first of them that occurs at all is the one that is filled. */
  blankTokenIds: number[];
}

/** A table of embeddings of positions, `model.embed_positions`, which stays in memory. */
export interface LearnedPositions {
  /** Rows of the table. */
  rows: number;
  /** Row of a sequence's first token. */
  firstRow: number;
}

/** The hyperparameters that layers work from. Hugging Face's spelling ends where a config is parsed. */
export interface ModelConfig {
  /** `model_type` of the config.json. */
  modelType: string;
  /** `model_type` of its language model, where that is a part of a whole model. */
  languageModelType?: string;
  /** Width of the residual stream. */
  hiddenSize: number;
  /** Width inside the feed-forward layers, the widest. */
  intermediateSize: number;
  /** Decoder blocks. */
  numLayers: number;
  /** Query heads of a layer. */
  numHeads: number;
  /** Key and value heads of a layer; a divisor of `numHeads`. */
  numKvHeads: number;
  /** Elements of a head. */
  headDim: number;
  /** Elements of a value where keys begin with their values, and keys alone are cached; absent where values are cached beside keys. */
  sharedValueDim?: number;
  /** Token ids, from 0. */
  vocabSize: number;
  /** Rows of the embedding, where it has more than there are logits. */
  embeddingRows?: number;
  /** Longest context the model was made for, in tokens. */
  contextTokens: number;
  /** Present where only shorter contexts are computed as the model was made; the reason is part of a sentence. */
  contextLimit?: { tokens: number; reason: string };
  /** Whether the embedding gives the logits too. */
  tieWordEmbeddings: boolean;
  /** Whether the head has a bias, `lm_head.bias`. */
  headBias?: boolean;
  /** Whether the rows of the head are scaled to unit length, which is done when they are stored. */
  unitHeadRows?: boolean;
  /** The kinds of rotary embeddings that layers use. */
  ropes: RopeConfig[];
  /** Present where a prompt's text is read in both directions, and a text that is written fills a blank in it. */
  blankFilling?: BlankFilling;
  /** [numHeads] of ALiBi, or absent: a score falls by slope * distance. Press et al. 2022, arXiv:2108.12409. */
  alibiSlopes?: number[];
  /** The decoder blocks in their order. */
  layers: LayerConfig[];
  /** The numbers that a checkpoint gives them, where it has others between them that are not used. */
  layerNumbers?: number[];
  /** The normalisation before the head. */
  finalNorm: NormConfig;
  /** Multiplies the token embeddings. */
  embeddingMultiplier: number;
  /** Present where each position has an embedding too, which is added to the token's: Vaswani et al. 2017. */
  learnedPositions?: LearnedPositions;
  /** Normalises what comes into the first layer. */
  embeddingNorm?: NormConfig;
  /** Multiplies the logits. */
  logitsMultiplier: number;
  /** 0, or c: a logit becomes c * tanh(logit / c), after the multiplier. */
  logitsSoftcap: number;
}
