/**
 * The one loop that drives an engine: it advances a set of sequences one pass at a time.
 *
 * Sequences join and leave between passes. Each brings a part of its prompt or its newest token; all of them share the pass, so that the
 * weights are read once for all. `generate`, a server and a batch job are callers that submit requests and read what comes.
 * @module
 */
import { CancelledError, UsageError } from "../errors.ts";
import { MOST_TOP_K } from "../engine/pass_layout.ts";
import { type Generation, type GenerationRequest, LoopGeneration } from "./generation.ts";
import type { Sampler } from "./sampler.ts";

/** What a sequence brings to a pass. */
export interface LoopPassItem<S> {
  sequence: S;
  tokens: ArrayLike<number>;
  logits: "none" | "last";
  output: "logits" | "argmax" | { topK: number };
  /** Tokens of the whole prompt that this is a part of, for rotary embeddings that depend on it. */
  ropeSpanTokens?: number;
}

/** What a pass returns for an item. */
export interface LoopPassOutput {
  logits?: Float32Array;
  argmax?: Int32Array;
  topK?: { values: Float32Array; ids: Int32Array; logits(): Promise<Float32Array> };
}

/** The part of an engine that the loop drives; S is its handle of a sequence's KV cache. */
export interface LoopEngine<S extends Disposable> {
  readonly plan: { readonly contextTokens: number; readonly passTokens: number };
  /** `blankFilling` is there where a prompt must not be divided among passes. */
  readonly config: { readonly vocabSize: number; readonly blankFilling?: unknown };
  readonly statistics: { readonly bytesRead: number };
  /** Whether asking for a few of the likeliest tokens saves copying all logits. */
  readonly prefersTopK?: boolean;
  openSequence(): S;
  pass(
    items: LoopPassItem<S>[],
    options: { expectAnother: boolean; signal: AbortSignal },
  ): Promise<LoopPassOutput[]>;
}

/** How a {@linkcode GenerationLoop} works. */
export interface LoopOptions {
  /** Sequences that take part in a pass; more requests wait for one of them to end. */
  maxSequences: number;
}

/** A sequence that takes part. */
interface Active<S> {
  generation: LoopGeneration;
  sequence: S;
  /** Tokens of the prompt that are not in the KV cache yet, or the newest token alone. */
  pending: readonly number[];
}

/** Returns the next token of a sequence; a number at once where the pass returned what it takes. */
function choose(sampler: Sampler, { logits, argmax, topK }: LoopPassOutput): number | Promise<number> {
  if (argmax) return argmax[0];
  if (!topK) return sampler.sample(logits!);
  return sampler.sampleLikeliest(topK.values, topK.ids) ?? topK.logits().then((all) => sampler.sample(all));
}

/** Drives an engine for any number of callers. */
export class GenerationLoop<S extends Disposable> implements AsyncDisposable {
  readonly #engine: LoopEngine<S>;
  readonly #maxSequences: number;
  #waiting: LoopGeneration[] = [];
  #active: Active<S>[] = [];
  #running: Promise<void> | undefined;
  /** The sequences of the pass under way, and what stops it. */
  #pass: { members: Active<S>[]; abort: AbortController } | undefined;
  #closed = false;

  constructor(engine: LoopEngine<S>, options: LoopOptions) {
    this.#engine = engine;
    this.#maxSequences = options.maxSequences;
  }

  /**
   * Starts a generation, which joins the next pass. Requests of the same turn of the event loop start in the same pass.
   *
   * @throws {UsageError} for an empty prompt, a prompt that fills the context, or options out of range.
   */
  submit(request: GenerationRequest): Generation {
    if (this.#closed) throw new UsageError("Cannot generate: the model is closed");
    const { promptIds, maxNewTokens } = request;
    const { contextTokens } = this.#engine.plan;
    if (promptIds.length === 0) throw new UsageError("Cannot generate from an empty prompt: required at least one token");
    if (!Number.isSafeInteger(maxNewTokens) || maxNewTokens < 1) {
      throw new UsageError(`Cannot generate ${maxNewTokens} tokens: required a whole number from 1`);
    }
    if (promptIds.length >= contextTokens) {
      throw new UsageError(
        `Cannot generate: the prompt has ${promptIds.length} tokens, the context holds ${contextTokens} including at least one new token`,
      );
    }
    const { vocabSize, blankFilling } = this.#engine.config, { passTokens } = this.#engine.plan;
    if (blankFilling && promptIds.length > passTokens) {
      throw new UsageError(
        `Cannot generate: the prompt has ${promptIds.length} tokens, this model reads a prompt in one pass and the plan has room for ${passTokens}`,
      );
    }
    const stranger = promptIds.find((id) => !Number.isSafeInteger(id) || id < 0 || id >= vocabSize);
    if (stranger !== undefined) {
      throw new UsageError(
        `Cannot generate: the prompt has token ${stranger}, the vocabulary holds ids from 0 to ${vocabSize - 1}`,
      );
    }
    const generation = new LoopGeneration(request, contextTokens, performance.now(), () => this.#stopIdlePass());
    if (!generation.ended) {
      this.#waiting.push(generation);
      this.#running ??= this.#run();
    }
    return generation;
  }

  /** Cancels everything and waits for the pass under way to stop. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed = true;
    for (const generation of [...this.#waiting, ...this.#active.map((active) => active.generation)]) generation.cancel();
    await this.#running;
  }

  /** Stops the pass under way when nobody waits for its result any more. */
  #stopIdlePass(): void {
    if (this.#pass?.members.every(({ generation }) => generation.ended)) {
      this.#pass.abort.abort(new CancelledError("Pass stopped: its generations were cancelled"));
    }
  }

  async #run(): Promise<void> {
    // Lets all requests of this turn arrive before the first pass.
    await Promise.resolve();
    for (;;) {
      this.#join();
      if (this.#active.length === 0) break;
      await this.#advance();
    }
    this.#running = undefined;
  }

  /** Closes the sequences of texts that have ended. */
  #leave(): void {
    const stays: Active<S>[] = [];
    for (const active of this.#active) {
      if (active.generation.ended) active.sequence[Symbol.dispose]();
      else stays.push(active);
    }
    this.#active = stays;
  }

