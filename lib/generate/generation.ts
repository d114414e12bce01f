/**
 * One text being generated: what its caller reads, and what the loop adds to it.
 * @module
 */
import { CancelledError } from "../errors.ts";
import { type FinishReason, StopStrings } from "./stopping.ts";
import { Sampler, type SamplingOptions } from "./sampler.ts";

/** What a text is generated from. */
export interface GenerationRequest {
  /** Tokens of the prompt, at least one. */
  promptIds: readonly number[];
  /** Most tokens to add. */
  maxNewTokens: number;
  sampling?: SamplingOptions;
  /** Tokens that end the text. */
  eosTokenIds?: readonly number[];
  /** Turns tokens into text; without it there is no text, and no stop string is found. */
  detokenizer?: { push(id: number): string; flush(): string };
  /** Strings that end the text before they come. */
  stopStrings?: readonly string[];
  /** Stops the generation; what was generated until then is kept. */
  signal?: AbortSignal;
}

/** What one step added. */
export interface GenerationStep {
  /** The new token; undefined where a cancelled generation gives out text it held back. */
  tokenId: number | undefined;
  /** Text that is now certain: possibly empty, as when a character or a stop string may be incomplete. */
  text: string;
}

/** Measures of one generation. */
export interface GenerationStatistics {
  promptTokens: number;
  generatedTokens: number;
  /** Passes over the model that this text took part in. */
  passes: number;
  /** Seconds from the request to the first token. */
  ttftSeconds: number | null;
  /** Seconds from the first token to the last. */
  decodeSeconds: number;
  /** Mean seconds from one token to the next, null before the second token. */
  secondsPerToken: number | null;
  /** Bytes of weights read from disk from the first token to the last. */
  decodeBytesRead: number;
}

/** A finished generation. */
export interface GenerationResult {
  /** The new tokens, an end-of-text token included. */
  tokenIds: number[];
  text: string;
  finishReason: FinishReason;
  statistics: GenerationStatistics;
}

/** What the loop reads off its engine for a generation's statistics. */
export interface EngineClock {
  nowMs: number;
  bytesRead: number;
}

/** A text being generated. Iterating over it gives each step as it comes; leaving the iteration early cancels it. */
export class Generation implements AsyncIterable<GenerationStep> {
  readonly request: GenerationRequest;
  /** Resolves when the text is complete; rejects when it failed or was cancelled. */
  readonly done: Promise<GenerationResult>;
  readonly tokenIds: number[] = [];
  /** All text given out so far. */
  text = "";
  finishReason: FinishReason | undefined;
  passes = 0;
  readonly sampler: Sampler;

  readonly #stopStrings: StopStrings;
  readonly #eosTokenIds: ReadonlySet<number>;
  readonly #maxTokens: number;
  readonly #contextTokens: number;
  readonly #onCancel: () => void;
  readonly #submittedMs: number;
  #first: EngineClock | undefined;
  #last: EngineClock | undefined;
  #steps: GenerationStep[] = [];
  #error: unknown;
  #ended = false;
  #wake: (() => void) | undefined;
  #settle!: { resolve(result: GenerationResult): void; reject(error: unknown): void };
  readonly #abort = (): void => this.cancel();

  /**
   * Made by the loop.
   *
   * @throws {UsageError} for sampling options out of range or an empty stop string.
   */
  constructor(request: GenerationRequest, contextTokens: number, nowMs: number, onCancel: () => void) {
    this.request = request;
    this.sampler = new Sampler(request.sampling ?? {}, request.promptIds);
    this.#stopStrings = new StopStrings(request.stopStrings ?? []);
    this.#eosTokenIds = new Set(request.eosTokenIds);
    this.#maxTokens = request.promptIds.length + request.maxNewTokens;
    this.#contextTokens = contextTokens;
    this.#submittedMs = nowMs;
    this.#onCancel = onCancel;
    this.done = new Promise((resolve, reject) => this.#settle = { resolve, reject });
    // Whoever iterates gets the error there; it must not count as unhandled here.
    this.done.catch(() => {});
    request.signal?.addEventListener("abort", this.#abort);
    if (request.signal?.aborted) this.cancel();
  }

  /** Whether the text is complete, failed or cancelled. */
  get ended(): boolean {
    return this.#ended;
  }

  /** Whether a further token would end the text by its number alone. */
  get nextIsLast(): boolean {
    return this.#totalTokens + 1 >= Math.min(this.#maxTokens, this.#contextTokens);
  }

  get #totalTokens(): number {
    return this.request.promptIds.length + this.tokenIds.length;
  }

  /** Adds a token, and ends the text where it is to end. */
  add(tokenId: number, clock: EngineClock): void {
    if (this.#ended) return;
    this.#first ??= clock;
    this.#last = clock;
    this.tokenIds.push(tokenId);
    this.sampler.accept(tokenId);
    let text = this.#stopStrings.push(this.request.detokenizer?.push(tokenId) ?? "");
    if (this.#eosTokenIds.has(tokenId) || this.#stopStrings.found) this.finishReason = "stop";
    else if (this.#totalTokens >= this.#maxTokens) this.finishReason = "length";
    else if (this.#totalTokens >= this.#contextTokens) this.finishReason = "context";
    if (this.finishReason) {
      text += this.#flush();
      // What was held back may complete a stop string at last.
      if (this.#stopStrings.found) this.finishReason = "stop";
    }
    this.#emit({ tokenId, text });
    if (this.finishReason) this.#end();
  }

  /** Ends the text with an error; its reader gets what was held back first. */
  fail(error: unknown): void {
    if (this.#ended) return;
    const text = this.#flush();
    if (text) this.#emit({ tokenId: undefined, text });
    this.#error = error;
    this.#end();
  }

  /** Ends the text where it is. */
  cancel(): void {
    if (this.#ended) return;
    this.fail(new CancelledError("Generation stopped: it was cancelled"));
    this.#onCancel();
  }

  /** Returns the measures so far. */
  get statistics(): GenerationStatistics {
    const first = this.#first, last = this.#last, generatedTokens = this.tokenIds.length;
    const decodeSeconds = first && last ? (last.nowMs - first.nowMs) / 1000 : 0;
    return {
      promptTokens: this.request.promptIds.length,
      generatedTokens,
      passes: this.passes,
      ttftSeconds: first ? (first.nowMs - this.#submittedMs) / 1000 : null,
      decodeSeconds,
      secondsPerToken: generatedTokens > 1 ? decodeSeconds / (generatedTokens - 1) : null,
      decodeBytesRead: first && last ? last.bytesRead - first.bytesRead : 0,
    };
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<GenerationStep, void, void> {
    let read = 0;
    try {
      for (;;) {
        while (read < this.#steps.length) yield this.#steps[read++];
        if (this.#ended) break;
        await new Promise<void>((resolve) => this.#wake = resolve);
      }
      if (this.#error !== undefined) throw this.#error;
    } finally {
      this.cancel();
    }
  }

  /** Returns text that was held back for a character or a stop string that did not come. */
  #flush(): string {
    return this.#stopStrings.push(this.request.detokenizer?.flush() ?? "") + this.#stopStrings.flush();
  }

  #emit(step: GenerationStep): void {
    this.text += step.text;
    this.#steps.push(step);
    this.#wake?.();
  }

  #end(): void {
    this.#ended = true;
    this.request.signal?.removeEventListener("abort", this.#abort);
    if (this.#error !== undefined) this.#settle.reject(this.#error);
    else {
      const { tokenIds, text, statistics } = this;
      this.#settle.resolve({ tokenIds, text, finishReason: this.finishReason!, statistics });
    }
    this.#wake?.();
  }
}
