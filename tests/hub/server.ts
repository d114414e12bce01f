/**
 * A model hub on 127.0.0.1: the routes of the real one that are used, with a second server in the part of its content network, and faults on
 * demand.
 */
import { createHash } from "node:crypto";
import http from "node:http";
import type { AddressInfo } from "node:net";

/** One repository. */
export interface HubRepository {
  /** Content by path. */
  files: Map<string, Uint8Array>;
  /** Branches and tags besides the commit itself. */
  revisions?: string[];
  gated?: boolean;
  private?: boolean;
}

/** What goes wrong with one request. */
export type Fault =
  /** An answer instead of the right one. */
  | { status: number; headers?: Record<string, string>; body?: string }
  /** The connection is cut after this many bytes of the body. */
  | { cutAfter: number }
  /** A byte of the body is another. */
  | { corrupt: true }
  /** The body stops after this many bytes, and the connection stays. */
  | { stallAfter: number }
  /** The range is left out of account. */
  | { ignoreRange: true };

/** A request as the server saw it. */
export interface SeenRequest {
  host: "hub" | "content";
  method: string;
  /** Path and query. */
  url: string;
  range: string | undefined;
  authorization: string | undefined;
}

export const TOKEN = "hf_right";
const FILES_PER_PAGE = 5;

/** Returns a function that computes a hash of a content once. */
function once(hash: (content: Uint8Array) => string): (content: Uint8Array) => string {
  const known = new WeakMap<Uint8Array, string>();
  return (content) => {
    let value = known.get(content);
    if (value === undefined) known.set(content, value = hash(content));
    return value;
  };
}

const gitHash = once((content) => createHash("sha1").update(`blob ${content.length}\0`).update(content).digest("hex"));
const sha256 = once((content) => createHash("sha256").update(content).digest("hex"));

/** Returns whether the hub stores a file in LFS: weights and large files. */
function isLarge(path: string): boolean {
  return /\.(safetensors|bin|pth|gguf|model)$/.test(path);
}

/** Returns the commit of a repository: a hash over what it holds. */
export function commitOf({ files }: HubRepository): string {
  const hash = createHash("sha1");
  for (const [path, content] of files) hash.update(`${path} ${gitHash(content)}\n`);
  return hash.digest("hex");
}

export class HubServer implements AsyncDisposable {
  readonly repositories = new Map<string, HubRepository>();
  readonly requests: SeenRequest[] = [];
  /** Called for each request; what it returns goes wrong. */
  fault: (request: SeenRequest) => Fault | undefined = () => undefined;
  /** Time before an answer. */
  delayMs = 0;
  /** Most requests that were answered at a time. */
  mostInFlight = 0;
  #inFlight = 0;
  /** What each repository held when it was last asked for, by commit. */
  readonly #commits = new Map<string, HubRepository>();
  readonly #hub: http.Server;
  readonly #content: http.Server;

  private constructor() {
    this.#hub = http.createServer((request, response) => this.#serve("hub", request, response));
    this.#content = http.createServer((request, response) => this.#serve("content", request, response));
  }

  static async start(): Promise<HubServer> {
    const server = new HubServer();
    for (const part of [server.#hub, server.#content]) {
      await new Promise<void>((resolve) => part.listen(0, "127.0.0.1", resolve));
    }
    return server;
  }

  get endpoint(): string {
    return `http://127.0.0.1:${(this.#hub.address() as AddressInfo).port}`;
  }

  get #contentUrl(): string {
    return `http://127.0.0.1:${(this.#content.address() as AddressInfo).port}`;
  }

  /** Requests for content, in order. */
  get downloads(): SeenRequest[] {
    return this.requests.filter(({ host, url }) => host === "content" || /\/resolve\//.test(url));
  }

  /** Environment of a process that uses this hub and a cache of its own. */
  environment(home: string, extra: Record<string, string> = {}): Record<string, string> {
    const none = [
      "HF_TOKEN",
      "HUGGING_FACE_HUB_TOKEN",
      "HF_HUB_CACHE",
      "HUGGINGFACE_HUB_CACHE",
      "HF_TOKEN_PATH",
      "HF_HUB_OFFLINE",
    ];
    return { ...Object.fromEntries(none.map((name) => [name, ""])), HF_ENDPOINT: this.endpoint, HF_HOME: home, ...extra };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const part of [this.#hub, this.#content]) {
      part.closeAllConnections();
      await new Promise((resolve) => part.close(resolve));
    }
  }

  async #serve(host: SeenRequest["host"], request: http.IncomingMessage, response: http.ServerResponse): Promise<void> {
    const { range, authorization } = request.headers;
    const seen: SeenRequest = { host, method: request.method!, url: request.url!, range, authorization };
    this.requests.push(seen);
    this.mostInFlight = Math.max(this.mostInFlight, ++this.#inFlight);
    try {
      if (this.delayMs > 0) await new Promise((resolve) => setTimeout(resolve, this.delayMs));
      const fault = this.fault(seen);
      if (fault && "status" in fault) {
        response.writeHead(fault.status, fault.headers).end(fault.body ?? "");
        return;
      }
      if (host === "content") this.#serveContent(seen, response, fault);
      else this.#serveHub(seen, response, fault);
    } finally {
      this.#inFlight--;
    }
  }

  #refuse(response: http.ServerResponse, status: number, code: string, message: string): void {
    response.writeHead(status, { "x-error-code": code, "x-error-message": message }).end(message);
  }

