/**
 * Values of templates with Python's meaning: what is true, how things compare, and what they look like as text.
 * @module
 */

/** An error of a template's own making: an operation that its values do not have, or `raise_exception`. */
export class TemplateError extends Error {
  override name = "TemplateError";
}

/** A name or member that is not there. It may be tested and printed, and nothing else. */
export class Undefined {
  /** @param forbidden Whether it is there and the sandbox keeps it from templates, of which `what` is the whole message. */
  constructor(readonly what: string, readonly forbidden = false) {}
}

/** A Python float, which prints and divides otherwise than an int. */
export class Float {
  constructor(readonly value: number) {}
}

/** A Python tuple. */
export class Tuple extends Array<Value> {}

/** What `namespace()` gives: attributes that may be assigned. */
export class Namespace {
  readonly attributes = new Map<string, Value>();

  /** @throws {TemplateError} for a name that the sandbox forbids. */
  set(name: string, value: Value): void {
    if (name.startsWith("_")) {
      throw new TemplateError(
        `Chat templates cannot store underscore-prefixed attributes on a namespace, but got ${repr(name)}. ` +
          "Please rename the attribute.",
      );
    }
    this.attributes.set(name, value);
  }
}

/** What Python makes one item at a time, such as what `map` gives: it is always true, has no length, and can be run through once. */
export class Generator {
  #items: readonly Value[];
  constructor(items: readonly Value[], readonly kind = "generator") {
    this.#items = items;
  }

  /** Returns the items that were not taken yet, or as many of them. */
  take(count = this.#items.length): Value[] {
    const taken = this.#items.slice(0, count);
    this.#items = this.#items.slice(count);
    return taken;
  }
}

/** What a dict's `keys()`, `values()` and `items()` give: it can be run through and counted, and nothing else. */
export class DictView {
  constructor(readonly kind: "dict_keys" | "dict_values" | "dict_items", readonly items: Value[]) {}
}

/** Arguments of a call. */
export interface Arguments {
  positional: Value[];
  named: Map<string, Value>;
}

/** Anything that can be called: macros, methods, globals. */
export class Callable {
  constructor(readonly name: string, readonly call: (args: Arguments) => Value) {}
}

/** A value of a template. A number is a Python int, null is None. */
export type Value =
  | (null | boolean | number | string | Float)
  | (Value[] | Map<Value, Value> | Generator | DictView)
  | (Undefined | Namespace | Callable);

/** Turns JSON-like data into values. @throws {TypeError} for what JSON has not. */
export function fromJson(data: unknown): Value {
  if (data === null || typeof data === "boolean" || typeof data === "string") return data;
  if (data === undefined) return null;
  if (typeof data === "number") return Number.isInteger(data) ? data : new Float(data);
  if (Array.isArray(data)) return data.map(fromJson);
  if (typeof data === "object" && (Object.getPrototypeOf(data) === Object.prototype || Object.getPrototypeOf(data) === null)) {
    return new Map(Object.entries(data).filter(([, value]) => value !== undefined).map(([key, value]) => [key, fromJson(value)]));
  }
  throw new TypeError(`Cannot give a ${typeof data} to a chat template: required is what JSON can hold`);
}

/** Returns Python's name of a value's type. */
export function typeName(value: Value): string {
  if (value === null) return "NoneType";
  if (typeof value === "boolean") return "bool";
  if (typeof value === "number") return "int";
  if (typeof value === "string") return "str";
  if (value instanceof Float) return "float";
  if (value instanceof Tuple) return "tuple";
  if (Array.isArray(value)) return "list";
  if (value instanceof Map) return "dict";
  if (value instanceof Generator || value instanceof DictView) return value.kind;
  if (value instanceof Undefined) return "Undefined";
  return value instanceof Namespace ? "Namespace" : "function";
}

/** Returns the error for using a name that is not there. */
export function undefinedError(value: Undefined): TemplateError {
  return new TemplateError(value.forbidden ? value.what : `${value.what} is undefined`);
}

export function isTrue(value: Value): boolean {
  if (value === null || value instanceof Undefined) return false;
  if (typeof value === "boolean") return value;
  if (typeof value === "number") return value !== 0;
  if (typeof value === "string") return value !== "";
  if (value instanceof Float) return value.value !== 0;
  if (Array.isArray(value)) return value.length > 0;
  if (value instanceof DictView) return value.items.length > 0;
  return value instanceof Map ? value.size > 0 : true;
}

