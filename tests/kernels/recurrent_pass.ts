/**
 * Passes of several sequences, each with a state of its own, for the tests of recurrent operations.
 * @module
 */
import type { RecurrentInput } from "../../lib/ffi/ops.ts";
import type { Arena } from "./reference.ts";

/** Sequences in the order of their tokens; gaps of one token between them belong to nobody. */
export interface RecurrentPass {
  sequences: { cached: number; tokens: number; from: number; to: number }[];
  slots: number;
}

/** Tokens of the pass, those of nobody included, and the first token of each sequence. */
export function layOut({ sequences }: RecurrentPass): { tokens: number; first: number[] } {
  let tokens = 1;
  const first = sequences.map((each) => {
    const at = tokens;
    tokens += each.tokens + 1;
    return at;
  });
  return { tokens, first };
}

/** Places the tables of a pass. */
export function place(arena: Arena, pass: RecurrentPass): RecurrentInput {
  const { tokens, first } = layOut(pass);
  // The fourth number of a sequence is not read.
  const table = pass.sequences.flatMap(({ cached, tokens }, i) => [first[i], tokens, cached, 7]);
  return {
    sequences: arena.i32(table, "sequences").address,
    sequenceCount: pass.sequences.length,
    stateSlots: arena.i32(pass.sequences.flatMap(({ from, to }) => [from, to]), "stateSlots").address,
    slots: pass.slots,
    tokens,
  };
}

export const PASSES: RecurrentPass[] = [
  { sequences: [{ cached: 0, tokens: 1, from: 0, to: 0 }], slots: 1 },
  { sequences: [{ cached: 9, tokens: 1, from: 1, to: 1 }], slots: 2 },
  { sequences: [{ cached: 0, tokens: 2, from: 1, to: 0 }, { cached: 3, tokens: 5, from: 2, to: 3 }], slots: 4 },
  {
    sequences: [
      { cached: 0, tokens: 9, from: 3, to: 3 },
      { cached: 5, tokens: 2, from: 0, to: 5 },
      { cached: 2, tokens: 0, from: 1, to: 6 },
      { cached: 1, tokens: 17, from: 4, to: 2 },
    ],
    slots: 7,
  },
];

/** What the tables of a pass may not say, and the complaint. */
export const REFUSED: [string, RecurrentPass, RegExp][] = [
  [
    "a slot beyond the states",
    { sequences: [{ cached: 0, tokens: 1, from: 0, to: 2 }], slots: 2 },
    /state_slots\[0\]\[1\] is 2, required is 0 to 1/,
  ],
  ["a negative slot", { sequences: [{ cached: 0, tokens: 1, from: -1, to: 1 }], slots: 2 }, /state_slots\[0\]\[0\] is -1/],
  ["a negative entry", { sequences: [{ cached: -3, tokens: 1, from: 0, to: 0 }], slots: 2 }, /sequences\[0\]\[2\] is -3/],
];