  #serveHub(seen: SeenRequest, response: http.ServerResponse, fault: Fault | undefined): void {
    const url = new URL(seen.url, this.endpoint);
    const api = /^\/api\/models\/([^/]+\/[^/]+)\/(revision|tree)\/([^/]+)$/.exec(url.pathname);
    const content = /^\/([^/]+\/[^/]+)\/resolve\/([^/]+)\/(.+)$/.exec(url.pathname);
    const repository = this.repositories.get((api ?? content)?.[1] ?? "");
    if (seen.authorization !== undefined && seen.authorization !== `Bearer ${TOKEN}`) {
      response.writeHead(401, { "x-error-message": "Invalid credentials in Authorization header" }).end();
      return;
    }
    const mayRead = seen.authorization !== undefined;
    // As the real one: without a login it does not say whether a repository exists.
    if (!repository || (repository.private && !mayRead)) {
      return this.#refuse(response, mayRead ? 404 : 401, "RepoNotFound", "Repository not found");
    }
    const commit = commitOf(repository);
    this.#commits.set(commit, { ...repository, files: new Map(repository.files) });
    const revision = decodeURIComponent(api?.[3] ?? content![2]);
    const earlier = this.#commits.get(revision);
    if (!earlier && !["main", ...repository.revisions ?? []].includes(revision)) {
      return this.#refuse(response, 404, "RevisionNotFound", "Invalid rev id");
    }
    if (api?.[2] === "revision") {
      const siblings = [...repository.files.keys()].map((rfilename) => ({ rfilename }));
      this.#send(response, { id: api[1], sha: commit, gated: repository.gated ? "manual" : false, siblings }, fault);
      return;
    }
    if (api) return this.#list(url, earlier ?? repository, response, fault);
    const path = decodeURIComponent(content![3]);
    const bytes = (earlier ?? repository).files.get(path);
    if (!bytes) return this.#refuse(response, 404, "EntryNotFound", "Entry not found");
    if (repository.gated && !mayRead) return this.#refuse(response, 401, "GatedRepo", "Access to model is restricted");
    if (isLarge(path)) {
      const location = `${this.#contentUrl}/${sha256(bytes)}?signature=${this.requests.length}`;
      response.writeHead(302, { location, "x-linked-etag": `"${sha256(bytes)}"`, "x-repo-commit": commit }).end();
      return;
    }
    this.#sendBytes(seen, response, bytes, fault, { etag: `"${gitHash(bytes)}"`, "x-repo-commit": commit });
  }

  #list(url: URL, { files }: HubRepository, response: http.ServerResponse, fault: Fault | undefined): void {
    const folders = [...new Set([...files.keys()].filter((path) => path.includes("/")).map((path) => path.split("/")[0]))];
    const entries: Record<string, unknown>[] = folders.map((path) => ({ type: "directory", oid: "0".repeat(40), size: 0, path }));
    for (const [path, content] of files) {
      const entry = { type: "file", oid: gitHash(content), size: content.length, path };
      entries.push(
        isLarge(path)
          ? { ...entry, oid: "f".repeat(40), lfs: { oid: sha256(content), size: content.length, pointerSize: 134 } }
          : entry,
      );
    }
    const first = Number(url.searchParams.get("cursor") ?? 0);
    const next = new URL(url);
    next.searchParams.set("cursor", String(first + FILES_PER_PAGE));
    if (first + FILES_PER_PAGE < entries.length) response.setHeader("link", `<${next.href}>; rel="next"`);
    this.#send(response, entries.slice(first, first + FILES_PER_PAGE), fault);
  }

  #serveContent(seen: SeenRequest, response: http.ServerResponse, fault: Fault | undefined): void {
    const hash = /^\/([0-9a-f]{64})\?signature=\d+$/.exec(seen.url)?.[1];
    for (const { files } of this.repositories.values()) {
      for (const bytes of files.values()) if (sha256(bytes) === hash) return this.#sendBytes(seen, response, bytes, fault, {});
    }
    response.writeHead(404).end();
  }

  #send(response: http.ServerResponse, value: unknown, fault: Fault | undefined): void {
    const bytes = new TextEncoder().encode(JSON.stringify(value));
    this.#body(response.setHeader("content-type", "application/json"), 200, bytes, fault, {});
  }

  #sendBytes(
    { range }: SeenRequest,
    response: http.ServerResponse,
    bytes: Uint8Array,
    fault: Fault | undefined,
    headers: Record<string, string>,
  ): void {
    const asked = /^bytes=(\d+)-(\d+)$/.exec(range ?? "");
    if (!asked || (fault && "ignoreRange" in fault)) return this.#body(response, 200, bytes, fault, headers);
    const [first, last] = [Number(asked[1]), Math.min(Number(asked[2]), bytes.length - 1)];
    const contentRange = { "content-range": `bytes ${first}-${last}/${bytes.length}` };
    this.#body(response, 206, bytes.subarray(first, last + 1), fault, { ...headers, ...contentRange });
  }

  #body(
    response: http.ServerResponse,
    status: number,
    bytes: Uint8Array,
    fault: Fault | undefined,
    headers: Record<string, string>,
  ): void {
    response.writeHead(status, { ...headers, "content-length": String(bytes.length) });
    if (fault && "cutAfter" in fault) {
      response.write(bytes.subarray(0, fault.cutAfter), () => setTimeout(() => response.destroy(), 5));
    } else if (fault && "stallAfter" in fault) response.write(bytes.subarray(0, fault.stallAfter));
    else if (fault && "corrupt" in fault) {
      const changed = bytes.slice();
      changed[changed.length >> 1] ^= 1;
      response.end(changed);
    } else response.end(bytes);
  }
}