/** Returns a number's value, bools counting as 0 and 1; undefined for anything else. */
export function numeric(value: Value): number | undefined {
  if (typeof value === "number") return value;
  if (typeof value === "boolean") return Number(value);
  return value instanceof Float ? value.value : undefined;
}

export function equal(a: Value, b: Value): boolean {
  const x = numeric(a), y = numeric(b);
  if (x !== undefined && y !== undefined) return x === y;
  if (Array.isArray(a) && Array.isArray(b)) {
    return (a instanceof Tuple) === (b instanceof Tuple) && a.length === b.length && a.every((item, i) => equal(item, b[i]));
  }
  if (a instanceof Map && b instanceof Map) {
    return a.size === b.size && [...a].every(([key, value]) => b.has(key) && equal(value, b.get(key)!));
  }
  if (a instanceof Undefined && b instanceof Undefined) return true;
  return a === b;
}

/** Returns less than, equal to or more than 0 as Python orders two values. @throws {TemplateError} where it does not. */
export function compare(a: Value, b: Value): number {
  const x = numeric(a), y = numeric(b);
  if (x !== undefined && y !== undefined) return x - y;
  if (typeof a === "string" && typeof b === "string") return compareText(a, b);
  if (Array.isArray(a) && Array.isArray(b) && (a instanceof Tuple) === (b instanceof Tuple)) {
    for (let i = 0; i < Math.min(a.length, b.length); i++) {
      if (!equal(a[i], b[i])) return compare(a[i], b[i]);
    }
    return a.length - b.length;
  }
  for (const value of [a, b]) if (value instanceof Undefined) throw undefinedError(value);
  throw new TemplateError(`'<' not supported between instances of '${typeName(a)}' and '${typeName(b)}'`);
}

/** Compares by code points, where JavaScript's own order is by UTF-16 units. */
function compareText(a: string, b: string): number {
  const x = [...a], y = [...b];
  for (let i = 0; i < Math.min(x.length, y.length); i++) {
    if (x[i] !== y[i]) return x[i].codePointAt(0)! - y[i].codePointAt(0)!;
  }
  return x.length - y.length;
}

function floatText(value: number): string {
  if (Number.isNaN(value)) return "nan";
  if (!Number.isFinite(value)) return value > 0 ? "inf" : "-inf";
  if (Object.is(value, -0)) return "-0.0";
  const magnitude = Math.abs(value);
  // Python changes to an exponent at 1e16 and below 1e-4, and writes two digits of it.
  if (magnitude !== 0 && (magnitude >= 1e16 || magnitude < 1e-4)) {
    return value.toExponential().replace(/e([+-])(\d)$/, "e$10$2");
  }
  return Number.isInteger(value) ? `${value}.0` : String(value);
}

/** Returns a string as Python's repr writes it. */
function quoted(text: string): string {
  const quote = text.includes("'") && !text.includes('"') ? '"' : "'";
  let result = "";
  for (const character of text) {
    const code = character.codePointAt(0)!;
    if (character === quote || character === "\\") result += "\\" + character;
    else if (character === "\n") result += "\\n";
    else if (character === "\r") result += "\\r";
    else if (character === "\t") result += "\\t";
    else if (/[\p{C}\p{Zl}\p{Zp}\p{Zs}]/u.test(character) && character !== " ") {
      const hex = (digits: number) => code.toString(16).padStart(digits, "0");
      result += code <= 0xff ? `\\x${hex(2)}` : code <= 0xffff ? `\\u${hex(4)}` : `\\U${hex(8)}`;
    } else result += character;
  }
  return quote + result + quote;
}

/** Returns a value as Python's repr writes it. */
export function repr(value: Value): string {
  if (typeof value === "string") return quoted(value);
  if (value instanceof Tuple) return value.length === 1 ? `(${repr(value[0])},)` : `(${value.map(repr).join(", ")})`;
  if (Array.isArray(value)) return `[${value.map(repr).join(", ")}]`;
  if (value instanceof Undefined) return "Undefined";
  if (value instanceof Map) return `{${[...value].map(([key, item]) => `${repr(key)}: ${repr(item)}`).join(", ")}}`;
  return text(value);
}

