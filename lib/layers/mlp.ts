/**
 * The gated feed-forward layer.
 * @module
 */
import { rmsNorm } from "./norm.ts";
import type { Pass } from "./pass.ts";

/**
 * Enqueues hidden += down(silu(gate(norm(hidden))) * up(norm(hidden))): SwiGLU, Shazeer 2020, arXiv:2002.05202.
 *
 * `prefix` precedes `gate_proj`, `up_proj` and `down_proj` in the tensors' names; `bias` says whether those have biases.
 */
export async function mlp(pass: Pass, prefix: string, normName: string, bias: boolean): Promise<void> {
  const { ops, tokens } = pass;
  const { hiddenSize, intermediateSize } = pass.config;
  const { hidden, normed, gate, up, projected } = pass.activations;
  const linear = (y: bigint, x: bigint, name: string): Promise<void> =>
    pass.linear(y, x, `${prefix}${name}.weight`, bias ? `${prefix}${name}.bias` : undefined);

  rmsNorm(pass, normName);
  await linear(gate, normed, "gate_proj");
  await linear(up, normed, "up_proj");
  ops.gated(gate, gate, up, tokens * intermediateSize, "silu");
  await linear(projected, gate, "down_proj");
  ops.add(hidden, projected, tokens * hiddenSize);
}
