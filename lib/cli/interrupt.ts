/**
 * Ctrl-C: the first one stops the work cleanly, a second one ends the process.
 * @module
 */
import { CancelledError } from "../errors.ts";

/** Exit code after Ctrl-C, as shells have it: 128 + SIGINT. */
export const INTERRUPTED_EXIT_CODE = 130;

const SIGNALS = ["SIGINT", "SIGTERM"] as const;

/** Turns SIGINT and SIGTERM into an abort signal while it lives. */
export class Interrupt implements Disposable {
  readonly #abort = new AbortController();
  readonly #listener = (): void => {
    if (this.#abort.signal.aborted) Deno.exit(INTERRUPTED_EXIT_CODE);
    this.#abort.abort(new CancelledError("Stopped"));
  };

  constructor() {
    for (const name of SIGNALS) Deno.addSignalListener(name, this.#listener);
  }

  /** Aborted at the first Ctrl-C. */
  get signal(): AbortSignal {
    return this.#abort.signal;
  }

  [Symbol.dispose](): void {
    for (const name of SIGNALS) Deno.removeSignalListener(name, this.#listener);
  }
}
