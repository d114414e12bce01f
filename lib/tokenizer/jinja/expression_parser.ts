/**
 * Parses expressions of a template, with the precedence that Jinja's parser.py gives them.
 * @module
 */
import { SyntaxProblem, type Token } from "./lexer.ts";
import type { Argument, Expression, Named, SliceExpression } from "./syntax.ts";

const COMPARISONS = ["==", "!=", "<", "<=", ">", ">="];
const CONSTANTS: Readonly<Record<string, boolean | null>> = {
  ...{ true: true, True: true, false: false, False: false, none: null, None: null },
};
/** Expressions within each other; a template that needs more is none. */
const MAX_DEPTH = 300;

/** Goes through tokens. */
export class ExpressionParser {
  readonly #tokens: readonly Token[];
  #next = 0;
  #depth = 0;

  constructor(tokens: readonly Token[]) {
    this.#tokens = tokens;
  }

  /** The token that comes next. */
  protected get current(): Token {
    return this.#tokens[this.#next];
  }

  protected get following(): Token {
    return this.#tokens[Math.min(this.#next + 1, this.#tokens.length - 1)];
  }

  protected advance(): Token {
    const token = this.current;
    if (token.kind !== "end") this.#next++;
    return token;
  }

  /** Whether an operator comes next, or one of some. */
  protected isOperator(...values: string[]): boolean {
    return this.current.kind === "operator" && values.includes(this.current.value);
  }

  protected isName(...values: string[]): boolean {
    return this.current.kind === "name" && values.includes(this.current.value);
  }

  /** Goes past a name if it comes next. */
  protected skipName(value: string): boolean {
    const found = this.isName(value);
    if (found) this.advance();
    return found;
  }

  protected skipOperator(value: string): boolean {
    const found = this.isOperator(value);
    if (found) this.advance();
    return found;
  }

  protected expectOperator(value: string): void {
    if (!this.skipOperator(value)) throw this.unexpected(JSON.stringify(value));
  }

  protected expectName(): string {
    if (this.current.kind !== "name") throw this.unexpected("a name");
    return this.advance().value;
  }

  /** Makes the error for a token that cannot stand where it does. */
  protected unexpected(expected: string): SyntaxProblem {
    const { kind, value, line } = this.current;
    const found = kind === "end" ? "the template's end" : kind.endsWith("End") ? "the tag's end" : JSON.stringify(value);
    return new SyntaxProblem(`unexpected ${found}, required is ${expected},`, line);
  }

  protected parseExpression(withConditional = true): Expression {
    if (++this.#depth > MAX_DEPTH) throw new SyntaxProblem("expressions are nested too deeply", this.current.line);
    try {
      return withConditional ? this.#conditional() : this.#or();
    } finally {
      this.#depth--;
    }
  }

  /** Parses one expression, or several with commas between as a tuple. `ends` are names that end it. */
  protected parseTuple(
    { withConditional = true, isSimple = false, isParenthesized = false, ends = [] as string[] } = {},
  ): Expression {
    const items: Expression[] = [];
    let isTuple = false;
    for (;;) {
      if (items.length > 0) this.expectOperator(",");
      if (this.current.kind.endsWith("End") || this.isOperator(")") || this.isName(...ends)) break;
      items.push(isSimple ? this.parsePrimary() : this.parseExpression(withConditional));
      if (!this.isOperator(",")) break;
      isTuple = true;
    }
    if (!isTuple && items.length > 0) return items[0];
    if (!isTuple && !isParenthesized) throw this.unexpected("an expression");
    return { type: "TupleLiteral", value: items };
  }

  #conditional(): Expression {
    let expression = this.#or();
    while (this.skipName("if")) {
      const condition = this.#or(), otherwise = this.skipName("else") ? this.parseExpression() : undefined;
      expression = { type: "Conditional", condition, then: expression, otherwise };
    }
    return expression;
  }

  #or(): Expression {
    let left = this.#and();
    while (this.skipName("or")) left = { type: "BinaryExpression", operator: "or", left, right: this.#and() };
    return left;
  }

  #and(): Expression {
    let left = this.#not();
    while (this.skipName("and")) left = { type: "BinaryExpression", operator: "and", left, right: this.#not() };
    return left;
  }

