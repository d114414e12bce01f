/**
 * What an engine has done so far.
 * @module
 */

/** What routing to experts came to; all zero for a model without experts. */
export interface ExpertTotals {
  /** Experts that layers used: each once a layer and pass, however many tokens went to it. */
  used: number;
  /** Those of them that were in memory from earlier passes, all of it. */
  hits: number;
  /** Bytes of the experts used. */
  usedBytes: number;
  /** Bytes of those that were in memory from earlier passes. */
  hitBytes: number;
  /** Bytes of experts that a device with memory of its own got from host memory, foreseen ones that were not used included. */
  copiedBytes: number;
  /** Experts used in layers that were looked ahead to. */
  predictable: number;
  /** Those of them that had been foreseen. */
  predicted: number;
}

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
  /** What routing came to. */
  experts: ExpertTotals;
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
  return { passes: 0, tokens: 0, seconds: 0, bytesRead: 0, stallSeconds: 0, experts: noExperts() };
}

/** Returns the totals of no routing. */
export function noExperts(): ExpertTotals {
  return { used: 0, hits: 0, usedBytes: 0, hitBytes: 0, copiedBytes: 0, predictable: 0, predicted: 0 };
}

/** Adds to totals what they grew by from one moment to another. */
export function addExperts(totals: ExpertTotals, from: ExpertTotals, to: ExpertTotals): void {
  for (const key of Object.keys(totals) as (keyof ExpertTotals)[]) totals[key] += to[key] - from[key];
}

/** Returns the share of the experts' bytes that were found in memory; 0 where none were used. */
export function expertHitRate({ usedBytes, hitBytes }: ExpertTotals): number {
  return usedBytes > 0 ? hitBytes / usedBytes : 0;
}
