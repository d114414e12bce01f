/**
 * The state space of Mamba 2, which keeps one state of fixed size a sequence: Dao and Gu 2024, arXiv:2405.21060, as transformers'
 * `modeling_granitemoehybrid.py` arranges it.
 * @module
 */
import type { MambaConfig } from "./model_config.ts";
import type { Pass } from "./pass.ts";

/** Bytes of a float32. */
const WORD = 4;

/** Returns the elements of what a token asks the state, which what it writes under has too (C and B in the paper), and of its values. */
export function mambaWidths({ groups, stateDim, heads, headDim }: MambaConfig): { keys: number; values: number } {
  return { keys: groups * stateDim, values: heads * headDim };
}

/** Returns the float32 elements of each state that the layer keeps a sequence: the last inputs of three convolutions, then the heads' memory. */
export function mambaStates(config: MambaConfig): number[] {
  const { keys, values } = mambaWidths(config), history = config.kernel - 1;
  return [history * values, history * keys, history * keys, config.stateDim * values];
}

/**
 * Enqueues projected = mamba(x), x: [tokens, hiddenSize]. `prefix` precedes the names of the layer's tensors.
 *
 * Values, and what they are written and read under, each go through a short causal convolution. The state of a head decays with a step that the token
 * chooses, takes in the value times that step, and answers; the answer, to which the value itself is added, is gated and normalised.
 */
export async function mamba(pass: Pass, layer: number, config: MambaConfig, prefix: string, x: bigint): Promise<void> {
  const { ops, tokens } = pass;
  const { query, key, value, attended, outputGate, beta, decay, projected } = pass.activations;
  const { groups, stateDim, heads, headDim, kernel, convolutionBias, activation } = config;
  const { keys, values } = mambaWidths(config);
  const { states, input } = pass.recurrentStates(layer);
  const name = (part: string): string => `${prefix}mamba.${part}`;

  // `attended` is free until the heads answer.
  for (const [i, [part, y, cols]] of ([["x", value, values], ["b", key, keys], ["c", query, keys]] as const).entries()) {
    await pass.linear(attended, x, name(`in_proj_${part}.weight`));
    const bias = convolutionBias ? pass.vector(name(`conv1d_${part}.bias`)) : 0n;
    ops.causalConv1d(y, attended, pass.vector(name(`conv1d_${part}.weight`)), bias, states[i], input, cols, kernel, activation);
  }
  await pass.linear(outputGate, x, name("in_proj_z.weight"));
  await pass.linear(beta, x, name("in_proj_dt.weight"));

  const stepBias = pass.vector(name("dt_bias"));
  ops.logDecay(decay, beta, pass.vector(name("A_log")), stepBias, tokens, heads);
  // With a logarithm of 0 the same is the step itself, negated.
  ops.fill(attended, 0, heads * WORD);
  ops.logDecay(beta, beta, attended, stepBias, tokens, heads);
  ops.scale(beta, beta, tokens * heads, -1);
  ops.gatedDeltaRule(attended, states[3], {
    ...{ q: query, qStride: keys, k: key, kStride: keys, v: value, vStride: values, logDecay: decay, beta },
    ...{ keyHeads: groups, valueHeads: heads, keyDim: stateDim, valueDim: headDim, scale: 1 },
    ...{ skip: pass.vector(name("D")), corrects: false },
  }, input);
  ops.gated(attended, outputGate, attended, tokens * values, "silu");
  normGroups(pass, config, name("norm.weight"));
  await pass.linear(projected, attended, name("out_proj.weight"));
}

/** Enqueues the RMSNorm of each group of heads in `attended`, each with its own part of the weight. */
function normGroups(pass: Pass, config: MambaConfig, weightName: string): void {
  const { ops, tokens, activations: { value, attended } } = pass;
  const { normGroups: count, eps } = config, { values } = mambaWidths(config), width = values / count;
  const weight = pass.vector(weightName);
  if (count === 1) return ops.rmsnorm(attended, attended, weight, tokens, values, eps);
  for (let group = 0; group < count; group++) {
    const offset = BigInt(group * width * WORD);
    // The values have been taken in.
    ops.copy2d(value, width, attended + offset, values, tokens, width);
    ops.rmsnorm(value, value, weight + offset, tokens, width, eps);
    ops.copy2d(attended + offset, values, value, width, tokens, width);
  }
}