/** Returns a value as Python's str writes it, which is what a template prints. */
export function text(value: Value): string {
  if (typeof value === "string") return value;
  if (value === null) return "None";
  if (typeof value === "boolean") return value ? "True" : "False";
  if (typeof value === "number") return String(value);
  if (value instanceof Float) return floatText(value.value);
  if (value instanceof Undefined) return "";
  if (Array.isArray(value) || value instanceof Map) return repr(value);
  if (value instanceof DictView) return `${value.kind}(${repr(value.items)})`;
  throw new TemplateError(`a ${typeName(value)} cannot be printed`);
}

/** Returns what a loop over a value runs over. @throws {TemplateError} for what is no sequence. */
export function iterate(value: Value): Value[] {
  if (Array.isArray(value)) return value;
  if (typeof value === "string") return [...value];
  if (value instanceof Map) return [...value.keys()];
  if (value instanceof Undefined) return [];
  if (value instanceof DictView) return value.items;
  if (value instanceof Generator) return value.take();
  throw new TemplateError(`'${typeName(value)}' object is not iterable`);
}

/** @throws {TemplateError} for what cannot be a key: a list or a dict. */
export function checkHashable(value: Value): void {
  if (value instanceof Map || (Array.isArray(value) && !(value instanceof Tuple))) {
    throw new TemplateError(`unhashable type: '${typeName(value)}'`);
  }
}

/** Returns whether something is in a value. */
export function contains(container: Value, item: Value): boolean {
  if (typeof container === "string") {
    if (typeof item !== "string") {
      throw new TemplateError(`'in <string>' requires string as left operand, not ${typeName(item)}`);
    }
    return container.includes(item);
  }
  if (container instanceof Map) {
    checkHashable(item);
    return container.has(item instanceof Float ? item.value : item);
  }
  if (container === null || typeof container === "boolean" || numeric(container) !== undefined) {
    throw new TemplateError(`argument of type '${typeName(container)}' is not iterable`);
  }
  return iterate(container).some((other) => equal(other, item));
}

/** Returns a length in code points, items or keys. */
export function length(value: Value): number {
  if (typeof value === "string") return [...value].length;
  if (Array.isArray(value)) return value.length;
  if (value instanceof Map) return value.size;
  if (value instanceof DictView) return value.items.length;
  if (value instanceof Undefined) return 0;
  throw new TemplateError(`object of type '${typeName(value)}' has no len()`);
}

/** How {@linkcode toJson} writes. */
export interface JsonOptions {
  indent?: number;
  separators?: [item: string, key: string];
  sortKeys?: boolean;
  ensureAscii?: boolean;
}

/** Returns a value as Python's json.dumps writes it, with `ensure_ascii=False` as transformers has it. */
export function toJson(value: Value, options: JsonOptions = {}, depth = 0): string {
  const { indent, sortKeys, ensureAscii } = options;
  const [itemSeparator, keySeparator] = options.separators ?? (indent === undefined ? [", ", ": "] : [",", ": "]);
  if (value === null) return "null";
  if (typeof value === "boolean" || typeof value === "number") return String(value);
  if (value instanceof Float) {
    return Number.isFinite(value.value)
      ? floatText(value.value)
      : Number.isNaN(value.value)
      ? "NaN"
      : value.value > 0
      ? "Infinity"
      : "-Infinity";
  }
  if (typeof value === "string") {
    const json = JSON.stringify(value);
    return ensureAscii
      ? json.replace(/[\x7f-\uffff]/g, (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`)
      : json;
  }
  const wrap = (open: string, items: string[], close: string) => {
    if (items.length === 0) return open + close;
    if (indent === undefined) return open + items.join(itemSeparator) + close;
    const line = (level: number) => "\n" + " ".repeat(indent * level);
    return open + line(depth + 1) + items.join(itemSeparator + line(depth + 1)) + line(depth) + close;
  };
  if (Array.isArray(value)) return wrap("[", value.map((item) => toJson(item, options, depth + 1)), "]");
  if (value instanceof Map) {
    const entries = [...value];
    if (sortKeys) entries.sort(([a], [b]) => compare(a, b));
    return wrap(
      "{",
      entries.map(([key, item]) =>
        toJson(typeof key === "string" ? key : text(key), options) + keySeparator + toJson(item, options, depth + 1)
      ),
      "}",
    );
  }
  throw new TemplateError(`Object of type ${typeName(value)} is not JSON serializable`);
}
