/**
 * Jinja's filters and tests, as far as chat templates use them; one that is not here is refused by name.
 * @module
 */
import { UnsupportedError } from "../../errors.ts";
import { formatPercent } from "./formatting.ts";
import { capitalize, parseNumber, splitLines, strip } from "./methods.ts";
import {
  type Arguments,
  Callable,
  checkHashable,
  compare,
  contains,
  DictView,
  equal,
  Float,
  Generator,
  isTrue,
  iterate,
  length,
  numeric,
  TemplateError,
  text,
  toJson,
  Tuple,
  typeName,
  Undefined,
  undefinedError,
  type Value,
} from "./values.ts";

/** What filters need of the interpreter. */
export interface FilterContext {
  member(value: Value, name: Value): Value;
}

type Filter = (value: Value, args: Arguments, context: FilterContext) => Value;

function argument({ positional, named }: Arguments, place: number, name: string): Value | undefined {
  return place < positional.length ? positional[place] : named.get(name);
}

function count(value: Value | undefined, missing: number): number {
  const number = value === undefined || value === null ? missing : numeric(value);
  if (number === undefined || !Number.isInteger(number)) throw new TemplateError(`expected int, not ${typeName(value!)}`);
  return number;
}

function number(value: Value): number {
  const found = numeric(value);
  if (found === undefined) {
    throw value instanceof Undefined ? undefinedError(value) : new TemplateError(`bad operand type: '${typeName(value)}'`);
  }
  return found;
}

/** Returns what a division leaves, with the sign of the divisor as Python has it. */
function remainder(value: Value, by: number): number {
  if (by === 0) throw new TemplateError("integer modulo by zero");
  const left = number(value);
  return left - by * Math.floor(left / by);
}

/** Reads a member by a dotted path, such as `function.name`. */
function path(value: Value, name: Value, context: FilterContext): Value {
  if (typeof name !== "string") return context.member(value, name);
  return name.split(".").reduce((at: Value, part) => context.member(at, /^\d+$/.test(part) ? Number(part) : part), value);
}

/** Returns whether an item passes the test that `select` and its kin were given; without one, whether it is true. */
function passes(item: Value, [name, ...rest]: Value[]): boolean {
  return name === undefined ? isTrue(item) : applyTest(item, text(name), { positional: rest, named: new Map() });
}

/** Returns what a filter runs over, which is nothing for anything false, such as None. */
function itemsOf(value: Value): Value[] {
  return isTrue(value) ? iterate(value) : [];
}

const select = (wanted: boolean): Filter => (value, args) =>
  new Generator(itemsOf(value).filter((item) => passes(item, args.positional) === wanted));

const selectByMember = (wanted: boolean): Filter => (value, { positional: [name, ...test] }, context) =>
  new Generator(itemsOf(value).filter((item) => passes(path(item, name, context), test) === wanted));

/** A key that `sort` and its kin compare by: strings without regard to case unless asked. */
function sortKey(item: Value, by: Value | undefined, caseSensitive: boolean, context: FilterContext): Value {
  const key = by === undefined || by === null ? item : path(item, by, context);
  return typeof key === "string" && !caseSensitive ? key.toLowerCase() : key;
}

const extreme = (sign: number): Filter => (value, args, context) => {
  const items = iterate(value);
  if (items.length === 0) return new Undefined("the extreme of an empty sequence");
  const key = (item: Value) =>
    sortKey(item, argument(args, 1, "attribute"), isTrue(argument(args, 0, "case_sensitive") ?? false), context);
  return items.reduce((best, item) => sign * compare(key(item), key(best)) > 0 ? item : best);
};

function indent(value: string, args: Arguments): string {
  const width = argument(args, 0, "width") ?? 4;
  const margin = typeof width === "string" ? width : " ".repeat(count(width, 4));
  const first = isTrue(argument(args, 1, "first") ?? false), blank = isTrue(argument(args, 2, "blank") ?? false);
  // The last line counts also where nothing is on it.
  const lines = splitLines(value + "\n").map((line, i) => (i === 0 ? first : blank || line !== "") ? margin + line : line);
  return lines.join("\n");
}

