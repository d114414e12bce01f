/**
 * Normalisation of the residual stream.
 * @module
 */
import type { Pass } from "./pass.ts";

/** Enqueues normed = RMSNorm(hidden) with the named weight. Zhang and Sennrich 2019, arXiv:1910.07467. */
export function rmsNorm(pass: Pass, weightName: string): void {
  const { hidden, normed } = pass.activations;
  pass.ops.rmsnorm(normed, hidden, pass.vector(weightName), pass.tokens, pass.config.hiddenSize, pass.config.rmsNormEps);
}
