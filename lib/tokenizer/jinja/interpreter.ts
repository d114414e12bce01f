/**
 * Renders templates that `@huggingface/jinja` has parsed, with the meaning that Jinja and Python give them.
 *
 * The library's own interpreter gives several templates of released models another meaning: arguments of `lstrip` are dropped, lists and dicts
 * print as JSON, macros see their caller's variables, what a loop sets lasts into its next round. So only its parser is used.
 * @module
 */
import { FormatError, UnsupportedError } from "../../errors.ts";
import { applyFilter, applyTest, escapeHtml, type FilterContext } from "./filters.ts";
import { Loop } from "./loop.ts";
import { method } from "./methods.ts";
import { calculate, compareBy, COMPARISONS, slice } from "./operators.ts";
import { mentions } from "./mentions.ts";
import { GROUP, RECURSIVE, testOfName, TUPLE } from "./token_rewriting.ts";
import type { Argument, Expression, Named, Parameter, SliceExpression, Statement } from "./syntax.ts";
import {
  type Arguments,
  Callable,
  Float,
  isTrue,
  iterate,
  Namespace,
  numeric,
  TemplateError,
  text,
  Tuple,
  typeName,
  Undefined,
  undefinedError,
  type Value,
} from "./values.ts";

/** Calls of macros within each other; a template that needs more does not end. */
const MAX_DEPTH = 200;

/** Statements of one rendering; a template that takes more is no chat template. */
const MAX_STEPS = 5_000_000;

/** Variables by scope. */
class Scope {
  readonly variables = new Map<string, Value>();
  constructor(readonly parent?: Scope) {}

  get(name: string): Value {
    const value = this.variables.get(name);
    if (value !== undefined) return value;
    return this.parent ? this.parent.get(name) : new Undefined(`'${name}'`);
  }
}

type Binary = Expression & { type: "BinaryExpression" };

const ADDITIVE: ReadonlySet<string> = new Set(["+", "-", "~"]);

/** Returns the first operand of operators of one level, and each operator with the operand after it. */
function chain(node: Binary, level: ReadonlySet<string>): [Expression, { operator: { value: string }; operand: Expression }[]] {
  const rest = [{ operator: node.operator, operand: node.right }];
  let first = node.left;
  for (; first.type === "BinaryExpression" && level.has(first.operator.value); first = first.left) {
    rest.unshift({ operator: first.operator, operand: first.right });
  }
  return [first, rest];
}

/** Returns whether an expression gives text that says to be safe in HTML. */
function isMarkup(node: Expression): boolean {
  return node.type === "FilterExpression" && node.filter.type === "Identifier" && MARKUP_FILTERS.has(node.filter.value);
}

const MARKUP_FILTERS: ReadonlySet<string> = new Set(["safe", "escape", "e", "forceescape"]);

function escaped(value: Value): Value {
  return typeof value === "string" ? escapeHtml(value) : value;
}

class Break extends Error {}
class Continue extends Error {}

/** Renders one template with one set of variables. */
export class Interpreter implements FilterContext {
  #depth = 0;
  #steps = 0;

  /**
   * Returns the text that a program gives.
   *
   * @throws {TemplateError} where the template refuses its data or cannot work on it.
   * @throws {UnsupportedError} for what is not known here.
   */
  render(program: Statement, variables: Iterable<[string, Value]>): string {
    const scope = new Scope();
    for (const [name, value] of variables) scope.variables.set(name, value);
    return this.#run(program, scope);
  }

