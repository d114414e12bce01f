/**
 * Puts values into texts as Python does: `%` (the filter `format`) and `str.format`.
 * @module
 */
import { UnsupportedError } from "../../errors.ts";
import { type Arguments, numeric, repr, TemplateError, text, typeName, type Value } from "./values.ts";

/** Most characters that a value is padded to. */
const MAX_WIDTH = 10_000;

function number(value: Value, conversion: string): number {
  const found = numeric(value);
  if (found !== undefined) return found;
  throw new TemplateError(`%${conversion} format: a real number is required, not ${typeName(value)}`);
}

/** Returns a number's digits in a conversion, without its sign. */
function digits(value: number, conversion: string, precision: number | undefined): string {
  const magnitude = Math.abs(value);
  switch (conversion) {
    case "d":
    case "i":
    case "u":
      return String(Math.trunc(magnitude)).padStart(precision ?? 0, "0");
    case "x":
    case "X":
    case "o": {
      if (!Number.isInteger(value)) throw new TemplateError(`%${conversion} format: an integer is required, not float`);
      const spelled = magnitude.toString(conversion === "o" ? 8 : 16).padStart(precision ?? 0, "0");
      return conversion === "X" ? spelled.toUpperCase() : spelled;
    }
    case "f":
    case "F":
      return magnitude.toFixed(Math.min(100, precision ?? 6));
  }
  throw new UnsupportedError(`Cannot use the chat template: the format %${conversion} is not known`);
}

/** Returns a text with its `%` replaced by values. @throws {TemplateError} where they do not fit. */
export function formatPercent(format: string, { positional, named }: Arguments): string {
  if (positional.length > 0 && named.size > 0) {
    throw new TemplateError("can't handle positional and keyword arguments at the same time");
  }
  let next = 0;
  const take = (key: string | undefined): Value => {
    const value = key === undefined ? positional[next++] : named.get(key);
    if (value === undefined) throw new TemplateError(key === undefined ? "not enough arguments for format string" : `'${key}'`);
    return value;
  };
  const pattern = /%(?:\(([^)]*)\))?([-+ 0#]*)(\d*)(?:\.(\d+))?([\s\S]?)/g;
  const result = format.replace(pattern, (_, key, flags: string, width: string, precision, conversion: string) => {
    if (conversion === "%") return "%";
    if (conversion === "") throw new TemplateError("incomplete format");
    const value = take(key), digitsWanted = precision === undefined ? undefined : Number(precision);
    if (Number(width) > MAX_WIDTH) throw new TemplateError("a width is too large");
    if (flags.includes("#")) throw new UnsupportedError("Cannot use the chat template: the format flag # is not known");
    let body: string, sign = "";
    if (conversion === "s" || conversion === "r") {
      body = [...conversion === "s" ? text(value) : repr(value)].slice(0, digitsWanted).join("");
    } else {
      const given = number(value, conversion);
      body = digits(given, conversion, digitsWanted);
      sign = given < 0 ? "-" : flags.includes("+") ? "+" : flags.includes(" ") ? " " : "";
    }
    const missing = Math.max(0, Number(width) - [...body].length - sign.length);
    if (flags.includes("-")) return sign + body + " ".repeat(missing);
    const zeros = flags.includes("0") && !["s", "r"].includes(conversion);
    return zeros ? sign + "0".repeat(missing) + body : " ".repeat(missing) + sign + body;
  });
  if (named.size === 0 && next < positional.length) {
    throw new TemplateError("not all arguments converted during string formatting");
  }
  return result;
}

/** Returns a text with its `{}` replaced by values. @throws {UnsupportedError} for a field with more than a name or a place. */
export function formatBraces(format: string, { positional, named }: Arguments): string {
  let next = 0;
  return format.replace(/\{\{|\}\}|\{([^{}]*)\}|[{}]/g, (whole, field: string | undefined) => {
    if (whole === "{{" || whole === "}}") return whole[0];
    if (field === undefined) throw new TemplateError(`Single '${whole}' encountered in format string`);
    if (!/^\w*$/.test(field)) {
      throw new UnsupportedError(`Cannot use the chat template: the format field ${JSON.stringify(whole)} is not known`);
    }
    const value = field === "" ? positional[next++] : /^\d+$/.test(field) ? positional[Number(field)] : named.get(field);
    if (value === undefined) throw new TemplateError(`nothing is given for the format field ${whole}`);
    return text(value);
  });
}
