/**
 * What a layer sees of the pass it takes part in: device addresses of activations, the weights in their order of use, and the KV cache.
 * @module
 */
import type { AttentionInput, Ops, Precision } from "../ffi/ops.ts";
import type { ModelConfig } from "./model_config.ts";

/**
 * Device addresses of a pass's activations; all float32, `tokens` rows.
 *
 * To keep a pass small, what is never needed together shares memory: `projected` is `normed`, whose last reader comes before it is written,
 * unless a layer's sublayers are parallel; and `gate` and `up` lie over `query`, `key`, `value` and `attended`.
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
  /** [tokens, intermediateSize] */
  gate: bigint;
  /** [tokens, intermediateSize] */
  up: bigint;
  /** [tokens, hiddenSize], output of a sublayer before it joins the residual stream. */
  projected: bigint;
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
  /** Returns the device address of a resident vector (norm weight, bias). */
  vector(name: string): bigint;
  /**
   * Enqueues y: [tokens, rows] = x: [tokens, cols] times the named matrix transposed (+ bias). Waits only until the next extent of the tape
   * is in device memory. Matrices must be asked for in the order the architecture declared them.
   */
  linear(y: bigint, x: bigint, name: string, biasName?: string): Promise<void>;
  /** Enqueues writing this pass's keys and values into a layer's cache and returns the input of that layer's attention. */
  appendKeysValues(layer: number, key: bigint, value: bigint): AttentionInput;
}
