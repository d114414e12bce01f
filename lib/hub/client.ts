/**
 * Requests to the hub: authorised, retried, and with errors that say what to do.
 *
 * Written here rather than taken from `@huggingface/hub`: of that library two calls would be of use, and they refuse tokens that do not begin with
 * `hf_`, lose the header that says why a request failed, and bring three packages.
 * @module
 */
import { type AirkernError, HubError } from "../errors.ts";
import { askedPauseMs, DEFAULT_RETRY_POLICY, PassingFailure, retry, type RetryPolicy } from "./retry.ts";
import type { HubSettings } from "./settings.ts";

/** More than any chain of real redirects: renamed repository, then content network. */
const MAX_REDIRECTS = 8;

/** A listing is some 200 bytes a file; beyond this it is not one. */
const MAX_JSON_BYTES = 256 * 1024 * 1024;

/** Statuses that may be gone at the next attempt. */
const PASSING_STATUSES = [408, 425, 429, 500, 502, 503, 504];

const USER_AGENT = "airkern/0.1.0";

/** An answer whose body is still to be read. */
export interface HubResponse {
  response: Response;
  /** Where it came from, after redirects. */
  url: string;
  /** Must be called whenever bytes arrive, and `stop` at the end: a silent connection is cut. */
  watchdog: Watchdog;
}

/** Aborts a request after a time without a byte, or with its caller's signal. */
class Watchdog implements Disposable {
  readonly #abort = new AbortController();
  readonly #idleMs: number;
  readonly #outer: AbortSignal | undefined;
  readonly #onAbort = () => this.#abort.abort();
  #timer: ReturnType<typeof setTimeout> | undefined;
  /** Whether the time ran out. */
  expired = false;

  constructor(idleMs: number, outer: AbortSignal | undefined) {
    this.#idleMs = idleMs;
    this.#outer = outer;
    if (outer?.aborted) this.#abort.abort();
    outer?.addEventListener("abort", this.#onAbort);
    this.feed();
  }

  get signal(): AbortSignal {
    return this.#abort.signal;
  }

  /** Starts the time anew. */
  feed(): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      this.expired = true;
      this.#abort.abort();
    }, this.#idleMs);
  }

  [Symbol.dispose](): void {
    clearTimeout(this.#timer);
    this.#outer?.removeEventListener("abort", this.#onAbort);
    this.#abort.abort();
  }
}

/** Makes requests about one model to one endpoint. */
export class HubClient {
  readonly settings: HubSettings;
  readonly #id: string;
  readonly signal: AbortSignal | undefined;
  readonly #policy: RetryPolicy;

  constructor(settings: HubSettings, id: string, options: { signal?: AbortSignal; retryPolicy?: Partial<RetryPolicy> } = {}) {
    this.settings = settings;
    this.#id = id;
    this.signal = options.signal;
    this.#policy = { ...DEFAULT_RETRY_POLICY, ...options.retryPolicy };
  }

