/**
 * Grouped-query self-attention.
 * @module
 */
import { headShape } from "./head_shape.ts";
import type { AttentionConfig } from "./model_config.ts";
import { headNorm } from "./norm.ts";
import type { Pass } from "./pass.ts";

/** Enqueues the rotation, in place, of x: [tokens, heads, headDim], of each head's elements from `first` on. */
function rotate(
  pass: Pass,
  x: bigint,
  heads: number,
  headDim: number,
  { index, interleaved, first = 0 }: NonNullable<AttentionConfig["rope"]> & { first?: number },
): void {
  const { ropes } = pass.config;
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
  const { numHeads, layers } = pass.config, { attention: config } = layers[layer];
  const { qkvBias, outputBias, queryNorm, keyNorm, valueNorm, normsRotated, rope, secondRope, queryScaling, sinks, gated, clip } =
    config;
  const { numKvHeads, headDim, valueDim } = headShape(pass.config, config), valueCols = numKvHeads * valueDim;
  const { query, key, value, attended, outputGate, projected } = pass.activations;
  const linear = (y: bigint, x: bigint, name: string, bias: boolean): Promise<void> =>
    pass.linear(y, x, `${prefix}self_attn.${name}.weight`, bias ? `${prefix}self_attn.${name}.bias` : undefined);

  await linear(query, x, "q_proj", qkvBias);
  await linear(key, x, "k_proj", qkvBias);
  if (config.valuesAreKeys) ops.copy2d(value, valueCols, key, valueCols, pass.tokens, valueCols);
  else await linear(value, x, "v_proj", qkvBias);
  if (config.valueMultiplier !== undefined) ops.scale(value, value, pass.tokens * valueCols, config.valueMultiplier);
  if (gated) await linear(outputGate, x, "gate_proj", qkvBias);
  if (clip !== undefined) {
    ops.clamp(query, query, pass.tokens * numHeads * headDim, clip);
    ops.clamp(key, key, pass.tokens * numKvHeads * headDim, clip);
    ops.clamp(value, value, pass.tokens * valueCols, clip);
  }
  const normHeads = (): void => {
    if (queryNorm) headNorm(pass, query, numHeads, headDim, prefix, queryNorm);
    if (keyNorm) headNorm(pass, key, numKvHeads, headDim, prefix, keyNorm);
  };
  if (!normsRotated) normHeads();
  if (valueNorm) headNorm(pass, value, numKvHeads, valueDim, prefix, valueNorm);
  for (const each of [rope, secondRope]) {
    if (!each) continue;
    rotate(pass, query, numHeads, headDim, each);
    rotate(pass, key, numKvHeads, headDim, each);
  }
  if (normsRotated) normHeads();
  if (queryScaling) rotate(pass, query, numHeads, headDim, { ...queryScaling, interleaved: false });
  const input = pass.appendKeysValues(layer, key, value);
  ops.attention(attended, query, sinks ? { ...input, sinks: pass.vector(`${prefix}self_attn.sinks`) } : input);
  if (gated) ops.gated(attended, outputGate, attended, pass.tokens * numHeads * valueDim, "sigmoid");
  await linear(projected, attended, "o_proj", outputBias);
}
