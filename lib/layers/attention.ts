/**
 * Grouped-query self-attention.
 * @module
 */
import { headNorm } from "./norm.ts";
import type { Pass } from "./pass.ts";

/**
 * Enqueues projected = attention(x), x: [tokens, hiddenSize]. Vaswani et al. 2017 with grouped queries (Ainslie et al. 2023, arXiv:2305.13245) and
 * rotary positions (Su et al. 2021, arXiv:2104.09864). `prefix` precedes the names of the layer's tensors.
 */
export async function attention(pass: Pass, layer: number, prefix: string, x: bigint): Promise<void> {
  const { ops, tokens } = pass;
  const { numHeads, numKvHeads, headDim } = pass.config;
  const { qkvBias, outputBias, queryNorm, keyNorm, rope } = pass.config.layers[layer].attention;
  const { query, key, value, attended, projected } = pass.activations;
  const linear = (y: bigint, x: bigint, name: string, bias: boolean): Promise<void> =>
    pass.linear(y, x, `${prefix}self_attn.${name}.weight`, bias ? `${prefix}self_attn.${name}.bias` : undefined);

  await linear(query, x, "q_proj", qkvBias);
  await linear(key, x, "k_proj", qkvBias);
  await linear(value, x, "v_proj", qkvBias);
  if (queryNorm) headNorm(pass, query, numHeads, prefix, queryNorm);
  if (keyNorm) headNorm(pass, key, numKvHeads, prefix, keyNorm);
  if (rope) {
    const { cos, sin } = pass.ropes[rope.index], { dim } = pass.config.ropes[rope.index];
    ops.rope(query, cos, sin, tokens, numHeads, headDim, dim);
    ops.rope(key, cos, sin, tokens, numKvHeads, headDim, dim);
  }
  ops.attention(attended, query, pass.appendKeysValues(layer, key, value));
  await linear(projected, attended, "o_proj", outputBias);
}
