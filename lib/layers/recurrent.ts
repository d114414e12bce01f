/**
 * The layers that stand in the place of attention and keep states of a fixed size a sequence.
 * @module
 */
import { deltaNet, deltaNetStates, deltaNetWidths } from "./delta_net.ts";
import { mamba, mambaStates, mambaWidths } from "./mamba.ts";
import type { AttentionConfig, ModelConfig } from "./model_config.ts";
import type { Activations, Pass } from "./pass.ts";
import { shortConvolution, shortConvolutionStates } from "./short_convolution.ts";

/** The activations that a recurrent layer works in. */
export type RecurrentWidths = Partial<Record<keyof Activations, number>>;

/** Returns the float32 elements of each state that a layer keeps a sequence; undefined of one that attends. */
export function recurrentStates({ deltaNet, mamba, shortConvolution }: AttentionConfig): number[] | undefined {
  if (deltaNet) return deltaNetStates(deltaNet);
  if (mamba) return mambaStates(mamba);
  return shortConvolution && shortConvolutionStates(shortConvolution);
}

/** Returns the floats a token of a recurrent layer's activations; undefined of one that attends. */
export function recurrentWidths(
  { hiddenSize }: Pick<ModelConfig, "hiddenSize">,
  { deltaNet, mamba, shortConvolution }: AttentionConfig,
): RecurrentWidths | undefined {
  if (deltaNet) {
    const { keys, values } = deltaNetWidths(deltaNet), { valueHeads } = deltaNet;
    // What is to be convolved goes through `attended`.
    const attended = Math.max(keys, values);
    return { query: keys, key: keys, value: values, attended, outputGate: values, beta: valueHeads, decay: valueHeads };
  }
  if (mamba) {
    const { keys, values } = mambaWidths(mamba), { heads } = mamba;
    return {
      query: keys,
      key: keys,
      value: values,
      attended: Math.max(keys, values),
      outputGate: values,
      beta: heads,
      decay: heads,
    };
  }
  return shortConvolution && { query: hiddenSize, key: hiddenSize, value: hiddenSize, attended: hiddenSize };
}

/** Enqueues projected = the recurrent layer of x: [tokens, hiddenSize]. `prefix` precedes the names of the layer's tensors. */
export async function recurrentLayer(pass: Pass, layer: number, prefix: string, x: bigint): Promise<void> {
  const { deltaNet: delta, mamba: space, shortConvolution: convolution } = pass.config.layers[layer].attention;
  if (delta) await deltaNet(pass, layer, delta, prefix, x);
  else if (space) await mamba(pass, layer, space, prefix, x);
  else if (convolution) await shortConvolution(pass, layer, convolution, prefix, x);
}
