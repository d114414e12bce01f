/**
 * Python's two ways to put values into a text: `"{}".format(x)` and `"%s" % x`.
 * @module
 */
import { UnsupportedError } from "../../errors.ts";
import { type Arguments, Float, numeric, repr, TemplateError, text, Tuple, typeName, type Value } from "./values.ts";

/** How one value is written: Python's format specification, which the percent sign's flags are a part of. */
interface Specification {
  fill: string;
  align?: string;
  sign: string;
  width: number;
  comma: boolean;
  precision?: number;
  type: string;
}

/** The widest field. A template that asks for more wants to fill the memory. */
const MAX_WIDTH = 10_000;

function refuse(what: string): UnsupportedError {
  return new UnsupportedError(`Cannot use the chat template: format ${JSON.stringify(what)} is not known`);
}

function bounded(digits: string | undefined): number | undefined {
  if (digits === undefined || digits === "") return undefined;
  if (Number(digits) > MAX_WIDTH) throw new TemplateError("Too many decimal digits in format string");
  return Number(digits);
}

/** Returns a number above or at 0 with as many decimals, halves going to the even neighbour as in Python. */
function fixed(value: number, decimals: number): string {
  const rounded = value.toFixed(decimals), exact = value.toFixed(100);
  const cut = exact.indexOf(".") + 1 + decimals;
  if (!/^50*$/.test(exact.slice(cut))) return rounded;
  const lower = exact.slice(0, decimals === 0 ? cut - 1 : cut);
  return "02468".includes(lower[lower.length - 1]) ? lower : rounded;
}

/** Returns a number's digits without its sign. */
function digitsOf(value: number, { type, precision, comma }: Specification): string {
  const magnitude = Math.abs(value);
  const digits = type === "f"
    ? fixed(magnitude, Math.min(precision ?? 6, 99))
    : type === "%"
    ? fixed(magnitude * 100, Math.min(precision ?? 6, 99)) + "%"
    : type === "x" || type === "X"
    ? magnitude.toString(16)
    : magnitude.toString(type === "o" ? 8 : type === "b" ? 2 : 10);
  const written = type === "X" ? digits.toUpperCase() : digits;
  return comma ? written.replace(/^\d+/, (whole) => whole.replace(/\B(?=(\d{3})+$)/g, ",")) : written;
}

function write(value: Value, specification: Specification): string {
  const { fill, sign, width, precision, type } = specification;
  const number = numeric(value);
  let prefix = "", body: string, align = specification.align;
  if (type === "s" || type === "r" || (type === "" && (number === undefined || typeof value === "boolean"))) {
    const whole = type === "r" ? repr(value) : text(value);
    body = precision === undefined ? whole : [...whole].slice(0, precision).join("");
    align ??= "<";
  } else if (type === "" && value instanceof Float) {
    if (precision !== undefined) throw refuse(`.${precision}`);
    [prefix, body] = value.value < 0 ? ["-", text(value).slice(1)] : [sign === "-" ? "" : sign, text(value)];
    align ??= ">";
  } else {
    if (number === undefined) throw new TemplateError(`Unknown format code '${type}' for object of type '${typeName(value)}'`);
    if (value instanceof Float && !["f", "%"].includes(type)) {
      throw new TemplateError(`Unknown format code '${type}' for object of type 'float'`);
    }
    prefix = number < 0 ? "-" : sign === "-" ? "" : sign;
    body = digitsOf(number, specification);
    align ??= ">";
  }
  const missing = Math.max(0, width - [...prefix, ...body].length);
  if (align === "=") return prefix + fill.repeat(missing) + body;
  if (align === "<") return prefix + body + fill.repeat(missing);
  if (align === ">") return fill.repeat(missing) + prefix + body;
  return fill.repeat(Math.floor(missing / 2)) + prefix + body + fill.repeat(Math.ceil(missing / 2));
}

function specified(source: string): Specification {
  const match = /^(?:(.)?([<>=^]))?([-+ ])?(0)?(\d*)(,)?(?:\.(\d+))?([bdosxXf%])?$/su.exec(source);
  if (!match) throw refuse(source);
  const [, fill, align, sign = "-", zero, width, comma, precision, type = ""] = match;
  return {
    fill: fill ?? (zero && !align ? "0" : " "),
    align: align ?? (zero ? "=" : undefined),
    sign,
    width: bounded(width) ?? 0,
    comma: comma !== undefined,
    precision: bounded(precision),
    type,
  };
}

/** Returns `"...{}...".format(...)`. @throws {UnsupportedError} for fields and specifications that are not known here. */
export function formatText(template: string, { positional, named }: Arguments): string {
  let next = 0;
  return template.replace(/\{\{|\}\}|\{([^{}]*)\}|[{}]/g, (whole, field?: string) => {
    if (whole === "{{" || whole === "}}") return whole[0];
    if (field === undefined) throw new TemplateError(`Single '${whole}' encountered in format string`);
    const match = /^(\w*)(?:!([rs]))?(?::(.*))?$/su.exec(field);
    if (!match) throw refuse(whole);
    const [, name, conversion, specification = ""] = match;
    const place = name === "" ? next++ : /^\d+$/.test(name) ? Number(name) : undefined;
    const value = place === undefined ? named.get(name) : positional[place];
    if (value === undefined) {
      throw new TemplateError(
        place === undefined ? `'${name}'` : `Replacement index ${place} out of range for positional args tuple`,
      );
    }
    return write(conversion === "r" ? repr(value) : conversion === "s" ? text(value) : value, specified(specification));
  });
}

/** Returns `"...%s..." % values`. @throws {UnsupportedError} for conversions that are not known here. */
export function formatPercent(template: string, values: Value): string {
  const given = values instanceof Tuple ? values : [values];
  let next = 0;
  const result = template.replace(
    /%(?:\((\w*)\))?([-+ 0]*)(\d*)(?:\.(\d+))?(.?)/gs,
    (whole, name: string | undefined, flags: string, width: string, precision: string | undefined, type: string) => {
      if (type === "%") return "%";
      if (type === "") throw new TemplateError("incomplete format");
      const kind = type === "i" || type === "u" ? "d" : type;
      if (!["s", "r", "d", "f", "x", "X", "o"].includes(kind)) throw refuse(whole);
      if (name !== undefined && !(values instanceof Map)) throw new TemplateError("format requires a mapping");
      const value = name !== undefined && values instanceof Map ? values.get(name) : given[next++];
      if (value === undefined) {
        throw new TemplateError(name === undefined ? "not enough arguments for format string" : `'${name}'`);
      }
      const isText = kind === "s" || kind === "r";
      if (!isText && numeric(value) === undefined) {
        throw new TemplateError(`%${type} format: a real number is required, not ${typeName(value)}`);
      }
      const number = kind === "d" && value instanceof Float ? Math.trunc(value.value) : value;
      return write(number, {
        fill: flags.includes("0") && !flags.includes("-") && !isText ? "0" : " ",
        align: flags.includes("-") ? "<" : flags.includes("0") && !isText ? "=" : ">",
        sign: flags.includes("+") ? "+" : flags.includes(" ") ? " " : "-",
        width: bounded(width) ?? 0,
        comma: false,
        precision: bounded(precision),
        type: kind,
      });
    },
  );
  if (next < given.length && (values instanceof Tuple || !(values instanceof Map || Array.isArray(values)))) {
    throw new TemplateError("not all arguments converted during string formatting");
  }
  return result;
}
