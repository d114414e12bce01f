/**
 * One decoder block: attention, or what stands in its place, and feed-forward layer, each added to the residual stream, arranged as the layer's configuration says.
 * @module
 */
import { attention } from "./attention.ts";
import { latentAttention } from "./latent_attention.ts";
import { feedForward } from "./mlp.ts";
import { moe } from "./moe.ts";
import { norm } from "./norm.ts";
import { layerPrefix, type Pass } from "./pass.ts";
import { recurrentLayer, recurrentStates } from "./recurrent.ts";

/**
 * Enqueues decoder block `layer` on the hidden state.
 *
 * In sequence: hidden += attention(norm(hidden)), then hidden += feedForward(norm(hidden)). In parallel (Wang and Komatsuzaki 2021, GPT-J) both
 * read the hidden state of the block's start. Input norms, norms of what is added (Liu et al. 2022, Swin v2; Gemma 2), or both. With `normedResidual` a,
 * hidden = a * norm(hidden) + attention(norm(hidden)), and likewise.
 */
export async function decoderBlock(pass: Pass, layer: number): Promise<void> {
  const { attention: mixer, norms, parallel, feedForward: config } = pass.config.layers[layer];
  const { hidden, normed, projected } = pass.activations;
  const prefix = layerPrefix(layer);

  const attentionInput = norms.attentionInput ? normed : hidden;
  if (norms.attentionInput) norm(pass, normed, hidden, prefix, norms.attentionInput);
  restartResidual(pass, layer);
  if (recurrentStates(mixer)) await recurrentLayer(pass, layer, prefix, attentionInput);
  else if (mixer.latent) await latentAttention(pass, layer, mixer.latent, prefix, attentionInput);
  else await attention(pass, layer, prefix, attentionInput);
  if (norms.attentionOutput) norm(pass, projected, projected, prefix, norms.attentionOutput);

  if (config.kind === "none") return addToResidual(pass, layer);
  let feedForwardInput = parallel ? attentionInput : hidden;
  if (parallel && norms.feedForwardInput) norm(pass, normed, hidden, prefix, norms.feedForwardInput);
  addToResidual(pass, layer);
  if (!parallel && norms.feedForwardInput) norm(pass, normed, hidden, prefix, norms.feedForwardInput);
  if (norms.feedForwardInput) feedForwardInput = normed;
  restartResidual(pass, layer);
  if (config.kind === "moe") await moe(pass, layer, config, prefix, feedForwardInput);
  else await feedForward(pass, config, `${prefix}mlp.`, feedForwardInput, projected);
  if (norms.feedForwardOutput) norm(pass, projected, projected, prefix, norms.feedForwardOutput);
  addToResidual(pass, layer);
  if (pass.config.layers[layer].outputScaled) {
    pass.ops.scale(hidden, hidden, pass.tokens * pass.config.hiddenSize, pass.hostVector(`${prefix}layer_scalar`)[0]);
  }
}

/** Puts a sublayer's normed input in the residual stream's place, where the layer does that. */
function restartResidual(pass: Pass, layer: number): void {
  const { hidden, normed } = pass.activations, factor = pass.config.layers[layer].normedResidual;
  if (factor !== undefined) pass.ops.scale(hidden, normed, pass.tokens * pass.config.hiddenSize, factor);
}

function addToResidual(pass: Pass, layer: number): void {
  const { hidden, projected } = pass.activations;
  pass.ops.add(hidden, projected, pass.tokens * pass.config.hiddenSize, pass.config.layers[layer].residualMultiplier);
}
