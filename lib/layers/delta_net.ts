/**
 * The gated delta net, which keeps one state of fixed size a sequence where attention keeps keys and values: Yang et al. 2024, arXiv:2412.06464, as
 * transformers' `modeling_qwen3_next.py` arranges it.
 * @module
 */
import type { DeltaNetConfig } from "./model_config.ts";
import { rmsNormRows } from "./norm.ts";
import type { Pass } from "./pass.ts";

/** Added to the square of a key's or query's length, by transformers and by the kernels it can use. */
const LENGTH_EPS = 1e-6;

/** Returns the elements of a token's keys, which its queries have too, and of its values. */
export function deltaNetWidths({ keyHeads, keyDim, valueHeads, valueDim }: DeltaNetConfig): { keys: number; values: number } {
  return { keys: keyHeads * keyDim, values: valueHeads * valueDim };
}

/** Returns the float32 elements of each state that the layer keeps a sequence: the last inputs of three convolutions, then the heads' memory. */
export function deltaNetStates(config: DeltaNetConfig): number[] {
  const { keys, values } = deltaNetWidths(config), history = config.kernel - 1;
  return [history * keys, history * keys, history * values, config.keyDim * values];
}

/**
 * Enqueues projected = deltaNet(x), x: [tokens, hiddenSize]. `prefix` precedes the names of the layer's tensors.
 *
 * Queries, keys and values each go through a short causal convolution. The state of a head, a matrix that maps keys to values, decays, is corrected by
 * what it recalls wrongly for the token's key, and answers the query; the answer is normalised and multiplied by a gate.
 */
export async function deltaNet(pass: Pass, layer: number, config: DeltaNetConfig, prefix: string, x: bigint): Promise<void> {
  const { ops, tokens } = pass;
  const { query, key, value, attended, outputGate, beta, decay, projected } = pass.activations;
  const { keyHeads, valueHeads, keyHeadsTakeTurns, keyDim, valueDim, kernel, activation, eps } = config;
  const { keys, values } = deltaNetWidths(config);
  const { states, input } = pass.recurrentStates(layer);
  const name = (part: string): string => `${prefix}linear_attn.${part}`;

  // `attended` is free until the heads answer.
  for (const [i, [part, y, cols]] of ([["q", query, keys], ["k", key, keys], ["v", value, values]] as const).entries()) {
    await pass.linear(attended, x, name(`in_proj_${part}.weight`));
    ops.causalConv1d(y, attended, pass.vector(name(`conv1d_${part}.weight`)), 0n, states[i], input, cols, kernel, activation);
  }
  await pass.linear(outputGate, x, name("in_proj_z.weight"));
  await pass.linear(beta, x, name("in_proj_b.weight"));
  await pass.linear(decay, x, name("in_proj_a.weight"));

  for (const each of [query, key]) ops.l2norm(each, each, tokens * keyHeads, keyDim, LENGTH_EPS);
  ops.gated(beta, beta, 0n, tokens * valueHeads, "sigmoid");
  ops.logDecay(decay, decay, pass.vector(name("A_log")), pass.vector(name("dt_bias")), tokens, valueHeads);
  ops.gatedDeltaRule(attended, states[3], {
    ...{ q: query, qStride: keys, k: key, kStride: keys, v: value, vStride: values, logDecay: decay, beta },
    ...{ keyHeads, valueHeads, keyHeadsTakeTurns, keyDim, valueDim, scale: 1 / Math.sqrt(keyDim) },
  }, input);
  rmsNormRows(pass, attended, attended, name("norm.weight"), tokens * valueHeads, valueDim, eps);
  ops.gated(attended, outputGate, attended, tokens * values, "silu");
  await pass.linear(projected, attended, name("out_proj.weight"));
}
