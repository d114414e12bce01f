/**
 * How much memory operations take between their kernels.
 * @module
 */
import type { Precision } from "../ffi/ops.ts";

/** What scratch memory depends on. */
export interface ScratchShape {
  precision: Precision;
  /** Elements of the widest row that a product reads. */
  widestInput: number;
  numHeads: number;
  headDim: number;
  maxSequences: number;
  contextTokens: number;
}

/** Most tokens that a tile of a product is padded to (cuda/matmul_tensor.cu). */
const TILE_TOKENS = 128;

/** Keys of a part of a long context that attention takes by itself, and most memory for the parts' results (cuda/attention.cu). */
const ATTENTION_CHUNK_TOKENS = 256;
const MOST_ATTENTION_BYTES = 64 * 2 ** 20;

/**
 * Returns the bytes that the CPU library takes of its own: a product of many tokens keeps its input packed, in float32 at most
 * (cpu/matmul_panels.cpp).
 */
export function cpuScratchBytesPerToken({ widestInput }: Pick<ScratchShape, "widestInput">): number {
  return widestInput * 4;
}

/**
 * Returns the bytes that streams of the CUDA library are to be given: a fast product of many tokens keeps its input as bfloat16, and attention
 * divides a long context among blocks where few tokens are computed; without room for that, it does not.
 */
export function cudaScratchBytes(shape: ScratchShape): { bytesPerToken: number; fixedBytes: number } {
  const { precision, widestInput, numHeads, headDim, maxSequences, contextTokens } = shape;
  const packedRow = precision === "fast" ? Math.ceil(widestInput / 32) * 64 : 0;
  const chunks = Math.ceil(contextTokens / ATTENTION_CHUNK_TOKENS);
  const attention = chunks > 1 ? Math.min(MOST_ATTENTION_BYTES, maxSequences * numHeads * chunks * (headDim + 2) * 4) : 0;
  return { bytesPerToken: packedRow, fixedBytes: Math.max(4096, packedRow * (TILE_TOKENS - 1) + attention) };
}
