/**
 * Grouped-query self-attention.
 * @module
 */
import type { AttentionConfig } from "./model_config.ts";
import { headNorm } from "./norm.ts";
import type { Pass } from "./pass.ts";

/** Enqueues the rotation, in place, of x: [tokens, heads, headDim], of each head's elements from `first` on. */
function rotate(
  pass: Pass,
  x: bigint,
  heads: number,
  { index, interleaved, first = 0 }: NonNullable<AttentionConfig["rope"]> & { first?: number },
): void {
  const { headDim, ropes } = pass.config;
  const { cos, sin } = pass.ropes[index];
  const layout = { stride: heads * headDim, heads, headDim, first, rotaryDim: ropes[index].dim, interleaved };
  pass.ops.rope(x, cos, sin, pass.tokens, layout);
}

/**
 * Enqueues projected = attention(x), x: [tokens, hiddenSize]. Vaswani et al. 2017 with grouped queries (Ainslie et al. 2023, arXiv:2305.13245) and
 * rotary positions (Su et al. 2021, arXiv:2104.09864). `prefix` precedes the names of the layer's tensors.
 */
export async function attention(pass: Pass, layer: number, prefix: string, x: bigint): Promise<void> {
  const { ops } = pass;
  const { numHeads, numKvHeads } = pass.config;
  const { qkvBias, outputBias, queryNorm, keyNorm, normsRotated, rope, secondRope, queryScaling, sinks, gated } =
    pass.config.layers[layer].attention;
  const { query, key, value, attended, outputGate, projected } = pass.activations;
  const linear = (y: bigint, x: bigint, name: string, bias: boolean): Promise<void> =>
    pass.linear(y, x, `${prefix}self_attn.${name}.weight`, bias ? `${prefix}self_attn.${name}.bias` : undefined);

  await linear(query, x, "q_proj", qkvBias);
  await linear(key, x, "k_proj", qkvBias);
  await linear(value, x, "v_proj", qkvBias);
  if (gated) await linear(outputGate, x, "gate_proj", qkvBias);
  const normHeads = (): void => {
    if (queryNorm) headNorm(pass, query, numHeads, prefix, queryNorm);
    if (keyNorm) headNorm(pass, key, numKvHeads, prefix, keyNorm);
  };
  if (!normsRotated) normHeads();
  for (const each of [rope, secondRope]) {
    if (!each) continue;
    rotate(pass, query, numHeads, each);
    rotate(pass, key, numKvHeads, each);
  }
  if (normsRotated) normHeads();
  if (queryScaling) rotate(pass, query, numHeads, { ...queryScaling, interleaved: false });
  const input = pass.appendKeysValues(layer, key, value);
  ops.attention(attended, query, sinks ? { ...input, sinks: pass.vector(`${prefix}self_attn.sinks`) } : input);
  if (gated) ops.gated(attended, outputGate, attended, pass.tokens * numHeads * pass.config.headDim, "sigmoid");
  await linear(projected, attended, "o_proj", outputBias);
}
