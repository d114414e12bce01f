/**
 * The feed-forward layer.
 * @module
 */
import type { Pass } from "./pass.ts";

/**
 * Enqueues projected = feedForward(x), x: [tokens, hiddenSize]: down(act(gate(x)) * up(x)), Shazeer 2020, arXiv:2002.05202, or the plain
 * down(act(up(x))). `prefix` precedes the names of the layer's tensors.
 */
export async function feedForward(pass: Pass, layer: number, prefix: string, x: bigint): Promise<void> {
  const { kind, activation, bias, intermediateSize } = pass.config.layers[layer].feedForward;
  const { gate, up, projected } = pass.activations;
  const linear = (y: bigint, x: bigint, name: string): Promise<void> =>
    pass.linear(y, x, `${prefix}mlp.${name}.weight`, bias ? `${prefix}mlp.${name}.bias` : undefined);

  if (kind === "gated") await linear(gate, x, "gate_proj");
  await linear(up, x, "up_proj");
  const inner = kind === "gated" ? gate : up;
  pass.ops.gated(inner, inner, kind === "gated" ? up : 0n, pass.tokens * intermediateSize, activation);
  await linear(projected, inner, "down_proj");
}