  #block(statements: readonly Statement[], scope: Scope): string {
    let result = "";
    for (const statement of statements) {
      try {
        result += this.#run(statement, scope);
      } catch (error) {
        // What was printed in this round before it ended counts.
        if (error instanceof Break || error instanceof Continue) error.message = result + error.message;
        throw error;
      }
    }
    return result;
  }

  #run(statement: Statement, scope: Scope): string {
    this.#step();
    switch (statement.type) {
      case "Program":
        return this.#block(statement.body, scope);
      case "Comment":
        return "";
      case "If":
        return this.#block(isTrue(this.#evaluate(statement.test, scope)) ? statement.body : statement.alternate, scope);
      case "For":
        return this.#for(statement, scope, 0);
      case "Break":
        throw new Break("");
      case "Continue":
        throw new Continue("");
      case "Set": {
        const value = statement.value === null
          ? this.#block(statement.body, new Scope(scope))
          : this.#evaluate(statement.value, scope);
        this.#assign(statement.assignee, value, scope);
        return "";
      }
      case "Macro":
        scope.variables.set(statement.name.value, this.#macro(statement.name.value, statement.args, statement.body, scope));
        return "";
      case "CallStatement": {
        const caller = this.#macro("caller", statement.callerArgs ?? [], statement.body, scope);
        const args = this.#arguments(statement.call.args, scope);
        args.named.set("caller", caller);
        return text(this.#call(this.#evaluate(statement.call.callee, scope), args));
      }
      case "FilterStatement": {
        const body = this.#block(statement.body, new Scope(scope));
        return text(this.#filter(body, statement.filter, scope));
      }
      default:
        return text(this.#evaluate(statement, scope));
    }
  }

  #for(node: Statement & { type: "For" }, outer: Scope, depth: number, given?: Value): string {
    const { iterable } = node;
    const chosen = iterable.type === "SelectExpression" ? iterable : undefined;
    let items = [...iterate(given ?? this.#evaluate(chosen ? chosen.lhs : iterable as Expression, outer))];
    const round = (item: Value): Scope => {
      const scope = new Scope(outer);
      this.#assign(node.loopvar, item, scope);
      return scope;
    };
    if (chosen) items = items.filter((item) => isTrue(this.#evaluate(chosen.test, round(item))));
    if (items.length === 0) return this.#block(node.defaultBlock, new Scope(outer));
    let result = "";
    const state = { last: new Undefined("nothing") as Value };
    const [first] = node.body, recursive = first?.type === "Identifier" && first.value === RECURSIVE;
    const again = recursive ? (given: Value) => this.#recurse(() => this.#for(node, outer, depth + 1, given)) : undefined;
    for (const index of items.keys()) {
      this.#step();
      const scope = round(items[index]);
      scope.variables.set("loop", new Loop(items, index, depth, state, again));
      try {
        result += this.#block(node.body, scope);
      } catch (error) {
        if (error instanceof Break) return result + error.message;
        if (!(error instanceof Continue)) throw error;
        result += error.message;
      }
    }
    return result;
  }

  #step(): void {
    if (++this.#steps > MAX_STEPS) throw new TemplateError("it does not come to an end");
  }

  /** Runs what may run itself, if not too deep. */
  #recurse(run: () => string): string {
    if (++this.#depth > MAX_DEPTH) throw new TemplateError("maximum recursion depth exceeded");
    try {
      return run();
    } finally {
      this.#depth--;
    }
  }

  #macro(name: string, parameters: readonly Parameter[], body: readonly Statement[], defined: Scope): Callable {
    const names = parameters.map((parameter) => parameter.type === "Identifier" ? parameter.value : parameter.key.value);
    return new Callable(name, ({ positional, named }) => {
      const scope = new Scope(defined), rest = new Map(named);
      for (const [i, parameter] of parameters.entries()) {
        let value: Value | undefined = positional[i];
        if (i >= positional.length) {
          value = rest.get(names[i]);
          rest.delete(names[i]);
        }
        value ??= value === undefined
          ? parameter.type === "Identifier"
            ? new Undefined(`parameter '${names[i]}' was not provided`)
            : this.#evaluate(parameter.value, scope)
          : null;
        scope.variables.set(names[i], value);
      }
      // A macro takes what else it is given if it says the name that this comes under.
      if (mentions(body, "caller") && !names.includes("caller")) {
        scope.variables.set("caller", rest.get("caller") ?? new Undefined("No caller defined"));
        rest.delete("caller");
      }
      const [unknown] = rest.keys();
      if (mentions(body, "kwargs")) scope.variables.set("kwargs", new Map<Value, Value>(rest));
      else if (unknown !== undefined) throw new TemplateError(`macro '${name}' takes no keyword argument '${unknown}'`);
      if (mentions(body, "varargs")) scope.variables.set("varargs", Tuple.from(positional.slice(names.length)) as Tuple);
      else if (positional.length > names.length) {
        throw new TemplateError(`macro '${name}' takes not more than ${names.length} argument(s)`);
      }
      return this.#recurse(() => this.#block(body, scope));
    });
  }

  #assign(target: Expression, value: Value, scope: Scope): void {
    if (target.type === "Identifier") scope.variables.set(target.value, value);
    else if (target.type === "TupleLiteral" || target.type === "ArrayLiteral") {
      const items = iterate(value);
      if (items.length !== target.value.length) {
        throw new TemplateError(`cannot unpack ${items.length} values into ${target.value.length}`);
      }
      target.value.forEach((one, i) => this.#assign(one, items[i], scope));
    } else if (target.type === "MemberExpression" && !target.computed && target.property.type === "Identifier") {
      const object = this.#evaluate(target.object, scope);
      if (!(object instanceof Namespace)) throw new TemplateError("cannot assign attribute on non-namespace object");
      object.set(target.property.value, value);
    } else throw new UnsupportedError(`Cannot use the chat template: it assigns to a ${target.type}`);
  }

  #arguments(args: readonly Argument[], scope: Scope): Arguments {
    const positional: Value[] = [], named = new Map<string, Value>();
    for (const argument of args) {
      if (argument.type === "KeywordArgumentExpression") named.set(argument.key.value, this.#evaluate(argument.value, scope));
      else if (argument.type === "SpreadExpression") positional.push(...iterate(this.#evaluate(argument.argument, scope)));
      else if (argument.type === "KeywordSpreadExpression") {
        const map = this.#evaluate(argument.argument, scope);
        if (!(map instanceof Map)) throw new TemplateError(`argument after ** must be a mapping, not ${typeName(map)}`);
        for (const [key, value] of map) named.set(text(key), value);
      } else positional.push(this.#evaluate(argument as Expression, scope));
    }
    return { positional, named };
  }

  #call(callee: Value, args: Arguments): Value {
    if (callee instanceof Callable) return callee.call(args);
    if (callee instanceof Undefined) throw undefinedError(callee);
    throw new TemplateError(`'${typeName(callee)}' object is not callable`);
  }

  #filter(value: Value, filter: Named, scope: Scope): Value {
    const { name, args } = this.#named(filter, scope);
    const test = testOfName(name);
    return test ? applyTest(value, test.name, args) !== test.negated : applyFilter(value, name, args, this);
  }

  #named(node: Named, scope: Scope): { name: string; args: Arguments } {
    if (node.type === "Identifier") return { name: node.value, args: { positional: [], named: new Map() } };
    if (node.callee.type !== "Identifier") throw new UnsupportedError("Cannot use the chat template: a filter has no name");
    return { name: node.callee.value, args: this.#arguments(node.args, scope) };
  }

  #evaluate(node: Expression, scope: Scope): Value {
    switch (node.type) {
      case "Identifier":
        return scope.get(node.value);
      case "IntegerLiteral":
      case "StringLiteral":
        return node.value;
      case "FloatLiteral":
        return new Float(node.value);
      case "ArrayLiteral":
        return node.value.map((item) => this.#evaluate(item, scope));
      case "TupleLiteral":
        return Tuple.from(node.value.map((item) => this.#evaluate(item, scope))) as Tuple;
      case "ObjectLiteral":
        return new Map([...node.value].map(([key, value]) => [this.#evaluate(key, scope), this.#evaluate(value, scope)]));
      case "MemberExpression": {
        const object = this.#evaluate(node.object, scope);
        if (node.property.type === "SliceExpression") return this.#slice(object, node.property, scope);
        if (node.computed) return this.#item(object, this.#evaluate(node.property, scope));
        return this.member(object, (node.property as { value: string }).value);
      }
      case "CallExpression":
        if (node.callee.type === "Identifier" && (node.callee.value === GROUP || node.callee.value === TUPLE)) {
          return this.#parentheses(node.callee.value === TUPLE, node.args as Expression[], scope);
        }
        return this.#call(this.#evaluate(node.callee, scope), this.#arguments(node.args, scope));
      case "BinaryExpression":
        return this.#binary(node, scope);
      case "UnaryExpression": {
        const value = this.#evaluate(node.argument, scope);
        if (node.operator.value === "not") return !isTrue(value);
        const number = numeric(value);
        if (number === undefined) {
          throw new TemplateError(`bad operand type for unary ${node.operator.value}: '${typeName(value)}'`);
        }
        const result = node.operator.value === "-" ? -number : number;
        return value instanceof Float ? new Float(result) : result;
      }
      case "FilterExpression":
        return this.#filter(this.#evaluate(node.operand, scope), node.filter, scope);
      case "SelectExpression":
        return isTrue(this.#evaluate(node.test, scope))
          ? this.#evaluate(node.lhs, scope)
          : new Undefined("the value of an if without else");
      case "Ternary":
        return this.#evaluate(isTrue(this.#evaluate(node.condition, scope)) ? node.trueExpr : node.falseExpr, scope);
      default:
        throw new UnsupportedError(`Cannot use the chat template: it holds a ${(node as { type: string }).type}`);
    }
  }

  /** Returns what is in parentheses: a tuple of one item or none, or a value. */
  #parentheses(isTuple: boolean, inside: readonly Expression[], scope: Scope): Value {
    // The parser takes arguments without a comma between them, which this is none of.
    if (inside.length > 1) throw new FormatError("Cannot read the chat template: a comma is missing in parentheses");
    return isTuple ? Tuple.from(inside.map((item) => this.#evaluate(item, scope))) as Tuple : this.#evaluate(inside[0], scope);
  }

  /** Returns `value.name`: an attribute or method, else an item. */
  member(value: Value, name: Value): Value {
    if (typeof name !== "string") return this.#item(value, name);
    if (value instanceof Undefined) throw undefinedError(value);
    if (value instanceof Namespace) {
      return value.attributes.has(name)
        ? value.attributes.get(name)!
        : new Undefined(`'Namespace' object has no attribute '${name}'`);
    }
    if (value instanceof Loop) return value.attribute(name);
    const found = method(value, name);
    if (found) return found;
    const missing = new Undefined(`'${typeName(value)}' object has no attribute '${name}'`);
    return value instanceof Map && value.has(name) ? value.get(name)! : missing;
  }

  /** Returns `value[key]`: an item, else an attribute. */
  #item(value: Value, key: Value): Value {
    if (value instanceof Undefined) throw undefinedError(value);
    if (value instanceof Map) {
      const found = value.get(key instanceof Float ? key.value : key);
      if (found !== undefined) return found;
    } else if ((typeof key === "number" || typeof key === "boolean") && (typeof value === "string" || Array.isArray(value))) {
      const items = typeof value === "string" ? [...value] : value, at = Number(key);
      return at < items.length && at >= -items.length
        ? items.at(at)!
        : new Undefined(`${typeName(value)} object has no element ${at}`);
    }
    return typeof key === "string"
      ? this.member(value, key)
      : new Undefined(`'${typeName(value)}' object has no element ${text(key)}`);
  }

  #slice(value: Value, { start, stop, step }: SliceExpression, scope: Scope): Value {
    const bound = (node: Expression | undefined): number | undefined => {
      const found = node === undefined ? null : this.#evaluate(node, scope);
      if (found === null || typeof found === "number") return found ?? undefined;
      throw new TemplateError("slice indices must be integers or None");
    };
    return slice(value, bound(start), bound(stop), bound(step) ?? 1);
  }

  #binary(node: Binary, scope: Scope): Value {
    const operator = node.operator.value;
    if (operator === "and" || operator === "or") {
      const left = this.#evaluate(node.left, scope);
      return isTrue(left) === (operator === "and") ? this.#evaluate(node.right, scope) : left;
    }
    if (COMPARISONS.has(operator)) return this.#compare(node, scope);
    if (ADDITIVE.has(operator)) return this.#add(node, scope);
    return calculate(operator, this.#evaluate(node.left, scope), this.#evaluate(node.right, scope));
  }

  #compare(node: Binary, scope: Scope): Value {
    const [first, rest] = chain(node, COMPARISONS);
    let left = this.#evaluate(first, scope), holds = true;
    for (const { operator, operand } of rest) {
      const right = this.#evaluate(operand, scope);
      holds = compareBy(operator.value, left, right);
      if (!holds) break;
      left = right;
    }
    return holds;
  }

  /** `~` binds closer than `+` and `-`, where the parser takes them from left to right. */
  #add(node: Binary, scope: Scope): Value {
    const [first, rest] = chain(node, ADDITIVE);
    let sum: Value | undefined, last = "+", part = this.#evaluate(first, scope);
    let safeSum = false, safe = isMarkup(first);
    const finish = () => {
      if (sum === undefined) return part;
      // What is added to text that is safe in HTML is made safe too.
      const [left, right] = safe && !safeSum ? [escaped(sum), part] : safeSum && !safe ? [sum, escaped(part)] : [sum, part];
      return calculate(last, left, right);
    };
    for (const { operator, operand } of rest) {
      const value = this.#evaluate(operand, scope);
      if (operator.value === "~") [part, safe] = [calculate("~", part, value), false];
      else [sum, safeSum, last, part, safe] = [finish(), safeSum || safe, operator.value, value, isMarkup(operand)];
    }
    return finish();
  }
}
