/**
 * Tries again what failed for a passing reason, after pauses that grow.
 * @module
 */
import { CancelledError, HubError } from "../errors.ts";

/** Thrown within {@linkcode retry}: the attempt failed, another may not. */
export class PassingFailure extends Error {
  /** Least time to wait, where the server named one. */
  readonly afterMs: number | undefined;
  /** Whether something was gained before it failed, so that the count of failures starts over. */
  readonly progressed: boolean;

  constructor(message: string, options: { afterMs?: number; progressed?: boolean } = {}) {
    super(message);
    this.afterMs = options.afterMs;
    this.progressed = options.progressed ?? false;
  }
}

/** How often and after which pauses. */
export interface RetryPolicy {
  /** Attempts without any progress before giving up. */
  attempts: number;
  /** Pause after the first failure; it doubles with each further one. */
  firstPauseMs: number;
  /** Longest pause of its own choice. */
  longestPauseMs: number;
  /** Longest pause that a server may ask for; a longer one is an error that says so. */
  longestAskedPauseMs: number;
}

/** About two minutes in all before a server that answers nothing is given up. */
export const DEFAULT_RETRY_POLICY: RetryPolicy = {
  attempts: 8,
  firstPauseMs: 500,
  longestPauseMs: 30_000,
  longestAskedPauseMs: 600_000,
};

/** Returns the error of work on the hub that was stopped. */
export function downloadCancelled(): CancelledError {
  return new CancelledError("Downloading was cancelled; what is there is kept, run it again to go on");
}

/** Waits, unless the signal comes first. */
function pause(ms: number, signal: AbortSignal | undefined): Promise<void> {
  return new Promise((resolve, reject) => {
    const onAbort = () => {
      clearTimeout(timer);
      reject(downloadCancelled());
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", onAbort);
      resolve();
    }, ms);
    if (signal?.aborted) onAbort();
    else signal?.addEventListener("abort", onAbort, { once: true });
  });
}

/**
 * Runs `attempt` until it succeeds or fails for good.
 *
 * @param subject What is tried, for messages: `download config.json of org/name`.
 * @throws {HubError} after the last attempt. @throws {CancelledError} after the signal.
 */
export async function retry<T>(
  subject: string,
  policy: RetryPolicy,
  signal: AbortSignal | undefined,
  attempt: () => Promise<T>,
): Promise<T> {
  let failures = 0;
  while (true) {
    if (signal?.aborted) throw downloadCancelled();
    try {
      return await attempt();
    } catch (error) {
      if (signal?.aborted) throw downloadCancelled();
      if (!(error instanceof PassingFailure)) throw error;
      failures = error.progressed ? 1 : failures + 1;
      if (failures >= policy.attempts) {
        throw new HubError(`Cannot ${subject}: ${error.message}, after ${policy.attempts} attempts`, "unreachable");
      }
      if (error.afterMs !== undefined && error.afterMs > policy.longestAskedPauseMs) {
        const minutes = Math.ceil(error.afterMs / 60_000);
        throw new HubError(
          `Cannot ${subject}: ${error.message}; the server asks to wait ${minutes} min, try again then`,
          "unreachable",
        );
      }
      const own = Math.min(policy.longestPauseMs, policy.firstPauseMs * 2 ** (failures - 1));
      // Spread out, so that connections cut together do not all come back together.
      await pause(Math.max(error.afterMs ?? 0, own * (0.5 + Math.random() / 2)), signal);
    }
  }
}

/** Returns the pause that a response asks for: `Retry-After`, seconds or a date, else the reset time of `RateLimit`. */
export function askedPauseMs(headers: Headers, nowMs: number): number | undefined {
  const after = headers.get("retry-after");
  if (after !== null) {
    const seconds = Number(after);
    if (after.trim() !== "" && Number.isFinite(seconds)) return Math.max(0, seconds * 1000);
    const date = Date.parse(after);
    if (!Number.isNaN(date)) return Math.max(0, date - nowMs);
  }
  const reset = /(?:^|;)\s*r=0\s*;\s*t=(\d+)/.exec(headers.get("ratelimit") ?? "");
  return reset ? Number(reset[1]) * 1000 : undefined;
}
