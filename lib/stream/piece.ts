/**
 * Cuts what is to be read into reads.
 * @module
 */
/** One read. */
export interface Piece {
  /** Index of the file. */
  file: number;
  position: number;
  target: Uint8Array<ArrayBuffer>;
  /** Called once the bytes are there. */
  done(): void;
}

/** A run of bytes that is read in pieces. */
export interface Run {
  /** Index of the file. */
  file: number;
  position: number;
  bytes: number;
  /** Returns where a part of it goes. */
  target(start: number, bytes: number): Uint8Array<ArrayBuffer>;
  /** Called for every piece once its bytes are there. */
  done(bytes: number): void;
}

/** Cuts runs into reads of at most `pieceBytes`. */
export class PieceCutter {
  #run: Run | undefined;
  #cutBytes = 0;
  readonly #nextRun: () => Run | undefined;
  readonly #pieceBytes: number;

  constructor(nextRun: () => Run | undefined, pieceBytes: number) {
    this.#nextRun = nextRun;
    this.#pieceBytes = pieceBytes;
  }

  /** Returns the next read, or undefined while there is no run. */
  next(): Piece | undefined {
    if (!this.#run) {
      this.#run = this.#nextRun();
      this.#cutBytes = 0;
      if (!this.#run) return undefined;
    }
    const run = this.#run, start = this.#cutBytes;
    const bytes = Math.min(this.#pieceBytes, run.bytes - start);
    this.#cutBytes += bytes;
    if (this.#cutBytes === run.bytes) this.#run = undefined;
    return {
      file: run.file,
      position: run.position + start,
      target: run.target(start, bytes),
      done: () => run.done(bytes),
    };
  }

  /** Forgets the rest of the run. */
  reset(): void {
    this.#run = undefined;
  }
}
