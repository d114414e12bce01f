/**
 * The variable `loop` of a template.
 * @module
 */
import { Callable, equal, Undefined, type Value } from "./values.ts";

/** Says where a loop is, and can be called to run it over something else. */
export class Loop extends Callable {
  readonly #items: readonly Value[];
  readonly #index: number;
  readonly #depth: number;
  readonly #state: { last: Value };

  constructor(items: readonly Value[], index: number, depth: number, state: { last: Value }, again: (items: Value) => string) {
    super("loop", ({ positional }) => again(positional[0] ?? []));
    this.#items = items;
    this.#index = index;
    this.#depth = depth;
    this.#state = state;
  }

  /** Returns `loop.name`. */
  attribute(name: string): Value {
    const { length } = this.#items, index = this.#index;
    switch (name) {
      case "index":
        return index + 1;
      case "index0":
        return index;
      case "revindex":
        return length - index;
      case "revindex0":
        return length - index - 1;
      case "first":
        return index === 0;
      case "last":
        return index === length - 1;
      case "length":
        return length;
      case "depth":
        return this.#depth + 1;
      case "depth0":
        return this.#depth;
      case "previtem":
        return this.#items[index - 1] ?? new Undefined("there is no previous item");
      case "nextitem":
        return this.#items[index + 1] ?? new Undefined("there is no next item");
      case "cycle":
        return new Callable(name, ({ positional }) => positional[index % positional.length]);
      case "changed":
        return new Callable(name, ({ positional }) => {
          const same = equal(positional, this.#state.last);
          this.#state.last = positional;
          return !same;
        });
    }
    return new Undefined(`'loop' has no attribute '${name}'`);
  }
}