  /** Opens sequences for requests that wait, as many as may take part. */
  #join(): void {
    while (this.#active.length < this.#maxSequences && this.#waiting.length > 0) {
      const generation = this.#waiting.shift()!;
      if (generation.ended) continue;
      try {
        this.#active.push({ generation, sequence: this.#engine.openSequence(), pending: generation.request.promptIds });
      } catch (error) {
        generation.fail(error);
      }
    }
  }

  /** Divides a pass among the sequences: the newest token of each running text first, parts of prompts in what is left. */
  #divide(): { members: Active<S>[]; items: LoopPassItem<S>[] } {
    const members: Active<S>[] = [], items: LoopPassItem<S>[] = [];
    let roomTokens = this.#engine.plan.passTokens;
    const runsFirst = (active: Active<S>): number => active.generation.tokenIds.length > 0 ? 0 : 1;
    for (const active of this.#active.toSorted((a, b) => runsFirst(a) - runsFirst(b))) {
      if (roomTokens === 0) break;
      const { generation, sequence, pending } = active;
      // A prompt that is read as a whole waits for a pass with room for it.
      if (this.#engine.config.blankFilling && pending.length > roomTokens) continue;
      const tokens = pending.slice(0, roomTokens);
      roomTokens -= tokens.length;
      members.push(active);
      items.push({
        sequence,
        tokens,
        logits: tokens.length === pending.length ? "last" : "none",
        output: this.#outputFor(generation),
        ...(generation.tokenIds.length === 0 ? { ropeSpanTokens: generation.request.promptIds.length } : {}),
      });
    }
    // Those that found no room come first next time.
    if (members.length < this.#active.length) {
      this.#active = [...this.#active.filter((active) => !members.includes(active)), ...members];
    }
    return { members, items };
  }

  /** Returns the least that a pass has to return for a generation. */
  #outputFor({ sampler }: LoopGeneration): LoopPassItem<S>["output"] {
    if (sampler.isArgmax) return "argmax";
    const needed = sampler.likeliestNeeded, { prefersTopK, config: { vocabSize } } = this.#engine;
    return prefersTopK && needed !== undefined && needed <= Math.min(MOST_TOP_K, vocabSize) ? { topK: needed } : "logits";
  }

  async #advance(): Promise<void> {
    const { members, items } = this.#divide();
    const abort = new AbortController();
    this.#pass = { members, abort };
    const expectAnother = this.#waiting.some((generation) => !generation.ended) || members.length < this.#active.length ||
      members.some(({ generation }, i) => items[i].logits === "none" || !generation.nextIsLast);
    try {
      const outputs = await this.#engine.pass(items, { expectAnother, signal: abort.signal });
      const clock = { nowMs: performance.now(), bytesRead: this.#engine.statistics.bytesRead };
      for (const [i, active] of members.entries()) {
        const { generation } = active;
        if (generation.ended) continue;
        generation.passes++;
        if (items[i].logits === "none") {
          active.pending = active.pending.slice(items[i].tokens.length);
          continue;
        }
        try {
          const chosen = choose(generation.sampler, outputs[i]);
          const tokenId = typeof chosen === "number" ? chosen : await chosen;
          if (generation.ended) continue;
          generation.add(tokenId, clock);
          active.pending = [tokenId];
        } catch (error) {
          generation.fail(error);
        }
      }
    } catch (error) {
      for (const { generation } of members) generation.fail(error);
    } finally {
      this.#pass = undefined;
      // At once, so that whoever waits for a text finds its memory free.
      this.#leave();
    }
  }
}
