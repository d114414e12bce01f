/**
 * A gated short convolution, which sees the last few tokens alone: LFM2, arXiv:2511.23404, as transformers' `modeling_lfm2.py` arranges it.
 * @module
 */
import type { ShortConvolutionConfig } from "./model_config.ts";
import type { Pass } from "./pass.ts";

/** Returns the float32 elements of the state that the layer keeps a sequence: the last inputs of the convolution. */
export function shortConvolutionStates({ width, kernel }: ShortConvolutionConfig): number[] {
  return [(kernel - 1) * width];
}

/** Enqueues projected = out(c * convolution(b * v)), b, c and v projections of x: [tokens, hiddenSize]. `prefix` precedes the names of the layer's tensors. */
export async function shortConvolution(
  pass: Pass,
  layer: number,
  { width, kernel }: ShortConvolutionConfig,
  prefix: string,
  x: bigint,
): Promise<void> {
  const { ops, tokens, activations: { query, key, value, attended, projected } } = pass;
  const { states: [state], input } = pass.recurrentStates(layer);
  const name = (part: string): string => `${prefix}conv.${part}.weight`;
  for (const [part, y] of [["b", key], ["c", query], ["v", value]] as const) await pass.linear(y, x, name(`in_proj_${part}`));
  ops.gated(value, key, value, tokens * width, undefined);
  ops.causalConv1d(attended, value, pass.vector(name("conv")), 0n, state, input, width, kernel, undefined);
  ops.gated(attended, query, attended, tokens * width, undefined);
  await pass.linear(projected, attended, name("out_proj"));
}
