/**
 * The methods that Python's strings, dicts and lists have and that chat templates call. Those that change a value are refused, as
 * transformers' sandbox does.
 * @module
 */
import { formatText } from "./formatting.ts";
import {
  type Arguments,
  Callable,
  DictView,
  equal,
  Float,
  iterate,
  length,
  numeric,
  TemplateError,
  text,
  Tuple,
  typeName,
  Undefined,
  type Value,
} from "./values.ts";

/** Python's whitespace: what str.strip removes and str.split splits at. */
const SPACE = "[\\t-\\r\\x1c-\\x20\\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000]";
const IS_SPACE = new RegExp(SPACE);

/** Removes characters at the ends of a string: those of a set, or whitespace. */
export function strip(value: string, characters: Value | undefined, left: boolean, right: boolean): string {
  if (characters === undefined || characters === null) {
    let start = 0, end = value.length;
    while (left && start < end && IS_SPACE.test(value[start])) start++;
    while (right && end > start && IS_SPACE.test(value[end - 1])) end--;
    return value.slice(start, end);
  }
  const set = new Set(string(characters));
  const points = [...value];
  let start = 0, end = points.length;
  while (left && start < end && set.has(points[start])) start++;
  while (right && end > start && set.has(points[end - 1])) end--;
  return points.slice(start, end).join("");
}

function string(value: Value | undefined): string {
  if (typeof value === "string") return value;
  throw new TemplateError(`expected str, not ${value === undefined ? "nothing" : typeName(value)}`);
}

function integer(value: Value | undefined, missing: number): number {
  if (value === undefined || value === null) return missing;
  if (typeof value === "number" || typeof value === "boolean") return Number(value);
  throw new TemplateError(`expected int, not ${typeName(value)}`);
}

function split(value: string, separator: Value | undefined, most: number, fromRight: boolean): string[] {
  if (separator === undefined || separator === null) {
    const words = strip(value, undefined, true, true);
    if (words === "") return [];
    const all = words.split(new RegExp(`${SPACE}+`));
    if (most < 0 || all.length <= most + 1) return all;
    // What is beyond the last split stays as it was.
    let rest = value;
    const parts: string[] = [];
    for (let i = 0; i < most; i++) {
      rest = strip(rest, undefined, !fromRight, fromRight);
      const part = all[fromRight ? all.length - 1 - i : i];
      parts.push(part);
      rest = fromRight ? rest.slice(0, rest.length - part.length) : rest.slice(part.length);
    }
    rest = strip(rest, undefined, !fromRight, fromRight);
    return fromRight ? [rest, ...parts.reverse()] : [...parts, rest];
  }
  const at = string(separator);
  if (at === "") throw new TemplateError("empty separator");
  const all = value.split(at);
  if (most < 0 || all.length <= most + 1) return all;
  return fromRight
    ? [all.slice(0, all.length - most).join(at), ...all.slice(all.length - most)]
    : [...all.slice(0, most), all.slice(most).join(at)];
}

/** Returns a text's lines without what ends them. */
export function splitLines(value: string): string[] {
  // deno-lint-ignore no-control-regex -- they end lines in Python
  const lines = value.split(/\r\n|[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]/);
  if (lines[lines.length - 1] === "") lines.pop();
  return lines;
}

function affix(args: Arguments, has: (affix: string) => boolean): boolean {
  const [wanted] = args.positional;
  return Array.isArray(wanted) ? wanted.some((one) => has(string(one))) : has(string(wanted));
}

/** Returns the position of a part in code points, -1 where it is not there. */
function find(value: string, part: Value, last: boolean): number {
  const at = last ? value.lastIndexOf(string(part)) : value.indexOf(string(part));
  return at < 0 ? -1 : length(value.slice(0, at));
}

function replace(value: string, from: string, to: string, most: number): string {
  if (most < 0) return value.replaceAll(from, () => to);
  let result = "", at = 0;
  for (; most > 0; most--) {
    const next = value.indexOf(from, at);
    if (next < 0) break;
    result += value.slice(at, next) + to;
    at = next + from.length;
  }
  return result + value.slice(at);
}

/** Returns a string with its first character in upper case and the others in lower case. */
export function capitalize(value: string): string {
  const [first = "", ...rest] = value;
  return first.toUpperCase() + rest.join("").toLowerCase();
}

const isAll = (pattern: RegExp) => (value: string) => value !== "" && pattern.test(value);

type Method<T> = (self: T, args: Arguments) => Value;

/** An argument by its place or its name. */
function argument({ positional, named }: Arguments, place: number, name: string): Value | undefined {
  return place < positional.length ? positional[place] : named.get(name);
}

