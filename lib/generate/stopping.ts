/**
 * Ends a generated text: at a stop string, an end-of-text token, a number of tokens, or the end of the context.
 * @module
 */
import { UsageError } from "../errors.ts";

/** Why a text ended: an end-of-text token or a stop string, as many tokens as asked for, or a full context. */
export type FinishReason = "stop" | "length" | "context";

/**
 * Finds stop strings in a text that comes in pieces. Text is held back only while it may be the start of a stop string; which text comes
 * out does not depend on where the pieces end.
 */
export class StopStrings {
  readonly #stops: readonly string[];
  #held = "";
  #found = false;

  /** @throws {UsageError} for an empty stop string, which would end every text before it starts. */
  constructor(stops: readonly string[]) {
    if (stops.includes("")) throw new UsageError("Cannot stop at an empty string: required at least one character");
    this.#stops = stops;
  }

  /** Whether a stop string was found; no text comes out after that. */
  get found(): boolean {
    return this.#found;
  }

  /** Takes a piece and returns the text that is now certain to come before any stop string. */
  push(piece: string): string {
    if (this.#found) return "";
    const text = this.#held + piece;
    // The stop string that is complete first counts, as if the text came character by character; of several, the one that began first.
    let start = -1, end = Infinity;
    for (const stop of this.#stops) {
      const at = text.indexOf(stop);
      if (at < 0) continue;
      if (at + stop.length < end || (at + stop.length === end && at < start)) {
        start = at;
        end = at + stop.length;
      }
    }
    if (start >= 0) {
      this.#found = true;
      this.#held = "";
      return text.slice(0, start);
    }
    const heldLength = Math.max(0, ...this.#stops.map((stop) => overlap(text, stop)));
    this.#held = text.slice(text.length - heldLength);
    return text.slice(0, text.length - heldLength);
  }

  /** Returns the text held back, when no more comes. */
  flush(): string {
    const text = this.#held;
    this.#held = "";
    return text;
  }
}

/** Returns the length of the longest end of the text that a stop string starts with, without being complete. */
function overlap(text: string, stop: string): number {
  for (let length = Math.min(text.length, stop.length - 1); length > 0; length--) {
    if (text.endsWith(stop.slice(0, length))) return length;
  }
  return 0;
}
