/**
 * Renders templates that `@huggingface/jinja` has parsed, with the meaning that Jinja and Python give them.
 *
 * The library's own interpreter gives several templates of released models another meaning: arguments of `lstrip` are dropped, lists and dicts
 * print as JSON, macros see their caller's variables, what a loop sets lasts into its next round. So only its parser is used.
 * @module
 */
import { UnsupportedError } from "../../errors.ts";
import { applyFilter, applyTest, type FilterContext } from "./filters.ts";
import { method } from "./methods.ts";
import type { Argument, Expression, Named, Parameter, SliceExpression, Statement } from "./syntax.ts";
import {
  type Arguments,
  Callable,
  compare,
  contains,
  equal,
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
    for (const index of items.keys()) {
      this.#step();
      const scope = round(items[index]);
      scope.variables.set("loop", new Loop(items, index, depth, state, (again) => this.#for(node, outer, depth + 1, again)));
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

  #macro(name: string, parameters: readonly Parameter[], body: readonly Statement[], defined: Scope): Callable {
    return new Callable(name, ({ positional, named }) => {
      if (++this.#depth > MAX_DEPTH) throw new TemplateError("maximum recursion depth exceeded");
      const scope = new Scope(defined), rest = new Map(named);
      parameters.forEach((parameter, i) => {
        const key = parameter.type === "Identifier" ? parameter.value : parameter.key.value;
        const value = positional[i] ?? rest.get(key) ??
          (parameter.type === "Identifier"
            ? new Undefined(`parameter '${key}' was not provided`)
            : this.#evaluate(parameter.value, scope));
        rest.delete(key);
        scope.variables.set(key, value);
      });
      const caller = rest.get("caller");
      if (caller !== undefined) scope.variables.set("caller", caller);
      rest.delete("caller");
      scope.variables.set("varargs", Tuple.from(positional.slice(parameters.length)) as Tuple);
      scope.variables.set("kwargs", new Map<Value, Value>(rest));
      try {
        return this.#block(body, scope);
      } finally {
        this.#depth--;
      }
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
      object.attributes.set(target.property.value, value);
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
    return applyFilter(value, name, args, this);
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
        return this.#call(this.#evaluate(node.callee, scope), this.#arguments(node.args, scope));
      case "BinaryExpression":
        return this.#binary(node.operator.value, node.left, node.right, scope);
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
      case "TestExpression": {
        const { name, args } = this.#named(node.test, scope);
        return applyTest(this.#evaluate(node.operand, scope), name, args) !== node.negate;
      }
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

  /** Returns `value.name`: an attribute or method, else an item. */
  member(value: Value, name: Value): Value {
    if (typeof name !== "string") return this.#item(value, name);
    if (value instanceof Undefined) throw undefinedError(value);
    if (value instanceof Namespace) {
      return value.attributes.get(name) ?? new Undefined(`'Namespace' object has no attribute '${name}'`);
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
    } else if (typeof key === "number" && (typeof value === "string" || Array.isArray(value))) {
      const items = typeof value === "string" ? [...value] : value;
      return items.at(key) ?? new Undefined(`${typeName(value)} object has no element ${key}`);
    }
    return typeof key === "string"
      ? this.member(value, key)
      : new Undefined(`'${typeName(value)}' object has no element ${text(key)}`);
  }

  #slice(value: Value, { start, stop, step }: SliceExpression, scope: Scope): Value {
    if (value instanceof Undefined) throw undefinedError(value);
    if (typeof value !== "string" && !Array.isArray(value)) {
      throw new TemplateError(`'${typeName(value)}' object is not subscriptable`);
    }
    const items: Value[] = typeof value === "string" ? [...value] : value;
    const bound = (node: Expression | undefined): number | undefined => {
      const found = node === undefined ? null : this.#evaluate(node, scope);
      if (found === null || typeof found === "number") return found ?? undefined;
      throw new TemplateError("slice indices must be integers or None");
    };
    const by = bound(step) ?? 1;
    if (by === 0) throw new TemplateError("slice step cannot be zero");
    const clamp = (at: number) => {
      const from = at < 0 ? at + items.length : at;
      return by > 0 ? Math.max(0, Math.min(items.length, from)) : Math.max(-1, Math.min(items.length - 1, from));
    };
    const first = bound(start), end = bound(stop);
    const from = first === undefined ? (by > 0 ? 0 : items.length - 1) : clamp(first);
    const to = end === undefined ? (by > 0 ? items.length : -1) : clamp(end);
    const result: Value[] = [];
    for (let i = from; by > 0 ? i < to : i > to; i += by) result.push(items[i]);
    if (typeof value === "string") return result.join("");
    return value instanceof Tuple ? Tuple.from(result) as Tuple : result;
  }

  #binary(operator: string, leftNode: Expression, rightNode: Expression, scope: Scope): Value {
    const left = this.#evaluate(leftNode, scope);
    if (operator === "and") return isTrue(left) ? this.#evaluate(rightNode, scope) : left;
    if (operator === "or") return isTrue(left) ? left : this.#evaluate(rightNode, scope);
    const right = this.#evaluate(rightNode, scope);
    switch (operator) {
      case "==":
        return equal(left, right);
      case "!=":
        return !equal(left, right);
      case "in":
        return contains(right, left);
      case "not in":
        return !contains(right, left);
      case "~":
        return text(left) + text(right);
      case "<":
        return compare(left, right) < 0;
      case "<=":
        return compare(left, right) <= 0;
      case ">":
        return compare(left, right) > 0;
      case ">=":
        return compare(left, right) >= 0;
    }
    for (const value of [left, right]) if (value instanceof Undefined) throw undefinedError(value);
    if (operator === "+" && typeof left === "string" && typeof right === "string") return left + right;
    if (operator === "+" && Array.isArray(left) && Array.isArray(right) && (left instanceof Tuple) === (right instanceof Tuple)) {
      return left instanceof Tuple ? Tuple.from([...left, ...right]) as Tuple : [...left, ...right];
    }
    if (operator === "*" && typeof left === "string" && typeof right === "number") {
      return left.repeat(Math.max(0, Math.min(right, 1e6)));
    }
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
}

/** The variable `loop`, which can be called to run the loop over something else. */
class Loop extends Callable {
  readonly #items: readonly Value[];
  readonly #index: number;
  readonly #depth: number;
  readonly #state: { last: Value };

  constructor(items: readonly Value[], index: number, depth: number, state: { last: Value }, again: (items: Value) => string) {
    super("loop", ({ positional }) => again(positional[0] ?? []));
    this.#items = items;
    this.#index = index;
    this.#depth = depth;
    this.#state = state;
  }

  attribute(name: string): Value {
    const { length } = this.#items, index = this.#index;
    switch (name) {
      case "index":
        return index + 1;
      case "index0":
        return index;
      case "revindex":
        return length - index;
      case "revindex0":
        return length - index - 1;
      case "first":
        return index === 0;
      case "last":
        return index === length - 1;
      case "length":
        return length;
      case "depth":
        return this.#depth + 1;
      case "depth0":
        return this.#depth;
      case "previtem":
        return this.#items[index - 1] ?? new Undefined("there is no previous item");
      case "nextitem":
        return this.#items[index + 1] ?? new Undefined("there is no next item");
      case "cycle":
        return new Callable(name, ({ positional }) => positional[index % positional.length]);
      case "changed":
        return new Callable(name, ({ positional }) => {
          const same = equal(positional, this.#state.last);
          this.#state.last = positional;
          return !same;
        });
    }
    return new Undefined(`'loop' has no attribute '${name}'`);
  }
}
