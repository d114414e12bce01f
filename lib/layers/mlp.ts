/**
 * The feed-forward layer.
 * @module
 */
import type { MlpConfig } from "./model_config.ts";
import type { Pass } from "./pass.ts";

/**
 * Enqueues y = feedForward(x), x and y: [tokens, hiddenSize]: down(act(gate(x)) * up(x)), Shazeer 2020, arXiv:2002.05202, or the plain
 * down(act(up(x))). `prefix` precedes the names of the layer's tensors, as in `model.layers.0.mlp.`.
 */
export async function feedForward(pass: Pass, config: MlpConfig, prefix: string, x: bigint, y: bigint): Promise<void> {
  const { kind, activation, bias, intermediateSize } = config;
  const { gate, up } = pass.activations;
  const linear = (y: bigint, x: bigint, name: string): Promise<void> =>
    pass.linear(y, x, `${prefix}${name}.weight`, bias ? `${prefix}${name}.bias` : undefined);

  if (kind === "gated") await linear(gate, x, "gate_proj");
  await linear(up, x, "up_proj");
  const inner = kind === "gated" ? gate : up;
  pass.ops.gated(inner, inner, kind === "gated" ? up : 0n, pass.tokens * intermediateSize, activation);
  await linear(y, inner, "down_proj");
}
