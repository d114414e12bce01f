/**
 * Normalisation of the residual stream, of what sublayers add to it, and of queries and keys.
 * @module
 */
import type { HeadNormConfig, NormConfig } from "./model_config.ts";
import type { Pass } from "./pass.ts";

/** `weightRows`: weights that rows take in turn. */
function normRows(
  pass: Pass,
  y: bigint,
  x: bigint,
  prefix: string,
  config: NormConfig,
  rows: number,
  cols: number,
  weightRows = 1,
): void {
  const { kind, name, eps, bias, weightless } = config;
  const weight = weightless ? 0n : pass.vector(`${prefix}${name}.weight`);
  if (kind === "rms") pass.ops.rmsnorm(y, x, weight, rows, cols, eps);
  else pass.ops.layernorm(y, x, weight, bias ? pass.vector(`${prefix}${name}.bias`) : 0n, rows, cols, eps, weightRows);
}

/**
 * Enqueues y = norm(x) over the residual stream's width; y may be x. RMSNorm: Zhang and Sennrich 2019, arXiv:1910.07467. LayerNorm: Ba et al. 2016,
 * arXiv:1607.06450.
 */
export function norm(pass: Pass, y: bigint, x: bigint, prefix: string, config: NormConfig, rows = pass.tokens): void {
  normRows(pass, y, x, prefix, config, rows, pass.config.hiddenSize);
}

/** Enqueues y: [rows, cols] = RMSNorm(x) with the named weight; y may be x. */
export function rmsNormRows(pass: Pass, y: bigint, x: bigint, weightName: string, rows: number, cols: number, eps: number): void {
  pass.ops.rmsnorm(y, x, pass.vector(weightName), rows, cols, eps);
}

/** Enqueues the normalisation in place of x: [tokens, heads, headDim], each head by itself or all of a token's together. */
export function headNorm(pass: Pass, x: bigint, heads: number, headDim: number, prefix: string, config: HeadNormConfig): void {
  const { tokens } = pass;
  if (config.scope !== "whole") {
    normRows(pass, x, x, prefix, config, tokens * heads, headDim, config.scope === "each" ? heads : 1);
  } else normRows(pass, x, x, prefix, config, tokens, heads * headDim);
}
