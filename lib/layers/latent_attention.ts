/**
 * Multi-head latent attention: DeepSeek-V2, arXiv:2405.04434, 2.1.
 *
 * The cache holds a latent a token that all heads share, and the one key part that is rotated. What would make keys and values of the latent is
 * multiplied into the queries and the result instead ("absorbed"), so that attention runs over the latents themselves: a token costs 576
 * numbers a layer where 128 heads would cost 40,960.
 * @module
 */
import type { LatentConfig } from "./model_config.ts";
import { rmsNormRows } from "./norm.ts";
import type { Pass } from "./pass.ts";

/** Bytes of a float32. */
const WORD = 4n;

/** Enqueues query: [tokens, numHeads, rank + rotaryDim] = the absorbed queries of x, rotated. */
async function latentQueries(pass: Pass, layer: number, latent: LatentConfig, prefix: string, x: bigint): Promise<void> {
  const { ops, tokens } = pass, { numHeads } = pass.config;
  const { query, attended, unabsorbed, down } = pass.activations;
  const { queryRank, rank, plainDim, rotaryDim, eps, bias } = latent;
  const headDim = plainDim + rotaryDim, name = (part: string): string => `${prefix}self_attn.${part}`;
  if (queryRank === undefined) {
    await pass.linear(unabsorbed, x, name("q_proj.weight"));
  } else {
    await pass.linear(down, x, name("q_a_proj.weight"), bias ? name("q_a_proj.bias") : undefined);
    rmsNormRows(pass, down, down, name("q_a_layernorm.weight"), tokens, queryRank, eps);
    await pass.linear(unabsorbed, down, name("q_b_proj.weight"));
  }
  rotate(pass, latent, unabsorbed, numHeads, headDim, plainDim);
  // `attended` is free until attention writes it.
  const groups = { groupRows: rank, xGroupStride: headDim };
  await pass.linearGrouped(attended, unabsorbed, numHeads * headDim, name("k_b_proj.weight"), groups);
  const rows = tokens * numHeads, width = rank + rotaryDim;
  ops.copy2d(query, width, attended, rank, rows, rank);
  ops.copy2d(query + BigInt(rank) * WORD, width, unabsorbed + BigInt(plainDim) * WORD, headDim, rows, rotaryDim);
  const { queryScaling } = pass.config.layers[layer].attention;
  if (!queryScaling) return;
  const { cos, sin } = pass.ropes[queryScaling.index];
  const layout = { stride: numHeads * width, heads: numHeads, headDim: width, first: 0, rotaryDim: width, interleaved: false };
  ops.rope(query, cos, sin, tokens, layout);
}

/** Enqueues key: [tokens, rank + rotaryDim] = the latents of x, normalised, and the rotated part. */
async function latentKeys(pass: Pass, latent: LatentConfig, prefix: string, x: bigint): Promise<void> {
  const { ops, tokens } = pass;
  const { key, down } = pass.activations;
  const { rank, rotaryDim, eps, bias } = latent;
  const name = (part: string): string => `${prefix}self_attn.${part}`;
  await pass.linear(key, x, name("kv_a_proj_with_mqa.weight"), bias ? name("kv_a_proj_with_mqa.bias") : undefined);
  rotate(pass, latent, key, 1, rank + rotaryDim, rank);
  ops.copy2d(down, rank, key, rank + rotaryDim, tokens, rank);
  rmsNormRows(pass, down, down, name("kv_a_layernorm.weight"), tokens, rank, eps);
  ops.copy2d(key, rank + rotaryDim, down, rank, tokens, rank);
}

function rotate(pass: Pass, { rotaryDim, rope }: LatentConfig, x: bigint, heads: number, headDim: number, first: number): void {
  const { cos, sin } = pass.ropes[rope.index];
  const layout = { stride: heads * headDim, heads, headDim, first, rotaryDim, interleaved: rope.interleaved };
  pass.ops.rope(x, cos, sin, pass.tokens, layout);
}

/** Enqueues projected = attention(x), x: [tokens, hiddenSize]. `prefix` precedes the names of the layer's tensors. */
export async function latentAttention(pass: Pass, layer: number, latent: LatentConfig, prefix: string, x: bigint): Promise<void> {
  const { numHeads } = pass.config;
  const { query, key, attended, unabsorbed, projected } = pass.activations;
  const { rank, valueDim, bias } = latent;
  const name = (part: string): string => `${prefix}self_attn.${part}`;
  await latentQueries(pass, layer, latent, prefix, x);
  await latentKeys(pass, latent, prefix, x);
  pass.ops.attention(attended, query, pass.appendKeysValues(layer, key, 0n));
  const groups = { groupRows: valueDim, xGroupStride: rank };
  await pass.linearGrouped(unabsorbed, attended, numHeads * rank, name("v_b_proj.weight"), groups);
  await pass.linear(projected, unabsorbed, name("o_proj.weight"), bias ? name("o_proj.bias") : undefined);
}
