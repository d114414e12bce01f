/**
 * The sizes of a layer's heads.
 * @module
 */
import type { AttentionConfig, ModelConfig } from "./model_config.ts";

/** Heads of one layer: see {@linkcode AttentionConfig.heads}. */
export type HeadShape = NonNullable<AttentionConfig["heads"]>;

/** Returns the sizes of a layer's heads: its own, or those of all layers. */
export function headShape(
  { numKvHeads, headDim, sharedValueDim }: Pick<ModelConfig, "numKvHeads" | "headDim" | "sharedValueDim">,
  { heads }: Pick<AttentionConfig, "heads">,
): HeadShape {
  return heads ?? { numKvHeads, headDim, valueDim: sharedValueDim ?? headDim };
}
