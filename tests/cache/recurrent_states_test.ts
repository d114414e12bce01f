import assert from "node:assert/strict";
import { recurrentStateBytes, RecurrentStates } from "../../lib/cache/recurrent_states.ts";
import { UsageError } from "../../lib/errors.ts";
import type { DeviceAllocator, DeviceSpan } from "../../lib/ffi/context.ts";

/** Layers of two states, of none, and of one. */
const SHAPES = [[5, 16], [], [7]];

/** Gives addresses from 1 MiB on, and says what was taken. */
function allocator(): DeviceAllocator & { taken: number[] } {
  const taken: number[] = [];
  return {
    taken,
    deviceBuffer(bytes: number): DeviceSpan {
      taken.push(bytes);
      return { address: 1n << 20n, bytes, [Symbol.dispose]: () => {} };
    },
  };
}

Deno.test("RecurrentStates has two slots a sequence of every state, aligned, one behind the other, in as many bytes as planned", () => {
  const memory = allocator();
  using states = new RecurrentStates(memory, SHAPES, 3);
  assert.equal(states.slots, 6);
  // 6 slots of 5, 16 and 7 floats.
  assert.equal(recurrentStateBytes(SHAPES, 3), 128 + 384 + 192);
  assert.deepEqual(memory.taken, [recurrentStateBytes(SHAPES, 3)]);
  const start = 1n << 20n;
  assert.deepEqual([0, 1, 2].map((layer) => states.addresses(layer)), [[start, start + 128n], [], [start + 512n]]);
});

Deno.test("sequences hold slots of their own and give them back", () => {
  using states = new RecurrentStates(allocator(), SHAPES, 2);
  const a = states.sequence(), b = states.sequence();
  assert.deepEqual([...a.slots, ...b.slots].sort(), [0, 1, 2, 3]);
  assert.throws(() => states.sequence(), /no state is free/);
  const given = [...a.slots].sort();
  a[Symbol.dispose]();
  a[Symbol.dispose]();
  assert.deepEqual([...states.sequence().slots].sort(), given);
  assert.throws(() => states.sequence(), /no state is free/);
});

Deno.test("a pass writes the slot that it does not read; one that fails leaves what is read", () => {
  using states = new RecurrentStates(allocator(), SHAPES, 1);
  const state = states.sequence();
  const [first, second] = state.slots;
  state.begin();
  state.commit(4);
  assert.deepEqual(state.slots, [second, first]);
  state.begin();
  assert.deepEqual(state.slots, [second, first]);
  state.begin();
  state.commit(6);
  assert.deepEqual(state.slots, [first, second]);
});

Deno.test("truncate() goes back by one pass or to nothing, and refuses what there is no state of", () => {
  using states = new RecurrentStates(allocator(), SHAPES, 1);
  const state = states.sequence();
  for (const tokens of [4, 7]) {
    state.begin();
    state.commit(tokens);
  }
  const [read, write] = state.slots;
  const refused = (tokens: number, message: RegExp) =>
    assert.throws(() => state.truncate(tokens), (error) => error instanceof UsageError && message.test(error.message));
  refused(5, /to 5 tokens: its layers keep a state, of which there are those after 0 and 4 and 7 tokens/);
  state.truncate(7);
  state.truncate(4);
  assert.deepEqual(state.slots, [write, read]);
  refused(7, /those after 0 and 4 tokens/);
  // The pass that fails may have written over the earlier state.
  state.begin();
  state.commit(9);
  state.begin();
  refused(4, /those after 0 and 9 tokens/);
  state.truncate(9);
  state.truncate(0);
  refused(9, /those after 0 tokens/);
  state.begin();
  state.commit(2);
  state.truncate(0);
});