function round(value: Value, args: Arguments): Value {
  const digits = count(argument(args, 0, "precision"), 0), method = argument(args, 1, "method") ?? "common";
  const number = numeric(value);
  if (number === undefined) throw new TemplateError(`type ${typeName(value)} doesn't define __round__ method`);
  if (!(value instanceof Float) && method === "common") return number;
  const scale = 10 ** digits, scaled = number * scale;
  // Python rounds a half to the even neighbour.
  const half = Math.abs(scaled % 1) === 0.5 ? 2 * Math.round(scaled / 2) : Math.round(scaled);
  return new Float((method === "ceil" ? Math.ceil(scaled) : method === "floor" ? Math.floor(scaled) : half) / scale);
}

function json(value: Value, { named, positional }: Arguments): string {
  const options: Record<string, Value | undefined> = {
    ensure_ascii: positional[0],
    indent: positional[1],
    separators: positional[2],
    sort_keys: positional[3],
    ...Object.fromEntries(named),
  };
  const { separators, indent } = options;
  return toJson(value, {
    ensureAscii: isTrue(options.ensure_ascii ?? false),
    sortKeys: isTrue(options.sort_keys ?? false),
    indent: indent === undefined || indent === null ? undefined : count(indent, 0),
    separators: Array.isArray(separators) ? [text(separators[0]), text(separators[1])] : undefined,
  });
}

export function escapeHtml(value: string): string {
  return value.replace(/[&<>"']/g, (c) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&#34;", "'": "&#39;" })[c]!);
}

