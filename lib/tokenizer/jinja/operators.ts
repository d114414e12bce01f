/**
 * Jinja's operators with two operands, but for `and` and `or`, and its slices.
 * @module
 */
import { UnsupportedError } from "../../errors.ts";
import { formatPercent } from "./formatting.ts";
import {
  compare,
  contains,
  equal,
  Float,
  numeric,
  TemplateError,
  text,
  Tuple,
  typeName,
  Undefined,
  undefinedError,
  type Value,
} from "./values.ts";

/** Operators that form chains: `a < b < c` is `a < b and b < c`. */
export const COMPARISONS: ReadonlySet<string> = new Set(["==", "!=", "<", "<=", ">", ">=", "in", "not in"]);

/** Returns what a comparison gives. */
export function compareBy(operator: string, left: Value, right: Value): boolean {
  switch (operator) {
    case "==":
      return equal(left, right);
    case "!=":
      return !equal(left, right);
    case "in":
      return contains(right, left);
    case "not in":
      return !contains(right, left);
    case "<":
      return compare(left, right) < 0;
    case "<=":
      return compare(left, right) <= 0;
    case ">":
      return compare(left, right) > 0;
    default:
      return compare(left, right) >= 0;
  }
}

/** The longest text or list that `*` makes. */
const MAX_REPEATED = 1_000_000;

/** Returns a text or a list as often as a number says; undefined where the operands are not such. */
function repeated(value: Value, times: Value): Value | undefined {
  const count = typeof times === "boolean" ? Number(times) : times;
  if (typeof count !== "number" || !(typeof value === "string" || Array.isArray(value))) return undefined;
  if (value.length * count > MAX_REPEATED) throw new TemplateError("it repeats something too often");
  if (typeof value === "string") return value.repeat(Math.max(0, count));
  const items = Array.from({ length: Math.max(0, count) }, () => value).flat();
  return value instanceof Tuple ? Tuple.from(items) as Tuple : items;
}

/** Returns what an arithmetic operator or `~` gives. @throws {TemplateError} for operands that it does not take. */
export function calculate(operator: string, left: Value, right: Value): Value {
  if (operator === "~") return text(left) + text(right);
  for (const value of [left, right]) if (value instanceof Undefined) throw undefinedError(value);
  if (operator === "%" && typeof left === "string") return formatPercent(left, right);
  if (operator === "+" && typeof left === "string" && typeof right === "string") return left + right;
  if (operator === "+" && Array.isArray(left) && Array.isArray(right) && (left instanceof Tuple) === (right instanceof Tuple)) {
    return left instanceof Tuple ? Tuple.from([...left, ...right]) as Tuple : [...left, ...right];
  }
  const many = operator === "*" ? repeated(left, right) ?? repeated(right, left) : undefined;
  if (many !== undefined) return many;
  const a = numeric(left), b = numeric(right);
  if (a === undefined || b === undefined) {
    throw new TemplateError(`unsupported operand type(s) for ${operator}: '${typeName(left)}' and '${typeName(right)}'`);
  }
  const number = (value: number) => left instanceof Float || right instanceof Float ? new Float(value) : value;
  if (["/", "//", "%"].includes(operator) && b === 0) throw new TemplateError("division by zero");
  switch (operator) {
    case "+":
      return number(a + b);
    case "-":
      return number(a - b);
    case "*":
      return number(a * b);
    case "/":
      return new Float(a / b);
    case "//":
      return number(Math.floor(a / b));
    case "%":
      return number(a - b * Math.floor(a / b));
    case "**":
      return b < 0 ? new Float(a ** b) : number(a ** b);
  }
  throw new UnsupportedError(`Cannot use the chat template: operator ${JSON.stringify(operator)} is not known`);
}

/** Returns `value[start:stop:step]`. @throws {TemplateError} for what has no slices. */
export function slice(value: Value, start: number | undefined, stop: number | undefined, step: number): Value {
  if (value instanceof Undefined) throw undefinedError(value);
  if (typeof value !== "string" && !Array.isArray(value)) {
    throw new TemplateError(`'${typeName(value)}' object is not subscriptable`);
  }
  if (step === 0) throw new TemplateError("slice step cannot be zero");
  const items: Value[] = typeof value === "string" ? [...value] : value, { length } = items;
  const clamp = (at: number) => {
    const from = at < 0 ? at + length : at;
    return step > 0 ? Math.max(0, Math.min(length, from)) : Math.max(-1, Math.min(length - 1, from));
  };
  const from = start === undefined ? (step > 0 ? 0 : length - 1) : clamp(start);
  const to = stop === undefined ? (step > 0 ? length : -1) : clamp(stop);
  const result: Value[] = [];
  for (let i = from; step > 0 ? i < to : i > to; i += step) result.push(items[i]);
  if (typeof value === "string") return result.join("");
  return value instanceof Tuple ? Tuple.from(result) as Tuple : result;
}
