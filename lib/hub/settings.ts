/**
 * Where the hub is, who asks, and where its files are kept: the environment variables of huggingface_hub (its `constants.py` and
 * `utils/_auth.py`), so that both share one cache and one login.
 * @module
 */
import fs from "node:fs";
import { homedir } from "node:os";
import { join, resolve } from "node:path";
import { FormatError, UsageError } from "../errors.ts";

/** How the hub is reached. */
export interface HubSettings {
  /** URL without a slash at its end: `https://huggingface.co`. */
  endpoint: string;
  /** Sent to the endpoint's own host, never elsewhere. */
  token: string | undefined;
  /** Where the token is from, for messages: `HF_TOKEN`, a file, or undefined. */
  tokenSource: string | undefined;
  /** Directory of the cache, which holds `models--organisation--name`. */
  cacheDirectory: string;
  /** Whether nothing may be asked of the network. */
  offline: boolean;
  /** Time without a byte after which a connection counts as lost. */
  idleTimeoutMs: number;
}

/** What a caller may decide instead of the environment. */
export interface HubOptions {
  /** Access token of the hub. Default: `HF_TOKEN`, else the token file that `hf auth login` writes. */
  token?: string;
  /** Directory of the Hugging Face cache. Default: `HF_HUB_CACHE`, else `hub` in `HF_HOME`, else `~/.cache/huggingface/hub`. */
  cacheDir?: string;
  /** Uses what the cache holds and never the network. Default: whether `HF_HUB_OFFLINE` is set. */
  localFilesOnly?: boolean;
}

const DEFAULT_ENDPOINT = "https://huggingface.co";
const DEFAULT_IDLE_TIMEOUT_MS = 30_000;

type Environment = (name: string) => string | undefined;

function isTrue(value: string | undefined): boolean {
  return value !== undefined && ["1", "ON", "YES", "TRUE"].includes(value.toUpperCase());
}

/** Replaces a leading `~` and `$NAME`s, as Python does with these variables. */
function expandPath(path: string, environment: Environment): string {
  const withVariables = path.replace(
    /\$(?:(\w+)|\{([^}]+)\})/g,
    (whole, plain, braced) => environment(plain ?? braced) ?? whole,
  );
  return resolve(withVariables.replace(/^~(?=\/|$)/, homedir()));
}

/** Reads the token file; line breaks around a token are no part of it. */
function readToken(path: string): string | undefined {
  try {
    return cleanToken(fs.readFileSync(path, "utf8"));
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    throw new FormatError(`Cannot read the token file ${path}: ${(error as Error).message}`);
  }
}

function cleanToken(text: string | undefined): string | undefined {
  return text?.replaceAll(/[\r\n]/g, "").trim() || undefined;
}

function parseEndpoint(text: string): string {
  let url: URL;
  try {
    url = new URL(text);
  } catch {
    throw new UsageError(`Cannot use HF_ENDPOINT ${JSON.stringify(text)}: required a URL such as ${DEFAULT_ENDPOINT}`);
  }
  if (url.protocol !== "https:" && url.protocol !== "http:") {
    throw new UsageError(`Cannot use HF_ENDPOINT ${JSON.stringify(text)}: required an http or https URL`);
  }
  return text.replace(/\/+$/, "");
}

/**
 * Returns the settings of this process.
 *
 * @throws {UsageError} where HF_ENDPOINT is no URL, {FormatError} where a token file is there and cannot be read.
 */
export function hubSettings(options: HubOptions = {}, environment: Environment = (name) => Deno.env.get(name)): HubSettings {
  const variable = (name: string) => environment(name) || undefined;
  const path = (text: string) => expandPath(text, environment);
  const home = path(variable("HF_HOME") ?? join(variable("XDG_CACHE_HOME") ?? "~/.cache", "huggingface"));
  const cacheDirectory = options.cacheDir ?? variable("HF_HUB_CACHE") ?? variable("HUGGINGFACE_HUB_CACHE") ?? join(home, "hub");
  const tokenFile = path(variable("HF_TOKEN_PATH") ?? join(home, "token"));
  const candidates: [token: () => string | undefined, source: string][] = [
    [() => cleanToken(options.token), "the token that was given"],
    [() => cleanToken(variable("HF_TOKEN")), "HF_TOKEN"],
    [() => cleanToken(variable("HUGGING_FACE_HUB_TOKEN")), "HUGGING_FACE_HUB_TOKEN"],
    [() => readToken(tokenFile), tokenFile],
  ];
  // Whoever sets this wants no token sent that was not given for the purpose.
  const usable = isTrue(variable("HF_HUB_DISABLE_IMPLICIT_TOKEN")) ? candidates.slice(0, 1) : candidates;
  let token: string | undefined, tokenSource: string | undefined;
  for (const [read, source] of usable) {
    token = read();
    if (token === undefined) continue;
    if (!/^[\x21-\x7e]+$/.test(token)) {
      throw new UsageError(`Cannot use the token of ${source}: it holds characters that no token has`);
    }
    tokenSource = source;
    break;
  }
  const seconds = Number(variable("HF_HUB_DOWNLOAD_TIMEOUT"));
  return {
    endpoint: parseEndpoint(variable("HF_ENDPOINT") ?? DEFAULT_ENDPOINT),
    token,
    tokenSource,
    cacheDirectory: path(cacheDirectory),
    offline: options.localFilesOnly ?? isTrue(variable("HF_HUB_OFFLINE") ?? variable("TRANSFORMERS_OFFLINE")),
    idleTimeoutMs: seconds > 0 && Number.isFinite(seconds) ? seconds * 1000 : DEFAULT_IDLE_TIMEOUT_MS,
  };
}
