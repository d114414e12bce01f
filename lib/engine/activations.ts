/**
 * The memory of a pass's activations: how wide each is, and where it lies.
 * @module
 */
import { headShape } from "../layers/head_shape.ts";
import type { AttentionConfig } from "../layers/model_config.ts";
import type { Activations } from "../layers/pass.ts";
import { recurrentWidths } from "../layers/recurrent.ts";
import type { ModelConfig } from "../models/architecture.ts";

/** What all that operations use is aligned to, in bytes. */
export const ALIGNMENT = 64;

/** Returns the bytes rounded up to whole alignments. */
export function align(bytes: number): number {
  return Math.ceil(bytes / ALIGNMENT) * ALIGNMENT;
}

/** Activations of a layer's first sublayer, in the order that they lie in memory. */
export const ATTENTION_NAMES = [
  "query",
  "key",
  "value",
  "attended",
  "outputGate",
  "beta",
  "decay",
  "down",
  "unabsorbed",
] as const;

/** Floats a token of each activation, and which of them share memory: see {@linkcode Activations}. */
export function activationWidths(config: ModelConfig): { residual: number; streams: number; attention: number[]; mlp: number[] } {
  const widths = config.layers.map(({ attention }) => attentionWidths(config, attention));
  return {
    residual: config.hiddenSize,
    // `hidden`, `normed`, and `projected` where it is not `normed`.
    streams: config.layers.some(({ parallel, feedForward }) => parallel || feedForward.kind === "moe") ? 3 : 2,
    attention: ATTENTION_NAMES.map((_, i) => Math.max(...widths.map((ofLayer) => ofLayer[i]))),
    mlp: [config.intermediateSize, config.intermediateSize],
  };
}

/** Returns the width of each of a layer's activations by their order, 0 for those it does not use. */
function attentionWidths(config: ModelConfig, attention: AttentionConfig): number[] {
  const { gated, latent } = attention;
  const { numKvHeads, headDim, valueDim } = headShape(config, attention);
  const query = config.numHeads * headDim, attended = config.numHeads * valueDim;
  const recurrent = recurrentWidths(config, attention);
  if (recurrent) return ATTENTION_NAMES.map((name) => recurrent[name] ?? 0);
  if (latent) {
    const { queryRank = 0, rank, plainDim, rotaryDim } = latent, widest = Math.max(plainDim + rotaryDim, latent.valueDim);
    return [query, headDim, headDim, query, 0, 0, 0, Math.max(queryRank, rank), config.numHeads * widest];
  }
  return [query, numKvHeads * headDim, numKvHeads * valueDim, attended, gated ? attended : 0, 0, 0, 0, 0];
}

/** Returns the device bytes of the activations of `tokens` tokens, but for alignment. */
export function activationBytes(config: ModelConfig, tokens: number): number {
  const { residual, streams, attention, mlp } = activationWidths(config);
  const sum = (widths: number[]) => widths.reduce((total, width) => total + align(tokens * width * 4), 0);
  return streams * align(tokens * residual * 4) + Math.max(sum(attention), sum(mlp));
}

/** Returns where the activations of `tokens` tokens lie, from `start` on. */
export function placeActivations(config: ModelConfig, tokens: number, start: bigint): Activations {
  const { residual, streams, attention, mlp } = activationWidths(config);
  const bytes = (width: number) => BigInt(align(tokens * width * 4));
  const hidden = start, normed = hidden + bytes(residual);
  const projected = streams === 3 ? normed + bytes(residual) : normed, shared = projected + bytes(residual);
  let at = shared;
  const placed = ATTENTION_NAMES.map((name, i) => {
    const address = at;
    at += bytes(attention[i]);
    return [name, address];
  });
  return {
    hidden,
    normed,
    projected,
    ...Object.fromEntries(placed) as Record<typeof ATTENTION_NAMES[number], bigint>,
    gate: shared,
    up: shared + bytes(mlp[0]),
  };
}
