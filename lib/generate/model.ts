/**
 * An open model: its engine, its tokenizer and the loop that generates text with them.
 * @module
 */
import type { Engine } from "../engine/engine.ts";
import type { DeviceDescription } from "../engine/engine.ts";
import type { Plan } from "../memory/plan.ts";
import type { ModelConfig } from "../models/architecture.ts";
import type { Sequence } from "../engine/sequence.ts";
import type { EngineStatistics } from "../engine/statistics.ts";
import { UsageError } from "../errors.ts";
import type { Tokenizer } from "../tokenizer/tokenizer.ts";
import type { Generation, GenerationStatistics } from "./generation.ts";
import { GenerationLoop } from "./loop.ts";
import type { SamplingOptions } from "./sampler.ts";
import type { FinishReason } from "./stopping.ts";

/** Tokens that are generated where a caller names no number. */
export const DEFAULT_MAX_NEW_TOKENS = 128;

/** How text is generated. */
export interface GenerateOptions extends SamplingOptions {
  /** Most tokens to add to a prompt. Default: 128. */
  maxNewTokens?: number;
  /** Strings that end the text; they are not part of it. */
  stop?: string | readonly string[];
  /** Tokens that end the text instead of the model's own; an empty list for none. */
  eosTokenId?: number | readonly number[];
  /** Stops the generation. */
  signal?: AbortSignal;
}

/** What {@linkcode Model.generate} returns; each list is in the order of the prompts. */
export interface GenerateOutput {
  /** The tokens of each prompt and of what was generated after it, an end-of-text token included. */
  sequences: number[][];
  /** The generated text alone, without special tokens and stop strings. */
  texts: string[];
  /** Why each text ended. */
  finishReasons: FinishReason[];
  /** Measures of each generation. */
  statistics: GenerationStatistics[];
}

/** A model that is ready to generate. Made by `AutoModel.fromPretrained`; disposing of it frees its memory. */
export class Model implements AsyncDisposable {
  /** Turns text into tokens and back. */
  readonly tokenizer: Tokenizer;
  readonly #engine: Engine;
  readonly #loop: GenerationLoop<Sequence>;

  /** @ignore Made by `AutoModel.fromPretrained`. */
  constructor(engine: Engine, tokenizer: Tokenizer, maxSequences: number) {
    this.#engine = engine;
    this.tokenizer = tokenizer;
    this.#loop = new GenerationLoop(engine, { maxSequences });
  }

  /** Sizes of the model. */
  get config(): ModelConfig {
    return this.#engine.config;
  }

  /** What stays in memory, what streams from disk, and how the memory is divided. */
  get plan(): Plan {
    return this.#engine.plan;
  }

  /** The device that computes. */
  get device(): DeviceDescription {
    return this.#engine.description;
  }

  /** What the model has done since it was opened. */
  get statistics(): EngineStatistics {
    return this.#engine.statistics;
  }

  /**
   * Generates a continuation of each prompt. All prompts share every pass over the model, and each gets the text that it would get alone:
   * where a seed is given, each draws its own numbers from it.
   *
   * @param inputIds tokens of one or several prompts, as `model.tokenizer(texts).inputIds`.
   * @throws {UsageError} for an empty prompt, one that does not fit the context, or options out of range.
   * @throws {CancelledError} after the signal.
   */
  async generate(inputIds: readonly (readonly number[])[], options: GenerateOptions = {}): Promise<GenerateOutput> {
    const generations: Generation[] = [];
    try {
      for (const promptIds of inputIds) generations.push(this.submit(promptIds, options));
      const results = await Promise.all(generations.map((generation) => generation.done));
      return {
        sequences: results.map(({ tokenIds }, i) => [...inputIds[i], ...tokenIds]),
        texts: results.map(({ text }) => text),
        finishReasons: results.map(({ finishReason }) => finishReason),
        statistics: results.map(({ statistics }) => statistics),
      };
    } finally {
      // Where one of them fails, nobody will read the others.
      for (const generation of generations) generation.cancel();
    }
  }

  /**
   * Generates a continuation of a prompt and gives out its text as it comes. The pieces are whole characters; leaving the iteration stops the
   * generation.
   *
   * @param prompt a text, in which special tokens are ordinary text, or tokens.
   * @throws {UsageError} as {@linkcode generate}. @throws {CancelledError} after the signal.
   */
  async *stream(prompt: string | readonly number[], options: GenerateOptions = {}): AsyncGenerator<string, void, void> {
    for await (const { text } of this.submit(prompt, options)) if (text !== "") yield text;
  }

  /**
   * Starts a generation and returns at once. The result gives its steps when iterated over, and all of it at `done`. Any number of them may
   * run at a time; they join between passes.
   *
   * @throws {UsageError} as {@linkcode generate}.
   */
  submit(prompt: string | readonly number[], options: GenerateOptions = {}): Generation {
    if (prompt === "") throw new UsageError("Cannot generate from an empty prompt: required at least one character");
    const { maxNewTokens = DEFAULT_MAX_NEW_TOKENS, stop = [], eosTokenId = this.tokenizer.eosTokenIds, signal, ...sampling } =
      options;
    return this.#loop.submit({
      promptIds: typeof prompt === "string" ? this.tokenizer.encode(prompt) : prompt,
      maxNewTokens,
      sampling,
      eosTokenIds: typeof eosTokenId === "number" ? [eosTokenId] : eosTokenId,
      detokenizer: this.tokenizer.detokenizer({ continuation: true }),
      stopStrings: typeof stop === "string" ? [stop] : stop,
      signal,
    });
  }

  /** Cancels what is being generated, waits for the pass under way to stop, and frees the model's memory. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#loop[Symbol.asyncDispose]();
    await this.#engine[Symbol.asyncDispose]();
  }
}
