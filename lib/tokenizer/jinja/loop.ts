/**
 * What a template finds in a loop beside the item.
 * @module
 */
import { Callable, equal, TemplateError, Undefined, type Value } from "./values.ts";

/** The variable `loop`, which can be called to run the loop over something else. */
export class Loop extends Callable {
  readonly #items: readonly Value[];
  readonly #index: number;
  readonly #depth: number;
  readonly #state: { last: Value };

  /**
   * @param state What all rounds of a loop share.
   * @param again Runs the loop over something else; undefined where it is not `recursive`.
   */
  constructor(
    items: readonly Value[],
    index: number,
    depth: number,
    state: { last: Value },
    again: ((items: Value) => string) | undefined,
  ) {
    super("loop", ({ positional: [given] }) => {
      if (!again) throw new TemplateError("The loop must have the 'recursive' marker to be called.");
      if (given === undefined) throw new TemplateError("loop() missing 1 required positional argument: 'iterable'");
      return again(given);
    });
    this.#items = items;
    this.#index = index;
    this.#depth = depth;
    this.#state = state;
  }

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
        return index > 0 ? this.#items[index - 1] : new Undefined("there is no previous item");
      case "nextitem":
        return index + 1 < length ? this.#items[index + 1] : new Undefined("there is no next item");
      case "cycle":
        return new Callable(name, ({ positional }) => {
          if (positional.length === 0) throw new TemplateError("no items for cycling given");
          return positional[index % positional.length];
        });
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
