/**
 * An engine without a model, for tests of what drives engines: its logits are a fixed function of a sequence's tokens.
 */
import assert from "node:assert/strict";
import { CancelledError } from "../../lib/errors.ts";
import type { LoopEngine, LoopPassItem, LoopPassOutput } from "../../lib/generate/loop.ts";
import { Random } from "../../lib/generate/random.ts";
import { argmax } from "../../lib/generate/sampler.ts";

export interface ToyOptions {
  vocabSize?: number;
  contextTokens?: number;
  passTokens?: number;
  maxSequences?: number;
  /** Changes the function, as other weights would. */
  weights?: number;
  /** Rounds logits to halves, so that many are equal. */
  coarse?: boolean;
  prefersTopK?: boolean;
  /** Whether a prompt must not be divided. */
  blankFilling?: boolean;
}

/** The KV cache of a toy sequence is its tokens. */
export class ToySequence implements Disposable {
  readonly tokens: number[] = [];
  disposed = false;
  constructor(private readonly onDispose: () => void) {}
  [Symbol.dispose](): void {
    assert.ok(!this.disposed, "a sequence is disposed of once");
    this.disposed = true;
    this.onDispose();
  }
}

/** What a pass was asked for. */
export interface ToyPass {
  chunks: number[];
  expectAnother: boolean;
}

/** Checks that it is driven as engines allow, and keeps a record. */
export class ToyEngine implements LoopEngine<ToySequence> {
  readonly config: { vocabSize: number; blankFilling?: boolean };
  readonly plan: { contextTokens: number; passTokens: number };
  readonly statistics = { bytesRead: 0 };
  readonly passes: ToyPass[] = [];
  readonly prefersTopK: boolean;
  /** Times that a few of the likeliest tokens were given, and that all logits were asked for after all. */
  likeliest = 0;
  fallbacks = 0;
  readonly #coarse: boolean;
  readonly maxSequences: number;
  open = 0;
  /** Called in each pass before it ends. */
  duringPass: (index: number, signal?: AbortSignal) => void | Promise<void> = () => {};
  readonly #weights: number;
  #busy = false;

  constructor(options: ToyOptions = {}) {
    const { vocabSize = 64, contextTokens = 128, passTokens = 16, maxSequences = 4, weights = 1 } = options;
    this.prefersTopK = options.prefersTopK ?? false;
    this.#coarse = options.coarse ?? false;
    this.config = { vocabSize, blankFilling: options.blankFilling };
    this.plan = { contextTokens, passTokens };
    this.maxSequences = maxSequences;
    this.#weights = weights;
  }

  openSequence(): ToySequence {
    assert.ok(++this.open <= this.maxSequences, "no more sequences than planned");
    return new ToySequence(() => this.open--);
  }

  /** Returns the logits after some tokens. */
  logits(tokens: readonly number[]): Float32Array {
    let state = this.#weights;
    for (const token of tokens) state = (Math.imul(state, 31) + token + 1) >>> 0;
    const random = new Random(state);
    return Float32Array.from({ length: this.config.vocabSize }, () => {
      const logit = 4 * random.uniform();
      return this.#coarse ? Math.round(2 * logit) / 2 : logit;
    });
  }

  async pass<L extends "none" | "last" | "all">(
    items: (Omit<LoopPassItem<ToySequence>, "logits" | "output"> & { logits: L; output?: LoopPassItem<ToySequence>["output"] })[],
    options: { expectAnother: boolean; signal?: AbortSignal },
  ): Promise<LoopPassOutput[]> {
    assert.ok(!this.#busy, "one pass at a time");
    this.#busy = true;
    try {
      const chunks = items.map(({ tokens }) => tokens.length);
      assert.ok(items.length > 0 && chunks.every((length) => length > 0));
      assert.ok(chunks.reduce((a, b) => a + b) <= this.plan.passTokens, "no more tokens than planned");
      assert.equal(new Set(items.map(({ sequence }) => sequence)).size, items.length);
      this.passes.push({ chunks, expectAnother: options.expectAnother });
      await this.duringPass(this.passes.length - 1, options.signal);
      await Promise.resolve();
      if (options.signal?.aborted) throw new CancelledError("Pass stopped");
      return items.map(({ sequence, tokens, logits, output }) => {
        assert.ok(!sequence.disposed, "a sequence of the pass is open");
        const rows: Float32Array[] = [];
        for (const token of Array.from(tokens)) {
          sequence.tokens.push(token);
          rows.push(this.logits(sequence.tokens));
        }
        assert.ok(sequence.tokens.length <= this.plan.contextTokens, "no more tokens than the context holds");
        this.statistics.bytesRead += 1000;
        if (logits === "none") return {};
        const asked = logits === "all" ? rows : rows.slice(-1);
        if (output === "argmax") return { argmax: Int32Array.from(asked, argmax) };
        if (typeof output === "object") return { topK: this.#topK(asked[0], output.topK) };
        return { logits: Float32Array.from(asked.flatMap((row) => [...row])) };
      });
    } finally {
      this.#busy = false;
    }
  }

  #topK(row: Float32Array, k: number): NonNullable<LoopPassOutput["topK"]> {
    this.likeliest++;
    const ids = [...row.keys()].sort((a, b) => row[b] - row[a] || a - b).slice(0, k);
    return {
      values: Float32Array.from(ids, (id) => row[id]),
      ids: Int32Array.from(ids),
      logits: () => {
        this.fallbacks++;
        return Promise.resolve(row);
      },
    };
  }
}
