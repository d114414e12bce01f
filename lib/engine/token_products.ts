/**
 * Counts what a token's matrix products multiply.
 * @module
 */
import type { ModelConfig, ModelTensors } from "../models/architecture.ts";

/** Returns the weights of all layers that a token is multiplied by: of routed experts those of as many as it goes to. */
export function layerWeightsPerToken(
  { layers: configs }: Pick<ModelConfig, "layers">,
  { layers }: Pick<ModelTensors, "layers">,
): number {
  let weights = 0;
  layers.forEach((specs, layer) => {
    const { feedForward } = configs[layer];
    const routed = feedForward.kind === "moe" ? feedForward.router.topK / feedForward.router.numExperts : 0;
    for (const { kind, rows, cols } of specs) {
      if (kind === "linear" || kind === "router") weights += rows * cols;
      else if (kind === "expert") weights += routed * rows * cols;
    }
  });
  return weights;
}
