/**
 * The errors that callers catch. Each message is one line: action, subject, current, required.
 * @module
 */

/** Base class of every error that AirKern raises on purpose; anything else that escapes is a bug. */
export class AirkernError extends Error {
  /** The class's name, in front of the message where an error is printed. */
  override name = "AirkernError";
}

/** A file on disk is not what it should be: damaged, truncated, of an unknown kind. */
export class FormatError extends AirkernError {
  /** The class's name, in front of the message where an error is printed. */
  override name = "FormatError";
}

/** Valid input that this version cannot handle, such as an architecture it does not know. */
export class UnsupportedError extends AirkernError {
  /** The class's name, in front of the message where an error is printed. */
  override name = "UnsupportedError";
}

/** A memory, disk or context budget cannot hold what is asked for. */
export class BudgetError extends AirkernError {
  /** The class's name, in front of the message where an error is printed. */
  override name = "BudgetError";
}

/** A caller's argument or command-line option is wrong. */
export class UsageError extends AirkernError {
  /** The class's name, in front of the message where an error is printed. */
  override name = "UsageError";
}

/** Work was stopped by its caller's signal or by Ctrl-C. */
export class CancelledError extends AirkernError {
  /** The class's name, in front of the message where an error is printed. */
  override name = "CancelledError";
}

/** A native library is missing, does not fit, or reported a failure. */
export class NativeError extends AirkernError {
  /** The class's name, in front of the message where an error is printed. */
  override name = "NativeError";
  /** The airk_status of the failed call, or -1 where the library could not be used at all. */
  readonly status: number;
  /** Makes an error of a failed call. */
  constructor(message: string, status = -1) {
    super(message);
    this.status = status;
  }
}
