/**
 * The errors that callers catch. Each message is one line: action, subject, current, required.
 * @module
 */

/** Base class of every error that AirKern raises on purpose; anything else that escapes is a bug. */
export class AirkernError extends Error {
  /** Makes an error that is named for its class, with what caused it where that is known. */
  constructor(message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = new.target.name;
  }
}

/** A file on disk is not what it should be: damaged, truncated, of an unknown kind. */
export class FormatError extends AirkernError {}

/** Valid input that this version cannot handle, such as an architecture it does not know. */
export class UnsupportedError extends AirkernError {}

/** A memory, disk or context budget cannot hold what is asked for. */
export class BudgetError extends AirkernError {}

/** A caller's argument or command-line option is wrong. */
export class UsageError extends AirkernError {}

/** Work was stopped by its caller's signal or by Ctrl-C. */
export class CancelledError extends AirkernError {}

/** Why the model hub gave nothing. */
export type HubFault =
  /** No answer, or none but failures, after all tries. */
  | "unreachable"
  /** There is no such repository, or it is private. */
  | "repository"
  /** The repository has no such branch, tag or commit. */
  | "revision"
  /** The repository has no such file. */
  | "file"
  /** The repository's terms must be accepted first. */
  | "gated"
  /** The token is not valid, or has no access. */
  | "token"
  /** What came is not what the hub says it should be. */
  | "content"
  /** The network may not be used and the cache does not have it. */
  | "offline";

/** A model hub refused, could not be reached, or gave something else than it promised. */
export class HubError extends AirkernError {
  /** What kind of failure it was. */
  readonly fault: HubFault;
  /** Makes an error for a fault. */
  constructor(message: string, fault: HubFault, options?: ErrorOptions) {
    super(message, options);
    this.fault = fault;
  }
}

/** A native library is missing, does not fit, or reported a failure. */
export class NativeError extends AirkernError {
  /** The airk_status of the failed call, or -1 where the library could not be used at all. */
  readonly status: number;
  /** Makes an error for a native status. */
  constructor(message: string, status = -1) {
    super(message);
    this.status = status;
  }
}
