/**
 * Grouped-query self-attention with rotary embeddings.
 * @module
 */
import { rmsNorm } from "./norm.ts";
import type { Pass } from "./pass.ts";

/**
 * Enqueues hidden += attention(norm(hidden)). Vaswani et al. 2017 with grouped queries (Ainslie et al. 2023, arXiv:2305.13245) and rotary
 * positions (Su et al. 2021, arXiv:2104.09864).
 *
 * `prefix` precedes `q_proj`, `k_proj`, `v_proj` and `o_proj` in the tensors' names; `bias` says whether those have biases.
 */
export async function attention(pass: Pass, layer: number, prefix: string, normName: string, bias: boolean): Promise<void> {
  const { ops, tokens, rope, activations } = pass;
  const { numHeads, numKvHeads, headDim, hiddenSize } = pass.config;
  const { hidden, normed, query, key, value, attended, projected } = activations;
  const linear = (y: bigint, x: bigint, name: string): Promise<void> =>
    pass.linear(y, x, `${prefix}${name}.weight`, bias ? `${prefix}${name}.bias` : undefined);

  rmsNorm(pass, normName);
  await linear(query, normed, "q_proj");
  await linear(key, normed, "k_proj");
  await linear(value, normed, "v_proj");
  const rotate = (x: bigint, heads: number): void =>
    ops.rope(x, rope.cos, rope.sin, tokens, {
      stride: heads * headDim,
      heads,
      headDim,
      first: 0,
      rotaryDim: headDim,
      interleaved: false,
    });
  rotate(query, numHeads);
  rotate(key, numKvHeads);
  ops.attention(attended, query, pass.appendKeysValues(layer, key, value));
  await linear(projected, attended, "o_proj");
  ops.add(hidden, projected, tokens * hiddenSize);
}
