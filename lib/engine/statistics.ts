/**
 * What an engine has done so far.
 * @module
 */

/** Totals over passes of one kind. */
export interface PassTotals {
  /** Passes over the weights. */
  passes: number;
  /** Tokens of all sequences. */
  tokens: number;
  /** Seconds in passes. */
  seconds: number;
  /** Bytes read from disk while they ran, embedding rows included. */
  bytesRead: number;
  /**
   * Seconds in which weights were waited for, be it for the disk or, with the slots full, for earlier computing; little of it says that the disk
   * keeps up, much does not say that it does not.
   */
  stallSeconds: number;
}

/** What an engine has done since it opened. */
export interface EngineStatistics {
  /** Passes over the weights. */
  passes: number;
  /** Tokens of all sequences. */
  tokens: number;
  /** Bytes read from disk in the whole run: loading, streaming (read ahead included) and embedding rows. */
  bytesRead: number;
  /** Seconds that opening took. */
  openSeconds: number;
  /** Passes in which some sequence brought several tokens. */
  prefill: PassTotals;
  /** Passes in which every sequence brought one token. */
  decode: PassTotals;
  /** Bytes read a second during decode passes; 0 before the first. */
  readBytesPerSecond: number;
  /** Largest resident set of the process. */
  peakRssBytes: number;
  /** Most device memory taken, of a device with memory of its own: what was reserved at open; else 0. */
  peakVramBytes: number;
}

/** Returns totals of nothing. */
export function noTotals(): PassTotals {
  return { passes: 0, tokens: 0, seconds: 0, bytesRead: 0, stallSeconds: 0 };
}