const FILTERS: Record<string, Filter> = {
  abs: (value) => value instanceof Float ? new Float(Math.abs(value.value)) : Math.abs(number(value)),
  attr: (value, { positional: [name] }, context) => context.member(value, name),
  batch: (value, args) => {
    const items = Array.from(iterate(value)),
      size = count(argument(args, 0, "linecount"), 1),
      fill = argument(args, 1, "fill_with");
    const rows = Array.from({ length: Math.ceil(items.length / size) }, (_, i) => items.slice(i * size, (i + 1) * size));
    const last = rows[rows.length - 1];
    while (fill !== undefined && fill !== null && last && last.length < size) last.push(fill);
    return new Generator(rows);
  },
  capitalize: (value) => capitalize(text(value)),
  default: (value, args) => {
    const missing = argument(args, 0, "default_value") ?? "";
    const falsy = isTrue(argument(args, 1, "boolean") ?? false);
    return value instanceof Undefined || (falsy && !isTrue(value)) ? missing : value;
  },
  dictsort: (value, args, context) => {
    if (!(value instanceof Map)) throw new TemplateError(`'${typeName(value)}' object has no attribute 'items'`);
    const at = argument(args, 1, "by") === "value" ? 1 : 0, sign = isTrue(argument(args, 2, "reverse") ?? false) ? -1 : 1;
    const key = (pair: Value[]) => sortKey(pair[at], undefined, isTrue(argument(args, 0, "case_sensitive") ?? false), context);
    return [...value].sort((a, b) => sign * compare(key(a), key(b))).map((pair) => Tuple.from(pair) as Tuple);
  },
  escape: (value) => escapeHtml(text(value)),
  first: (value) => {
    const items = value instanceof Generator ? value.take(1) : iterate(value);
    return items.length > 0 ? items[0] : new Undefined("the first item of an empty sequence");
  },
  float: (value, args) => parseNumber(value, "float") ?? argument(args, 0, "default") ?? new Float(0),
  format: (value, args) =>
    formatPercent(text(value), args.named.size > 0 ? new Map(args.named) : Tuple.from(args.positional) as Tuple),
  groupby: (value, args, context) => {
    const by = argument(args, 0, "attribute") ?? null, missing = argument(args, 1, "default");
    const caseSensitive = isTrue(argument(args, 2, "case_sensitive") ?? false);
    const read = (item: Value) => {
      const found = path(item, by, context);
      return found instanceof Undefined && missing !== undefined ? missing : found;
    };
    const key = (item: Value) => sortKey(read(item), undefined, caseSensitive, context);
    const groups: { key: Value; items: Value[] }[] = [];
    for (const item of [...iterate(value)].sort((a, b) => compare(key(a), key(b)))) {
      const last = groups[groups.length - 1];
      if (last && equal(last.key, key(item))) last.items.push(item);
      else groups.push({ key: key(item), items: [item] });
    }
    return groups.map(({ items }) => Tuple.from<Value>([read(items[0]), items]) as Tuple);
  },
  indent: (value, args) => {
    if (typeof value !== "string") throw new TemplateError(`unsupported operand type(s) for +=: '${typeName(value)}' and 'str'`);
    return indent(value, args);
  },
  int: (value, args) => parseNumber(value, "int") ?? argument(args, 0, "default") ?? 0,
  items: (value) => {
    if (value instanceof Undefined) return new Generator([]);
    if (!(value instanceof Map)) throw new TemplateError("Can only get item pairs from a mapping.");
    return new Generator([...value].map((pair) => Tuple.from(pair) as Tuple));
  },
  join: (value, args, context) => {
    const by = argument(args, 1, "attribute");
    return iterate(value).map((item) => text(by === undefined ? item : path(item, by, context))).join(
      text(argument(args, 0, "d") ?? ""),
    );
  },
  last: (value) => {
    if (value instanceof Generator) throw new TemplateError(`'${value.kind}' object is not reversible`);
    const items = iterate(value);
    return items.length > 0 ? items[items.length - 1] : new Undefined("the last item of an empty sequence");
  },
  length: (value) => length(value),
  list: (value) => [...iterate(value)],
  lower: (value) => text(value).toLowerCase(),
  map: (value, { positional, named }, context) => {
    const by = named.get("attribute");
    if (by !== undefined) {
      const missing = named.get("default");
      return new Generator(
        itemsOf(value).map((item) => {
          const found = path(item, by, context);
          return found instanceof Undefined && missing !== undefined ? missing : found;
        }),
      );
    }
    const [name, ...rest] = positional;
    return new Generator(itemsOf(value).map((item) => applyFilter(item, text(name), { positional: rest, named }, context)));
  },
  max: extreme(1),
  min: extreme(-1),
  reject: select(false),
  rejectattr: selectByMember(false),
  replace: (value, { positional: [from, to, most] }) => {
    const parts = text(value).split(text(from)), times = count(most, parts.length - 1);
    return parts.reduce((whole, part, i) => whole + (i <= times || times < 0 ? text(to) : text(from)) + part);
  },
  reverse: (value) => {
    if (typeof value === "string") return [...value].reverse().join("");
    const items = [...iterate(value)].reverse();
    return value instanceof Generator ? items : new Generator(items, "list_reverseiterator");
  },
  round,
  select: select(true),
  selectattr: selectByMember(true),
  sort: (value, args, context) => {
    const sign = isTrue(argument(args, 0, "reverse") ?? false) ? -1 : 1;
    const key = (item: Value) =>
      sortKey(item, argument(args, 2, "attribute"), isTrue(argument(args, 1, "case_sensitive") ?? false), context);
    return [...iterate(value)].sort((a, b) => sign * compare(key(a), key(b)));
  },
  string: (value) => text(value),
  sum: (value, args, context) => {
    const by = argument(args, 0, "attribute");
    const items = iterate(value).map((item) => by === undefined || by === null ? item : path(item, by, context));
    const sum = items.reduce((sum: number, item) => sum + (numeric(item) ?? NaN), numeric(argument(args, 1, "start") ?? 0)!);
    if (Number.isNaN(sum)) throw new TemplateError("unsupported operand type(s) for +");
    return items.some((item) => item instanceof Float) ? new Float(sum) : sum;
  },
  title: (value) => text(value).replace(/[^\s\-({[<]+/g, capitalize),
  tojson: json,
  trim: (value, args) => strip(text(value), argument(args, 0, "chars"), true, true),
  unique: (value, args, context) => {
    const key = (item: Value) =>
      sortKey(item, argument(args, 1, "attribute"), isTrue(argument(args, 0, "case_sensitive") ?? false), context);
    const seen: Value[] = [];
    for (const item of Array.isArray(value) ? value : []) checkHashable(key(item));
    return new Generator(iterate(value).filter((item) => !contains(seen, key(item)) && seen.push(key(item)) > 0));
  },
  upper: (value) => text(value).toUpperCase(),
  wordcount: (value) => (text(value).match(/[\p{L}\p{N}_]+/gu) ?? []).length,
};
Object.assign(FILTERS, {
  count: FILTERS.length,
  d: FILTERS.default,
  e: FILTERS.escape,
  forceescape: FILTERS.escape,
  safe: FILTERS.string,
});

const compares = (holds: (order: number) => boolean): Test => (value, [other]) => holds(compare(value, other));
const hasCase = (value: Value, same: (text: string) => string) =>
  same(text(value)) === text(value) && text(value).toLowerCase() !== text(value).toUpperCase();

type Test = (value: Value, args: Value[]) => boolean;

const TESTS: Record<string, Test> = {
  boolean: (value) => typeof value === "boolean",
  callable: (value) => value instanceof Callable || value instanceof Undefined,
  defined: (value) => !(value instanceof Undefined),
  divisibleby: (value, [by]) => remainder(value, number(by)) === 0,
  eq: (value, [other]) => equal(value, other),
  even: (value) => remainder(value, 2) === 0,
  false: (value) => value === false,
  filter: (value) => Object.hasOwn(FILTERS, text(value)),
  float: (value) => value instanceof Float,
  ge: compares((order) => order >= 0),
  gt: compares((order) => order > 0),
  in: (value, [container]) => contains(container, value),
  integer: (value) => typeof value === "number",
  iterable: (value) =>
    typeof value === "string" || Array.isArray(value) || value instanceof Map || value instanceof Undefined ||
    value instanceof Generator || value instanceof DictView,
  le: compares((order) => order <= 0),
  lower: (value) => hasCase(value, (text) => text.toLowerCase()),
  lt: compares((order) => order < 0),
  mapping: (value) => value instanceof Map,
  ne: (value, [other]) => !equal(value, other),
  none: (value) => value === null,
  number: (value) => numeric(value) !== undefined,
  odd: (value) => remainder(value, 2) === 1,
  sameas: (value, [other]) => value === other,
  sequence: (value) => typeof value === "string" || Array.isArray(value) || value instanceof Map || value instanceof Undefined,
  string: (value) => typeof value === "string",
  test: (value) => Object.hasOwn(TESTS, text(value)),
  true: (value) => value === true,
  undefined: (value) => value instanceof Undefined,
  upper: (value) => hasCase(value, (text) => text.toUpperCase()),
};
Object.assign(TESTS, {
  "==": TESTS.eq,
  "!=": TESTS.ne,
  "<": TESTS.lt,
  "<=": TESTS.le,
  ">": TESTS.gt,
  ">=": TESTS.ge,
  equalto: TESTS.eq,
  greaterthan: TESTS.gt,
  lessthan: TESTS.lt,
});

/** Filters that cannot work on an undefined value; to the others it is an empty text or an empty list. */
const NEED_VALUE = new Set(["abs", "attr", "dictsort", "float", "indent", "int", "round", "tojson"]);

/** @throws {UnsupportedError} for a filter that is not known here. */
export function applyFilter(value: Value, name: string, args: Arguments, context: FilterContext): Value {
  if (!Object.hasOwn(FILTERS, name)) {
    throw new UnsupportedError(`Cannot use the chat template: filter ${JSON.stringify(name)} is not known`);
  }
  if (value instanceof Undefined && NEED_VALUE.has(name)) throw undefinedError(value);
  return FILTERS[name](value, args, context);
}

/** @throws {UnsupportedError} for a test that is not known here. */
export function applyTest(value: Value, name: string, { positional }: Arguments): boolean {
  if (!Object.hasOwn(TESTS, name)) {
    throw new UnsupportedError(`Cannot use the chat template: test ${JSON.stringify(name)} is not known`);
  }
  const required = TESTS[name].length - 1;
  if (positional.length !== required) {
    throw new TemplateError(`test ${name} takes ${required} argument(s), not ${positional.length}`);
  }
  return TESTS[name](value, positional);
}
