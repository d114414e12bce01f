/**
 * Reads ranges of a repository's file, each whole or not at all.
 * @module
 */
import { HubError } from "../errors.ts";
import type { HubClient, HubResponse } from "./client.ts";
import { fileUrl, type RemoteFile } from "./repository.ts";
import { PassingFailure } from "./retry.ts";

/** Reads of one file at one commit. Large files lie elsewhere, behind a redirect to a signed address, which is asked for once. */
export class RemoteRanges {
  readonly file: RemoteFile;
  readonly #client: HubClient;
  readonly #subject: string;
  readonly #url: string;
  /** The address behind the redirect; forgotten when it is refused, since signatures expire. */
  #location: string | undefined;

  constructor(client: HubClient, id: string, commit: string, file: RemoteFile) {
    this.file = file;
    this.#client = client;
    this.#subject = `${file.path} of model ${id}`;
    this.#url = fileUrl(client.settings.endpoint, id, commit, file.path);
  }

  /**
   * Fills `into` from a position of the file. A connection that is cut goes on at the byte where it was.
   *
   * @throws {HubError} where the hub refuses, fails for good, or has another file. @throws {CancelledError} after the signal.
   */
  async read(position: number, into: Uint8Array): Promise<void> {
    let got = 0;
    await this.#client.retry(`download ${this.#subject}`, async () => {
      const before = got;
      const answer = await this.#request(position + got, position + into.length - 1);
      const { response, watchdog } = answer;
      try {
        for await (const part of response.body ?? []) {
          watchdog.feed();
          if (part.length > into.length - got) throw this.#other(`more bytes than were asked for`);
          into.set(part, got);
          got += part.length;
        }
      } catch (error) {
        throw this.#client.failure(error, watchdog, got > before);
      } finally {
        watchdog[Symbol.dispose]();
      }
      if (got < into.length) throw new PassingFailure("the connection was cut", { progressed: got > before });
    });
  }

  /** Sends the request for an inclusive range and checks that the answer is that range of that file. */
  async #request(first: number, last: number): Promise<HubResponse> {
    const { bytes } = this.file;
    const whole = first === 0 && last === bytes - 1;
    const known = this.#location;
    const answer = await this.#client.send(known ?? this.#url, whole ? {} : { range: `bytes=${first}-${last}` });
    const { response, url } = answer;
    const expected = last - first + 1;
    if (response.status === 206 || (response.status === 200 && whole)) {
      const range = response.headers.get("content-range"), length = response.headers.get("content-length");
      const fault = range !== null && range !== `bytes ${first}-${last}/${bytes}`
        ? `range ${range}, asked for bytes ${first}-${last}/${bytes}`
        : response.status === 206 && range === null
        ? "no Content-Range"
        : length !== null && Number(length) !== expected
        ? `${length} bytes, required ${expected}`
        : undefined;
      if (fault === undefined) {
        if (url !== this.#url) this.#location = url;
        return answer;
      }
      await drop(answer);
      throw this.#other(fault);
    }
    if (known !== undefined && !response.ok) {
      this.#location = undefined;
      if (response.status < 500 && response.status !== 429) {
        await drop(answer);
        throw new PassingFailure(`its address was refused (${response.status})`);
      }
    }
    if (!response.ok) throw await this.#client.refusal(answer, this.#subject);
    await drop(answer);
    throw this.#other(`status ${response.status} for a range; a server that gives none cannot be used`);
  }

  #other(reason: string): HubError {
    return new HubError(`Cannot download ${this.#subject}: the server gave ${reason}`, "content");
  }
}

async function drop({ response, watchdog }: HubResponse): Promise<void> {
  await response.body?.cancel().catch(() => {});
  watchdog[Symbol.dispose]();
}
