/**
 * The hyperparameters that layers work from. Types only.
 * @module
 */

/** How rotary position embeddings stretch; each field as in Hugging Face's `rope_scaling` of that type. */
export type RopeScaling =
  | { type: "default" }
  | { type: "linear"; factor: number }
  | { type: "dynamic"; factor: number; originalContextTokens: number }
  | { type: "llama3"; factor: number; lowFreqFactor: number; highFreqFactor: number; originalContextTokens: number };

/** The hyperparameters that layers work from. Hugging Face's spelling ends where a config is parsed. */
export interface ModelConfig {
  /** `model_type` of the config.json. */
  modelType: string;
  /** Width of the residual stream. */
  hiddenSize: number;
  /** Width inside the MLP. */
  intermediateSize: number;
  /** Decoder blocks. */
  numLayers: number;
  /** Query heads of a layer. */
  numHeads: number;
  /** Key and value heads of a layer; a divisor of `numHeads`. */
  numKvHeads: number;
  /** Elements of a head. */
  headDim: number;
  /** Token ids, from 0. */
  vocabSize: number;
  /** Added to the mean square under the root of RMSNorm. */
  rmsNormEps: number;
  /** Base of the rotary frequencies. */
  ropeTheta: number;
  /** How rotary embeddings stretch. */
  ropeScaling: RopeScaling;
  /** Longest context the model was made for, in tokens. */
  contextTokens: number;
  /** Whether the embedding gives the logits too. */
  tieWordEmbeddings: boolean;
  /** Whether the projections of the attention have biases. */
  attentionBias: boolean;
  /** Whether the projections of the MLP have biases. */
  mlpBias: boolean;
}
