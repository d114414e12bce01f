/**
 * The feed-forward layer.
 * @module
 */
import type { XieluParameters } from "../ffi/ops.ts";
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
  const count = pass.tokens * intermediateSize;
  if (activation === "xielu") pass.ops.xielu(inner, inner, xieluParameters(pass, prefix), count);
  else pass.ops.gated(inner, inner, kind === "gated" ? up : 0n, count, activation);
  await linear(y, inner, "down_proj");
}

function xieluParameters(pass: Pass, prefix: string): XieluParameters {
  const of = (name: string): bigint => pass.vector(`${prefix}act_fn.${name}`);
  return { alphaP: of("alpha_p"), alphaN: of("alpha_n"), beta: of("beta"), eps: of("eps") };
}