  /** Runs an attempt as often as the policy says. */
  retry<T>(subject: string, attempt: () => Promise<T>): Promise<T> {
    return retry(subject, this.#policy, this.signal, attempt);
  }

  /**
   * Sends one request and returns the answer, once. Redirects are followed here, since the token may go to the endpoint alone.
   *
   * @throws {PassingFailure} where another attempt may succeed.
   * @throws {HubError} for a redirect that leads nowhere.
   */
  async send(url: string, headers: Record<string, string> = {}): Promise<HubResponse> {
    const { endpoint, token, idleTimeoutMs } = this.settings;
    const watchdog = new Watchdog(idleTimeoutMs, this.signal);
    try {
      for (let hop = 0; hop <= MAX_REDIRECTS; hop++) {
        const own = new URL(url).origin === new URL(endpoint).origin;
        const response = await fetch(url, {
          redirect: "manual",
          signal: watchdog.signal,
          headers: {
            ...headers,
            "user-agent": USER_AGENT,
            // Ranges and hashes are of the bytes themselves.
            "accept-encoding": "identity",
            ...(own && token !== undefined ? { authorization: `Bearer ${token}` } : {}),
          },
        });
        const location = response.status >= 300 && response.status < 400 ? response.headers.get("location") : null;
        if (location === null) return { response, url, watchdog };
        await response.body?.cancel();
        watchdog.feed();
        const next = new URL(location, url);
        if (next.protocol !== "https:" && next.protocol !== new URL(url).protocol) {
          throw new HubError(`Cannot follow ${url}: it leads to ${next.protocol}//${next.host}, required https`, "content");
        }
        url = next.href;
      }
      throw new HubError(`Cannot follow ${url}: more than ${MAX_REDIRECTS} redirects`, "content");
    } catch (error) {
      watchdog[Symbol.dispose]();
      throw this.failure(error, watchdog);
    }
  }

  /** Turns what a request or its body threw into a failure that is tried again, unless it is one of ours. */
  failure(error: unknown, watchdog: Watchdog, progressed = false): unknown {
    if (error instanceof HubError || error instanceof PassingFailure) return error;
    const seconds = this.settings.idleTimeoutMs / 1000;
    const reason = watchdog.expired ? `no answer within ${seconds} s` : `the connection failed (${reasonOf(error)})`;
    return new PassingFailure(reason, { progressed });
  }

  /**
   * Returns the error for an answer that is none of use, after its body was dropped.
   *
   * @param subject What was asked for: `model org/name`.
   */
  async refusal({ response, watchdog }: HubResponse, subject: string): Promise<PassingFailure | AirkernError> {
    const { status, headers } = response;
    await response.body?.cancel().catch(() => {});
    watchdog[Symbol.dispose]();
    if (PASSING_STATUSES.includes(status)) {
      const reason = status === 429 ? "the server has had too many requests (429)" : `the server failed (${status})`;
      return new PassingFailure(reason, { afterMs: askedPauseMs(headers, Date.now()) });
    }
    return refusalError(status, headers, subject, this.#id, this.settings);
  }

  /**
   * Asks the hub's API and returns parsed JSON with the answer's headers.
   *
   * @throws {HubError} where the hub refuses, fails, or gives no JSON.
   */
  async json(url: string, subject: string): Promise<{ value: unknown; headers: Headers }> {
    return await this.retry(`look up ${subject} on ${this.settings.endpoint}`, async () => {
      const answer = await this.send(url, { accept: "application/json" });
      if (!answer.response.ok) throw await this.refusal(answer, subject);
      const text = new TextDecoder().decode(await this.#body(answer, subject));
      try {
        return { value: JSON.parse(text), headers: answer.response.headers };
      } catch {
        throw new HubError(
          `Cannot look up ${subject}: ${url} gave no JSON; is ${this.settings.endpoint} a model hub?`,
          "content",
        );
      }
    });
  }

  async #body({ response, watchdog }: HubResponse, subject: string): Promise<Uint8Array> {
    const parts: Uint8Array[] = [];
    let bytes = 0;
    try {
      for await (const part of response.body ?? []) {
        watchdog.feed();
        parts.push(part);
        bytes += part.length;
        if (bytes > MAX_JSON_BYTES) {
          throw new HubError(`Cannot look up ${subject}: the answer is above ${MAX_JSON_BYTES} bytes`, "content");
        }
      }
    } catch (error) {
      throw this.failure(error, watchdog);
    } finally {
      watchdog[Symbol.dispose]();
    }
    const whole = new Uint8Array(bytes);
    parts.reduce((at, part) => (whole.set(part, at), at + part.length), 0);
    return whole;
  }
}

/** Returns the shortest text that says why a fetch failed: Deno nests it in causes. */
function reasonOf(error: unknown): string {
  let inner = error as Error;
  while (inner.cause instanceof Error) inner = inner.cause;
  return (inner.message ?? String(inner)).split("\n")[0];
}

/** Returns the error for a status that will not change by itself. The hub says more in `X-Error-Code` (huggingface_hub's `_http.py`). */
function refusalError(
  status: number,
  headers: Headers,
  subject: string,
  id: string,
  { endpoint, token, tokenSource }: HubSettings,
): HubError {
  const code = headers.get("x-error-code");
  const message = headers.get("x-error-message");
  const login = "set HF_TOKEN or log in with `hf auth login`";
  if (code === "GatedRepo" || (status === 403 && /gated|access/i.test(message ?? "") && code !== "RepoNotFound")) {
    const how = token === undefined
      ? `accept its terms on ${endpoint}/${id}, then ${login}`
      : `accept its terms on ${endpoint}/${id} as the owner of the token (${tokenSource})`;
    return new HubError(`Cannot download ${subject}: it is gated; ${how}`, "gated");
  }
  if (code === "RevisionNotFound") return new HubError(`Cannot find ${subject}: the repository has no such revision`, "revision");
  if (code === "EntryNotFound") return new HubError(`Cannot find ${subject}: the repository has no such file`, "file");
  if (status === 401 && token !== undefined && code !== "RepoNotFound") {
    return new HubError(`Cannot read ${subject}: ${endpoint} does not accept the token of ${tokenSource}`, "token");
  }
  if (code === "RepoNotFound" || status === 401 || status === 404) {
    const how = token === undefined ? `; if it is private, ${login}` : ` that the token of ${tokenSource} may see`;
    return new HubError(`Cannot find ${subject}: ${endpoint} has no such repository${how}`, "repository");
  }
  if (status === 403) {
    const whose = token === undefined ? `without a token; ${login}` : `with the token of ${tokenSource}`;
    return new HubError(`Cannot read ${subject}: ${endpoint} forbids it ${whose}${message ? ` (${message})` : ""}`, "token");
  }
  return new HubError(`Cannot read ${subject}: ${endpoint} answered ${status}${message ? ` (${message})` : ""}`, "content");
}
