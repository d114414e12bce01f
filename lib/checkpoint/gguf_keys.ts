/**
 * Reads what a GGUF file's metadata say of its architecture: each key once, so that what is left is not known.
 * @module
 */
import { FormatError, UnsupportedError } from "../errors.ts";
import type { GgufHeader, GgufValue } from "./gguf.ts";

/** Keys of an architecture, without its name, and which tensors the file has. */
export class ArchitectureKeys {
  readonly #left: Map<string, GgufValue>;
  readonly #tensorNames: readonly string[];

  constructor({ metadata, tensors }: GgufHeader, readonly architecture: string, readonly where: string) {
    this.#left = new Map([...metadata].filter(([key]) => key.startsWith(`${architecture}.`)));
    this.#tensorNames = tensors.map(({ name }) => name);
  }

  has(name: string): boolean {
    return this.#left.has(`${this.architecture}.${name}`);
  }

  /** Returns whether some layer has a tensor: `attn_q.bias`. */
  hasTensor(name: string): boolean {
    return this.#tensorNames.some((tensor) => tensor.startsWith("blk.") && tensor.endsWith(`.${name}`));
  }

  take(name: string): GgufValue | undefined {
    const key = `${this.architecture}.${name}`, value = this.#left.get(key);
    this.#left.delete(key);
    return value;
  }

  /** Takes a number, 0 or more where it may be; a list that has one number for all layers is that number. @throws {FormatError} */
  number(name: string, missing?: number, least = Number.MIN_VALUE): number {
    const taken = this.take(name) ?? missing;
    const value = Array.isArray(taken) && taken.length > 0 && taken.every((item) => item === taken[0]) ? taken[0] : taken;
    if (typeof value === "number" && Number.isFinite(value) && value >= least) return value;
    throw new FormatError(
      `Cannot read ${this.where}: ${this.architecture}.${name} is ${JSON.stringify(value)}, required a positive number`,
    );
  }

  /** Takes a number of at least 0 that may be missing. */
  count(name: string): number {
    return this.number(name, 0, 0);
  }

  /** Takes what is true or false. @throws {FormatError} */
  boolean(name: string, missing: boolean): boolean {
    const value = this.take(name) ?? missing;
    if (typeof value === "boolean") return value;
    throw new FormatError(
      `Cannot read ${this.where}: ${this.architecture}.${name} is ${JSON.stringify(value)}, required a boolean`,
    );
  }

  /** Takes a key that may only have one value. @throws {UnsupportedError} */
  only(name: string, known: GgufValue): void {
    const value = this.take(name) ?? known;
    if (value !== known) throw this.#refusal(name, value);
  }

  /** @throws {UnsupportedError} for the first key that was not taken. */
  refuseOthers(): void {
    for (const [key, value] of this.#left) throw this.#refusal(key.slice(this.architecture.length + 1), value);
  }

  #refusal(name: string, value: GgufValue): UnsupportedError {
    const text = JSON.stringify(value), shown = text.length > 100 ? `${text.slice(0, 100)}...` : text;
    return new UnsupportedError(`Cannot use ${this.where}: ${this.architecture}.${name} is ${shown}, which is not supported`);
  }
}