  #not(): Expression {
    let negations = 0;
    while (this.skipName("not")) negations++;
    let expression = this.#comparison();
    for (; negations > 0; negations--) expression = { type: "UnaryExpression", operator: "not", argument: expression };
    return expression;
  }

  #comparison(): Expression {
    const first = this.#sum(), rest: { operator: string; right: Expression }[] = [];
    for (;;) {
      if (this.isOperator(...COMPARISONS)) rest.push({ operator: this.advance().value, right: this.#sum() });
      else if (this.skipName("in")) rest.push({ operator: "in", right: this.#sum() });
      else if (this.isName("not") && this.following.kind === "name" && this.following.value === "in") {
        this.advance();
        this.advance();
        rest.push({ operator: "not in", right: this.#sum() });
      } else return rest.length === 0 ? first : { type: "Comparison", first, rest };
    }
  }

  #binary(operators: string[], operand: () => Expression): Expression {
    let left = operand();
    while (this.isOperator(...operators)) {
      left = { type: "BinaryExpression", operator: this.advance().value, left, right: operand() };
    }
    return left;
  }

  #sum(): Expression {
    return this.#binary(["+", "-"], () => this.#concatenation());
  }

  #concatenation(): Expression {
    return this.#binary(["~"], () => this.#product());
  }

  #product(): Expression {
    return this.#binary(["*", "/", "//", "%"], () => this.#power());
  }

  #power(): Expression {
    return this.#binary(["**"], () => this.#unary(true));
  }

  #unary(withFilters: boolean): Expression {
    let expression: Expression;
    if (this.isOperator("-", "+")) {
      if (++this.#depth > MAX_DEPTH) throw new SyntaxProblem("expressions are nested too deeply", this.current.line);
      const operator = this.advance().value as "-" | "+";
      expression = { type: "UnaryExpression", operator, argument: this.#unary(false) };
      this.#depth--;
    } else expression = this.parsePrimary();
    expression = this.#postfix(expression);
    return withFilters ? this.#filtersAndTests(expression) : expression;
  }

  protected parsePrimary(): Expression {
    const { kind, value } = this.current;
    switch (kind) {
      case "name":
        this.advance();
        return Object.hasOwn(CONSTANTS, value)
          ? { type: "ConstantLiteral", value: CONSTANTS[value] }
          : { type: "Identifier", value };
      case "string": {
        // Strings next to each other are one.
        let joined = "";
        while (this.current.kind === "string") joined += this.advance().value;
        return { type: "StringLiteral", value: joined };
      }
      case "integer":
        this.advance();
        return { type: "IntegerLiteral", value: Number(value.replaceAll("_", "")) };
      case "float":
        this.advance();
        return { type: "FloatLiteral", value: Number(value.replaceAll("_", "")) };
    }
    if (this.skipOperator("(")) {
      const inner = this.parseTuple({ isParenthesized: true });
      this.expectOperator(")");
      return inner;
    }
    if (this.skipOperator("[")) return { type: "ArrayLiteral", value: this.#list("]", () => this.parseExpression()) };
    if (!this.skipOperator("{")) throw this.unexpected("an expression");
    const pair = (): [Expression, Expression] => {
      const key = this.parseExpression();
      this.expectOperator(":");
      return [key, this.parseExpression()];
    };
    return { type: "ObjectLiteral", value: this.#list("}", pair) };
  }

  /** Parses items with commas between up to what closes them; a comma may follow the last. */
  #list<T>(closer: string, item: () => T): T[] {
    const items: T[] = [];
    while (!this.isOperator(closer)) {
      if (items.length > 0) this.expectOperator(",");
      if (this.isOperator(closer)) break;
      items.push(item());
    }
    this.expectOperator(closer);
    return items;
  }

  #postfix(expression: Expression): Expression {
    for (;;) {
      if (this.skipOperator(".")) {
        const { kind, value } = this.advance();
        if (kind === "name") expression = { type: "MemberExpression", object: expression, name: value };
        else if (kind === "integer") {
          const key: Expression = { type: "IntegerLiteral", value: Number(value) };
          expression = { type: "ItemExpression", object: expression, key };
        } else throw this.unexpected("a name after the dot");
      } else if (this.skipOperator("[")) expression = { type: "ItemExpression", object: expression, key: this.#subscript() };
      else if (this.isOperator("(")) expression = { type: "CallExpression", callee: expression, args: this.parseArguments() };
      else return expression;
    }
  }

  #subscript(): Expression | SliceExpression {
    const keys = this.#list("]", () => this.#key());
    if (keys.length === 1) return keys[0];
    const items = keys.filter((key) => key.type !== "SliceExpression");
    if (items.length !== keys.length || keys.length === 0) throw this.unexpected("one key or slice in brackets");
    return { type: "TupleLiteral", value: items };
  }

  #key(): Expression | SliceExpression {
    const isBound = (): boolean => !this.isOperator(":", "]", ",");
    const start = isBound() ? this.parseExpression() : undefined;
    if (start && !this.isOperator(":")) return start;
    this.expectOperator(":");
    const stop = isBound() ? this.parseExpression() : undefined;
    const step = this.skipOperator(":") && isBound() ? this.parseExpression() : undefined;
    return { type: "SliceExpression", start, stop, step };
  }

  protected parseArguments(): Argument[] {
    this.expectOperator("(");
    return this.#list(")", (): Argument => {
      if (this.skipOperator("*")) return { kind: "spread", value: this.parseExpression() };
      if (this.skipOperator("**")) return { kind: "keywordSpread", value: this.parseExpression() };
      const { kind, value } = this.following;
      if (this.current.kind !== "name" || kind !== "operator" || value !== "=") {
        return { kind: "positional", value: this.parseExpression() };
      }
      const name = this.advance().value;
      this.advance();
      return { kind: "keyword", name, value: this.parseExpression() };
    });
  }

  #filtersAndTests(expression: Expression): Expression {
    for (;;) {
      if (this.skipOperator("|")) expression = { type: "FilterExpression", operand: expression, filter: this.parseNamed() };
      else if (this.skipName("is")) {
        const negate = this.skipName("not");
        expression = { type: "TestExpression", operand: expression, negate, test: this.#test() };
      } else if (this.isOperator("(")) {
        expression = { type: "CallExpression", callee: expression, args: this.parseArguments() };
      } else return expression;
    }
  }

  /** Parses a filter's name and its arguments. */
  protected parseNamed(): Named {
    let name = this.expectName();
    while (this.skipOperator(".")) name += `.${this.expectName()}`;
    return { name, args: this.isOperator("(") ? this.parseArguments() : [] };
  }

  /** Parses a test, whose one argument needs no parentheses: `x is divisibleby 2`. */
  #test(): Named {
    const test = this.parseNamed(), { kind } = this.current;
    const isArgument = ["name", "string", "integer", "float"].includes(kind) || this.isOperator("[", "{");
    if (test.args.length > 0 || !isArgument || this.isName("else", "or", "and")) return test;
    if (this.isName("is")) throw new SyntaxProblem("tests follow each other with is", this.current.line);
    return { name: test.name, args: [{ kind: "positional", value: this.#postfix(this.parsePrimary()) }] };
  }
}
