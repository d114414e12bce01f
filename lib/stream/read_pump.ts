/**
 * Keeps a number of reads in flight.
 * @module
 */
import type { DirectFiles } from "./direct_file.ts";
import type { Piece } from "./piece.ts";

/** Reads in flight. Each holds one of the 32 threads of Deno's pool. */
export const READ_DEPTH = 16;

/**
 * Bytes of one read. What is in flight should fit the processor's cache together with the extents being computed on; smaller reads than
 * this only cost more of the event loop, which takes some 30 us for each.
 */
export const READ_PIECE_BYTES: number = 1024 * 1024;

/** Pulls pieces from a source and reads them, `depth` at a time. */
export class ReadPump {
  readonly #files: DirectFiles;
  readonly #depth: number;
  readonly #next: () => Piece | undefined;
  readonly #failed: (error: unknown) => void;
  #inFlight = 0;
  #bytesRead = 0;
  #busyMs = 0;
  #busySinceMs = 0;
  #idle: PromiseWithResolvers<void> | undefined;

  /** `next` returns undefined while there is nothing to read; `failed` hears of every read that failed, and of what
   * `done` throws. Nothing is read before {@linkcode start}. */
  constructor(files: DirectFiles, depth: number, next: () => Piece | undefined, failed: (error: unknown) => void) {
    this.#files = files;
    this.#depth = depth;
    this.#next = next;
    this.#failed = failed;
  }

  /** Bytes of all finished reads. */
  get bytesRead(): number {
    return this.#bytesRead;
  }

  /** Time in which at least one read was in flight. */
  get busyMs(): number {
    return this.#busyMs + (this.#inFlight > 0 ? performance.now() - this.#busySinceMs : 0);
  }

  /** Starts reads up to the depth, as far as the source has pieces. To be called when it has new ones. */
  start(): void {
    while (this.#inFlight < this.#depth) {
      const piece = this.#next();
      if (!piece) return;
      if (this.#inFlight++ === 0) this.#busySinceMs = performance.now();
      this.#files.read(piece.file, piece.target, piece.position).then(
        () => {
          this.#bytesRead += piece.target.length;
          this.#settle();
          piece.done();
          this.start();
        },
        (error) => {
          this.#settle();
          this.#failed(error);
        },
      ).catch(this.#failed);
    }
  }

  #settle(): void {
    if (--this.#inFlight > 0) return;
    this.#busyMs += performance.now() - this.#busySinceMs;
    this.#idle?.resolve();
    this.#idle = undefined;
  }

  /** Waits until no read is in flight. The source must have run dry, or reads follow each other without end. */
  async idle(): Promise<void> {
    while (this.#inFlight > 0) await (this.#idle ??= Promise.withResolvers<void>()).promise;
  }
}
