/**
 * A sequence of tokens that passes extend.
 * @module
 */
import type { CachedSequence } from "../cache/kv_cache.ts";
import type { SequenceState } from "../cache/recurrent_states.ts";
import { UsageError } from "../errors.ts";
import type { Blank } from "./blank_filling.ts";

/** One text being read or written: the keys and values of its tokens, and the states that layers have after them. Made by `Engine.openSequence`. */
export class Sequence implements Disposable {
  readonly #cached: CachedSequence;
  readonly #state: SequenceState | undefined;
  readonly #onDispose: () => void;
  #inPass = false;
  #disposed = false;
  /** The blank that its later tokens fill, of a model that does that, once the text is cached. */
  blank?: Blank;

  constructor(cached: CachedSequence, state: SequenceState | undefined, onDispose: () => void) {
    this.#cached = cached;
    this.#state = state;
    this.#onDispose = onDispose;
  }

  /** Tokens whose keys and values are in the cache. */
  get cachedTokens(): number {
    return this.#cached.tokens;
  }

  /** Most tokens the sequence may hold. */
  get capacityTokens(): number {
    return this.#cached.capacityTokens;
  }

  /**
   * Forgets all but the first `tokens`, so that the next pass continues from there. A model with recurrent layers can forget its last pass, or all; one
   * with sliding windows its last pass, all, or as much as still lies within what its windows have kept.
   * @throws {UsageError} where there are fewer, for another number where layers keep states, while a pass uses the sequence, or in the middle of a text
   * that was read in both directions.
   */
  truncate(tokens: number): void {
    this.#requireIdle("truncate");
    const { textTokens = 0 } = this.blank ?? {};
    if (tokens > 0 && tokens < textTokens) {
      throw new UsageError(
        `Cannot truncate a sequence to ${tokens} tokens: its text of ${textTokens} was read in both directions, required is 0 or at least all of it`,
      );
    }
    this.#state?.truncate(tokens);
    this.#cached.truncate(tokens);
  }

  /** Gives the sequence's memory back. While a pass uses it, that happens when the pass ends. */
  [Symbol.dispose](): void {
    if (this.#disposed) return;
    this.#disposed = true;
    if (!this.#inPass) this.#release();
  }

  /**
   * Lends the pages to a pass; `leavePass` must follow.
   * @throws {UsageError} where the sequence is closed or in a pass already.
   */
  enterPass(): CachedSequence {
    this.#requireIdle("run");
    this.#inPass = true;
    return this.#cached;
  }

  /** The states of its recurrent layers; undefined for a model that has none. */
  get state(): SequenceState | undefined {
    return this.#state;
  }

  /** Ends what `enterPass` began. */
  leavePass(): void {
    this.#inPass = false;
    if (this.#disposed) this.#release();
  }

  #release(): void {
    this.#cached[Symbol.dispose]();
    this.#state?.[Symbol.dispose]();
    this.#onDispose();
  }

  #requireIdle(action: string): void {
    if (this.#disposed) throw new UsageError(`Cannot ${action} a sequence: it is closed`);
    if (this.#inPass) throw new UsageError(`Cannot ${action} a sequence: a pass is using it`);
  }
}