const STRING_METHODS: Record<string, Method<string>> = {
  strip: (self, { positional }) => strip(self, positional[0], true, true),
  lstrip: (self, { positional }) => strip(self, positional[0], true, false),
  rstrip: (self, { positional }) => strip(self, positional[0], false, true),
  split: (self, args) => split(self, argument(args, 0, "sep"), integer(argument(args, 1, "maxsplit"), -1), false),
  rsplit: (self, args) => split(self, argument(args, 0, "sep"), integer(argument(args, 1, "maxsplit"), -1), true),
  splitlines: splitLines,
  startswith: (self, args) => affix(args, (affix) => self.startsWith(affix)),
  endswith: (self, args) => affix(args, (affix) => self.endsWith(affix)),
  replace: (self, args) => {
    const [from, to] = args.positional;
    return replace(self, string(from), string(to), integer(argument(args, 2, "count"), -1));
  },
  upper: (self) => self.toUpperCase(),
  lower: (self) => self.toLowerCase(),
  title: (self) => self.replace(/\p{L}+/gu, capitalize),
  capitalize: (self) => capitalize(self),
  format: (self, args) => formatText(self, args),
  join: (self, { positional: [items] }) => iterate(items).map(string).join(self),
  find: (self, { positional: [part] }) => find(self, part, false),
  rfind: (self, { positional: [part] }) => find(self, part, true),
  count: (self, { positional: [part] }) => string(part) === "" ? length(self) + 1 : self.split(string(part)).length - 1,
  removeprefix: (self, { positional: [part] }) => self.startsWith(string(part)) ? self.slice(string(part).length) : self,
  removesuffix: (self, { positional: [part] }) =>
    string(part) !== "" && self.endsWith(string(part)) ? self.slice(0, -string(part).length) : self,
  isdigit: isAll(/^\p{Nd}+$/u),
  isnumeric: isAll(/^\p{N}+$/u),
  isalpha: isAll(/^\p{L}+$/u),
  isalnum: isAll(/^[\p{L}\p{N}]+$/u),
  isspace: isAll(new RegExp(`^${SPACE}+$`)),
  isupper: (self) => self !== self.toLowerCase() && self === self.toUpperCase(),
  islower: (self) => self !== self.toUpperCase() && self === self.toLowerCase(),
};

const DICT_METHODS: Record<string, Method<Map<Value, Value>>> = {
  get: (self, { positional: [key, missing = null] }) => self.get(key) ?? (self.has(key) ? null : missing),
  items: (self) => new DictView("dict_items", [...self].map((pair) => Tuple.from(pair) as Tuple)),
  keys: (self) => new DictView("dict_keys", [...self.keys()]),
  values: (self) => new DictView("dict_values", [...self.values()]),
  copy: (self) => new Map(self),
};

const LIST_METHODS: Record<string, Method<Value[]>> = {
  index: (self, { positional: [item] }) => {
    const at = self.findIndex((other) => equal(other, item));
    if (at < 0) throw new TemplateError(`${text(item)} is not in list`);
    return at;
  },
  count: (self, { positional: [item] }) => self.filter((other) => equal(other, item)).length,
  copy: (self) => [...self],
};

function bind<T>(methods: Record<string, Method<T>>, self: T, name: string): Callable | undefined {
  return Object.hasOwn(methods, name) ? new Callable(name, (args) => methods[name](self, args)) : undefined;
}

/** Methods that change what they are called on. */
const CHANGING = {
  list: ["append", "clear", "extend", "insert", "pop", "remove", "reverse", "sort"],
  dict: ["clear", "pop", "popitem", "setdefault", "update"],
};

/** Returns a value's method, undefined where it has none of that name; one that changes the value is forbidden. */
export function method(value: Value, name: string): Callable | Undefined | undefined {
  const type = typeName(value);
  if ((type === "list" || type === "dict") && CHANGING[type].includes(name)) {
    return new Undefined(`access to attribute '${name}' of '${type}' object is unsafe.`, true);
  }
  if (typeof value === "string") return bind(STRING_METHODS, value, name);
  if (value instanceof Map) return bind(DICT_METHODS, value, name);
  if (Array.isArray(value) && !(value instanceof Tuple && name === "copy")) return bind(LIST_METHODS, value, name);
  return undefined;
}

/** Returns an int or float from a number or from text, as Python's int() and float() do; undefined where it is none. */
export function parseNumber(value: Value, kind: "int" | "float"): number | Float | undefined {
  const number = numeric(value) ??
    (typeof value === "string" && /^\s*[+-]?\d[\d_]*(\.\d+)?(e[+-]?\d+)?\s*$/i.test(value)
      ? Number(value.replaceAll("_", ""))
      : undefined);
  if (number === undefined) return undefined;
  return kind === "int" ? Math.trunc(number) : new Float(number);
}
