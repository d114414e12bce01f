/**
 * The states of recurrent layers: of a fixed size a sequence, however many tokens it has, where attention's cache grows with every one.
 *
 * A state cannot be cut as a cache of keys can. Every sequence has two slots: a pass reads one and writes the other. So a pass that fails has changed
 * nothing, and a sequence can go back by one pass, which is what a rejected draft asks for.
 * @module
 */
import { UsageError } from "../errors.ts";
import type { DeviceAllocator, DeviceSpan } from "../ffi/context.ts";

const ALIGNMENT = 64;

/** Slots that a sequence holds. */
const SEQUENCE_SLOTS = 2;

/** For each layer, the float32 elements of each state that it keeps a sequence; none for a layer that keeps no state. */
export type StateShapes = readonly (readonly number[])[];

function stateBytes(elements: number, slots: number): number {
  return Math.ceil(elements * slots * 4 / ALIGNMENT) * ALIGNMENT;
}

/** Returns the bytes of all states of so many sequences. */
export function recurrentStateBytes(shapes: StateShapes, sequences: number): number {
  return shapes.flat().reduce((sum, elements) => sum + stateBytes(elements, sequences * SEQUENCE_SLOTS), 0);
}

/** The states of all layers, in slots that sequences take and give back. */
export class RecurrentStates implements Disposable {
  /** Slots of every state. */
  readonly slots: number;
  readonly #buffer: DeviceSpan;
  readonly #layers: readonly (readonly bigint[])[];
  readonly #freeSlots: number[];

  /** Reserves the states of so many sequences from a device or an arena. */
  constructor(memory: DeviceAllocator, shapes: StateShapes, sequences: number) {
    this.slots = sequences * SEQUENCE_SLOTS;
    this.#buffer = memory.deviceBuffer(recurrentStateBytes(shapes, sequences));
    let at = this.#buffer.address;
    this.#layers = shapes.map((states) =>
      states.map((elements) => {
        const address = at;
        at += BigInt(stateBytes(elements, this.slots));
        return address;
      })
    );
    this.#freeSlots = Array.from({ length: this.slots }, (_, index) => this.slots - 1 - index);
  }

  get bytes(): number {
    return this.#buffer.bytes;
  }

  /** Device addresses of a layer's states: f32 [slots, elements] each. */
  addresses(layer: number): readonly bigint[] {
    return this.#layers[layer];
  }

  /** Opens an empty sequence. There must be one fewer open than there is room for. */
  sequence(): SequenceState {
    const [read, write] = [this.#freeSlots.pop(), this.#freeSlots.pop()];
    if (read === undefined || write === undefined) throw new Error("Cannot open a sequence: no state is free");
    return new SequenceState(read, write, this.#freeSlots);
  }

  [Symbol.dispose](): void {
    this.#buffer[Symbol.dispose]();
  }
}

/** The slots of one sequence, and what they hold. What a slot holds of a sequence without tokens is not looked at: a layer starts from zeros there. */
export class SequenceState implements Disposable {
  readonly #freeSlots: number[];
  #read: number;
  #write: number;
  #tokens = 0;
  /** Tokens whose state is in the slot that the next pass writes; undefined where it is none. */
  #earlierTokens: number | undefined;
  #disposed = false;

  /** Made by {@linkcode RecurrentStates.sequence}. */
  constructor(read: number, write: number, freeSlots: number[]) {
    this.#read = read;
    this.#write = write;
    this.#freeSlots = freeSlots;
  }

  /** The slots that the next pass reads and writes. */
  get slots(): [read: number, write: number] {
    return [this.#read, this.#write];
  }

  /** Says that a pass is about to write. */
  begin(): void {
    this.#earlierTokens = undefined;
  }

  /** Says that the pass is over and the sequence has so many tokens. */
  commit(tokens: number): void {
    [this.#read, this.#write] = [this.#write, this.#read];
    this.#earlierTokens = this.#tokens;
    this.#tokens = tokens;
  }

  /**
   * Goes back to the state after so many tokens: none, those of before the last pass, or all.
   * @throws {UsageError} for another number.
   */
  truncate(tokens: number): void {
    if (tokens === this.#tokens) return;
    if (tokens !== 0 && tokens !== this.#earlierTokens) {
      const known = [...new Set([0, this.#earlierTokens ?? 0, this.#tokens])];
      throw new UsageError(
        `Cannot truncate a sequence to ${tokens} tokens: its layers keep a state, of which there are those after ${
          known.join(" and ")
        } tokens`,
      );
    }
    if (tokens === this.#earlierTokens) [this.#read, this.#write] = [this.#write, this.#read];
    this.#tokens = tokens;
    this.#earlierTokens = undefined;
  }

  [Symbol.dispose](): void {
    if (this.#disposed) return;
    this.#disposed = true;
    this.#freeSlots.push(this.#write, this.#read);
  }
}
