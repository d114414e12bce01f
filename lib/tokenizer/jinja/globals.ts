/**
 * What every chat template finds beside its own variables: Jinja's globals and those of transformers.
 * @module
 */
import { strftime } from "../strftime.ts";
import { Callable, iterate, Namespace, TemplateError, text, type Value } from "./values.ts";

/** Longest `range()`, as Jinja's sandbox has it. */
const MAX_RANGE = 100_000;

function integers(values: readonly Value[]): number[] {
  return values.map((value) => {
    if (typeof value === "number") return value;
    throw new TemplateError("range() takes integers");
  });
}

function range(args: readonly Value[]): Value {
  const [first, second, step = 1] = integers(args);
  const [start, stop] = args.length === 1 ? [0, first] : [first, second];
  if (step === 0) throw new TemplateError("range() arg 3 must not be zero");
  const length = Math.max(0, Math.ceil((stop - start) / step));
  if (length > MAX_RANGE) {
    throw new TemplateError(`Range too big. The sandbox blocks ranges larger than MAX_RANGE (${MAX_RANGE}).`);
  }
  return Array.from({ length }, (_, i) => start + i * step);
}

/** Returns the variables, of which those of the conversation may take the place of any. */
export function templateGlobals(now: Date): Map<string, Value> {
  const functions: Record<string, Callable["call"]> = {
    range: ({ positional }) => range(positional),
    namespace: ({ positional: [first], named }) => {
      const namespace = new Namespace();
      for (const [key, value] of [...(first instanceof Map ? first : []), ...named]) namespace.set(text(key), value);
      return namespace;
    },
    dict: ({ positional: [first], named }) => {
      const pairs = first instanceof Map
        ? [...first]
        : first === undefined
        ? []
        : iterate(first).map((pair) => iterate(pair) as [Value, Value]);
      return new Map<Value, Value>([...pairs, ...named]);
    },
    joiner: ({ positional: [separator = ", "] }) => {
      let used = false;
      return new Callable("joiner", () => used ? separator : (used = true, ""));
    },
    raise_exception: ({ positional: [message] }) => {
      throw new TemplateError(text(message ?? ""));
    },
    strftime_now: ({ positional: [format] }) => strftime(now, text(format)),
  };
  const globals = new Map<string, Value>(Object.entries(functions).map(([name, call]) => [name, new Callable(name, call)]));
  for (const [name, value] of Object.entries({ true: true, false: false, none: null })) {
    globals.set(name, value);
    globals.set(name[0].toUpperCase() + name.slice(1), value);
  }
  return globals;
}
