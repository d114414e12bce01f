/**
 * What operations take besides addresses and counts. Meanings are those of cuda/airkern.h.
 * @module
 */
import { AIRK_GELU, AIRK_GELU_TANH, AIRK_RELU, AIRK_RELU2, AIRK_SIGMOID, AIRK_SILU, AIRK_SWIGLU_OAI, AIRK_TANH } from "./abi.ts";

/** A weight extent in device memory: a run of whole rows of one matrix. */
export interface WeightExtent {
  /** Id from {@linkcode Context.formatId}. */
  format: number;
  address: bigint;
  bytes: bigint;
  rows: bigint;
  cols: bigint;
  outliers: bigint;
}

/** How the matrix products may round their activations: `exact` keeps float32, `fast` may use 16-bit operands. */
export type Precision = "exact" | "fast";

/** An activation function; each is written out at airk_gated. */
export type Activation = keyof typeof ACTIVATIONS;

/** Their ids. */
export const ACTIVATIONS = {
  silu: AIRK_SILU,
  gelu: AIRK_GELU,
  gelu_tanh: AIRK_GELU_TANH,
  relu: AIRK_RELU,
  relu2: AIRK_RELU2,
  sigmoid: AIRK_SIGMOID,
  tanh: AIRK_TANH,
  swiglu_oai: AIRK_SWIGLU_OAI,
};

/** How the rows of a matrix are grouped: see airk_matmul_grouped. */
export interface RowGroups {
  /** Row of the matrix that the extent begins with. */
  firstRow: number;
  /** Rows of a group. */
  groupRows: number;
  /** Elements from one group's part of x to the next's. */
  xGroupStride: number;
}

/** Where the elements that rotate lie: see airk_rope. */
export interface RopeLayout {
  /** Elements from one token's heads to the next's; heads * headDim where nothing lies between. */
  stride: number;
  heads: number;
  headDim: number;
  /** First element of a head that rotates. */
  first: number;
  /** How many rotate. */
  rotaryDim: number;
  /** Pairs 2 i, 2 i + 1 instead of i, i + rotaryDim / 2. */
  interleaved: boolean;
}

/** The KV cache of one layer: see airk_kv_append. */
export interface LayerCache {
  kCache: bigint;
  /** 0n where the values are the beginnings of the keys. */
  vCache: bigint;
  /** AIRK_F32, AIRK_F16 or AIRK_Q8. */
  cacheType: number;
  kvHeads: number;
  /** Elements of a key. */
  headDim: number;
  /** Elements of a value. */
  valueDim: number;
  pageTokens: number;
}

/** The KV cache of one layer, how this pass's tokens lie in it, and what they see: see airk_attention. */
export interface AttentionInput extends LayerCache {
  /** i32 [sequenceCount, 4]. */
  sequences: bigint;
  sequenceCount: number;
  /** i32, page numbers. */
  pageTable: bigint;
  /** 0n for causal order, else u8 [tokens, tokens]. */
  mask: bigint;
  /** i32 [tokens], the first position that each token sees; absent: all from 0 on. */
  firstVisible?: bigint;
  /** f32 [heads], one score a head that has no value; absent: none. */
  sinks?: bigint;
  /** f32 [heads], what a score gains for each position that the key lies after the token (ALiBi); absent: none. */
  slopes?: bigint;
  tokens: number;
  heads: number;
  contextTokens: number;
  scale: number;
  /** Largest magnitude of a score, softly; absent: none. */
  softcap?: number;
  /** Absent: exact. */
  precision?: Precision;
}

/** The sequences of a pass whose layers keep a state each: see airk_causal_conv1d. */
export interface RecurrentInput {
  /** i32 [sequenceCount, 4], as attention has it. */
  sequences: bigint;
  sequenceCount: number;
  /** i32 [sequenceCount, 2], which of the states each reads and which it writes; none is another's. */
  stateSlots: bigint;
  /** States there are. */
  slots: number;
  tokens: number;
}

/** What the gated delta rule reads for each token: see airk_gated_delta_rule. */
export interface DeltaRuleInput {
  q: bigint;
  qStride: number;
  k: bigint;
  kStride: number;
  v: bigint;
  vStride: number;
  /** f32 [tokens, valueHeads]. */
  logDecay: bigint;
  /** f32 [tokens, valueHeads]. */
  beta: bigint;
  keyHeads: number;
  valueHeads: number;
  /** Whether value head h reads key head h modulo `keyHeads`, else neighbouring value heads share one. */
  keyHeadsTakeTurns?: boolean;
  /** At most 256. */
  keyDim: number;
  valueDim: number;
  scale: number;
  /** f32 [valueHeads], what values are added to the answers with; 0n for none. */
  skip?: bigint;
  /** Whether a token corrects what the state recalls for its key, or adds to it; true without it. */
  corrects?: boolean;
}

/** Device addresses of the parameters of xIELU, as its tensors are named. */
export interface XieluParameters {
  alphaP: bigint;
  alphaN: bigint;
  beta: bigint;
  eps: bigint;
}
