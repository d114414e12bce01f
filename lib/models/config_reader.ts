/**
 * Reads values of a config.json, strictly: each is of the right type and range or an error that names its key.
 * @module
 */
import { UnsupportedError } from "../errors.ts";

/** Typed access to one JSON object of a checkpoint's configuration. */
export class ConfigReader {
  readonly #values: Record<string, unknown>;
  readonly #subject: string;

  /** `subject` names the object in errors: `config.json`. */
  constructor(values: Record<string, unknown>, subject: string) {
    this.#values = values;
    this.#subject = subject;
  }

  /** Returns whether a key is there with a value other than null, which Hugging Face writes for "not set". */
  has(key: string): boolean {
    return this.#values[key] !== undefined && this.#values[key] !== null;
  }

  /** The keys that are set. */
  keys(): string[] {
    return Object.keys(this.#values).filter((key) => this.has(key));
  }

  /** The value of a key as it stands. */
  raw(key: string): unknown {
    return this.#values[key];
  }

  /** Returns a reader of the same object with some values changed. */
  with(values: Record<string, unknown>): ConfigReader {
    return new ConfigReader({ ...this.#values, ...values }, this.#subject);
  }

  /** Returns a reader of the same object with values for keys that are not there. */
  withMissing(values: Record<string, unknown>): ConfigReader {
    return new ConfigReader({ ...values, ...this.#values }, this.#subject);
  }

  /**
   * Returns a reader in which keys have values under other names too, as some families' configuration classes give them.
   * @param aliases The other names by the keys that are read.
   * @throws {UnsupportedError} where both are set and differ.
   */
  aliased(aliases: Readonly<Record<string, string>>): ConfigReader {
    const values: Record<string, unknown> = {};
    for (const [key, alias] of Object.entries(aliases)) {
      if (!this.has(alias)) continue;
      if (this.has(key) && this.raw(key) !== this.raw(alias)) throw this.refuse(alias, `the same as ${key} (${this.raw(key)})`);
      values[key] = this.raw(alias);
    }
    return this.with(values);
  }

  /** Makes the error for a value that cannot be used. */
  refuse(key: string, required: string): UnsupportedError {
    const value = this.#values[key];
    const current = value === undefined ? "missing" : JSON.stringify(value);
    return new UnsupportedError(`Cannot use ${this.#subject}: ${key} is ${current}, required ${required}`);
  }

  /** Returns a positive integer. @throws {UnsupportedError} */
  integer(key: string, missing?: number): number {
    if (!this.has(key) && missing !== undefined) return missing;
    const value = this.#values[key];
    if (typeof value !== "number" || !Number.isSafeInteger(value) || value < 1) throw this.refuse(key, "a positive integer");
    return value;
  }

  /** Returns an integer of at least zero. @throws {UnsupportedError} */
  count(key: string, missing: number): number {
    return this.raw(key) === 0 ? 0 : this.integer(key, missing);
  }

  /** Returns a finite number greater than zero. @throws {UnsupportedError} */
  positive(key: string, missing?: number): number {
    if (!this.has(key) && missing !== undefined) return missing;
    const value = this.#values[key];
    if (typeof value !== "number" || !Number.isFinite(value) || value <= 0) throw this.refuse(key, "a number above 0");
    return value;
  }

  /** Returns a list of finite numbers greater than zero. @throws {UnsupportedError} */
  positives(key: string): number[] {
    const value = this.#values[key];
    if (!Array.isArray(value) || value.some((item) => typeof item !== "number" || !Number.isFinite(item) || item <= 0)) {
      throw this.refuse(key, "a list of numbers above 0");
    }
    return value;
  }

  /** Returns a boolean. @throws {UnsupportedError} */
  boolean(key: string, missing: boolean): boolean {
    if (!this.has(key)) return missing;
    const value = this.#values[key];
    if (typeof value !== "boolean") throw this.refuse(key, "true or false");
    return value;
  }

  /** Returns a nested object's reader, or undefined where the key is not set. @throws {UnsupportedError} */
  object(key: string): ConfigReader | undefined {
    if (!this.has(key)) return undefined;
    const value = this.#values[key];
    if (typeof value !== "object" || Array.isArray(value)) throw this.refuse(key, "an object");
    return new ConfigReader(value as Record<string, unknown>, `${key} of ${this.#subject}`);
  }
}
