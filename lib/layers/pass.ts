/**
 * What a layer sees of the pass it takes part in: device addresses of activations, the weights in their order of use, and the KV cache.
 * @module
 */
import type { AttentionInput, Ops, Precision, RecurrentInput, RowGroups } from "../ffi/ops.ts";
import type { ModelConfig } from "./model_config.ts";
import type { ExpertTokens, Routing } from "./router.ts";

/**
 * Device addresses of a pass's activations; all float32, `tokens` rows.
 *
 * To keep a pass small, what is never needed together shares memory: `projected` is `normed`, whose last reader comes before it is written,
 * unless a layer's sublayers are parallel or a layer has experts; and `gate` and `up` lie over what the first sublayer works in.
 * Queries, keys and values are those of attention or of a recurrent layer, as wide as the wider of the two where a model has both.
 */
export interface Activations {
  /** [tokens, hiddenSize], the residual stream. */
  hidden: bigint;
  /** [tokens, hiddenSize], normalised input of a sublayer. */
  normed: bigint;
  /** [tokens, numHeads * headDim] */
  query: bigint;
  /** [tokens, numKvHeads * headDim] */
  key: bigint;
  /** [tokens, numKvHeads * headDim] */
  value: bigint;
  /** [tokens, numHeads * headDim] */
  attended: bigint;
  /** [tokens, numHeads * headDim], of gated attention alone, or [tokens, values], of recurrent layers alone. */
  outputGate: bigint;
  /** [tokens, valueHeads], of recurrent layers alone: how much a token changes the state. */
  beta: bigint;
  /** [tokens, valueHeads], of recurrent layers alone: the logarithm of how much of the state stays. */
  decay: bigint;
  /** [tokens, intermediateSize] */
  gate: bigint;
  /** [tokens, intermediateSize] */
  up: bigint;
  /** [tokens, queryRank or rank, the wider one], of latent attention alone. */
  down: bigint;
  /** [tokens, numHeads * (plainDim + rotaryDim) or numHeads * valueDim, the wider one], of latent attention alone. */
  unabsorbed: bigint;
  /** [tokens, hiddenSize], output of a sublayer before it joins the residual stream. */
  projected: bigint;
}

/** Prefix of a layer's tensor names. */
export function layerPrefix(layer: number): string {
  return `model.layers.${layer}.`;
}

/** Device addresses of what layers with routed experts work in; all float32 but for ids. */
export interface ExpertActivations {
  /** [tokens, numExperts], logits of the layer's router. */
  logits: bigint;
  /** [tokens, numExperts], logits that the next router is expected to give. */
  expectedLogits: bigint;
  /** i32 [tokens * topK], tokens in the order of the experts they go to. */
  tokenIds: bigint;
  /** [tokens * topK], the weights of those. */
  weights: bigint;
  /** i32 [tokens], 0, 1, 2, ... */
  identity: bigint;
  /** [tokens, hiddenSize], input of one expert. */
  gathered: bigint;
  /** [outputRows, hiddenSize], what experts give. */
  outputs: bigint;
  /** [tokens, hiddenSize], what a dense layer beside the experts gives; of models alone that have one. */
  besideOutput: bigint;
}

/** The routed experts of a model, as a pass uses them. Routers' decisions are made on the host. */
export interface PassExperts {
  readonly activations: ExpertActivations;
  /** Rows of `outputs`, at least `tokens`. */
  readonly outputRows: number;
  /** Whether it helps to say which experts the next layer will use. */
  readonly readsAhead: boolean;
  /** Enqueues y: [tokens, numExperts] = x times the named router transposed, exactly. Routers may be used at any time. */
  router(y: bigint, x: bigint, name: string, biasName?: string): void;
  /** Returns a layer's f32 [numExperts] of score corrections. */
  correction(layer: number): Float32Array;
  /** Enqueues bringing the logits, and the expected ones where there are some, to the host. */
  sendLogits(expected: boolean): void;
  /** Waits until they are there: f32 [tokens, numExperts] each. */
  receiveLogits(): Promise<{ logits: Float32Array; expected: Float32Array }>;
  /**
   * Begins the experts of a layer: says how many tokens each gets, and brings ids and weights to the device, in the order of `uses`. Returns the experts in
   * the order they have to be computed, ascending unless `reorder` lets those come first that are in memory.
   */
  begin(layer: number, uses: readonly ExpertTokens[], routing: Routing, reorder: boolean): number[];
  /** Says which experts a later layer is expected to use. */
  expect(layer: number, experts: readonly number[]): void;
  /**
   * Enqueues y: [rows, cols out] = x: [rows, cols in] times the named matrix of an expert transposed (+ bias). Waits only until its next extent is in device
   * memory. The experts of a layer must be used in the order that `begin` gave, the matrices of each in the order that the architecture declared.
   */
  linear(y: bigint, x: bigint, rows: number, name: string, biasName?: string): Promise<void>;
}

/** One forward pass over a set of tokens. */
export interface Pass {
  readonly config: ModelConfig;
  readonly ops: Ops;
  readonly precision: Precision;
  readonly tokens: number;
  readonly activations: Activations;
  /** Device addresses of f32 [tokens, dim / 2], for each of the config's ropes. */
  readonly ropes: readonly { cos: bigint; sin: bigint }[];
  /** The routed experts; absent of a model that has none. */
  readonly experts?: PassExperts;
  /** Returns the device address of a resident vector (norm weight, bias). */
  vector(name: string): bigint;
  /** Returns a vector that the host computes with: f32. */
  hostVector(name: string): Float32Array;
  /**
   * Enqueues y: [tokens, rows] = x: [tokens, cols] times the named matrix transposed (+ bias). Waits only until the next extent of the tape
   * is in device memory. Matrices must be asked for in the order the architecture declared them.
   */
  linear(y: bigint, x: bigint, name: string, biasName?: string): Promise<void>;
  /**
   * As `linear`, of a matrix that is the blocks of a block diagonal, one below the other: each group of rows multiplies its own part of a row of x, which has
   * `xStride` elements.
   */
  linearGrouped(y: bigint, x: bigint, xStride: number, name: string, groups: Omit<RowGroups, "firstRow">): Promise<void>;
  /** Enqueues writing this pass's keys and values into a layer's cache and returns the input of that layer's attention. */
  appendKeysValues(layer: number, key: bigint, value: bigint): AttentionInput;
  /** Returns the device addresses of the states that a layer keeps, each with a slot a sequence and more, and how the pass's sequences use them. */
  recurrentStates(layer: number): { states: readonly bigint[]; input: RecurrentInput };
}
