/**
 * Parses templates, as Jinja's parser.py does with the extensions that transformers adds: `break`, `continue` and `generation`.
 * @module
 */
import { UnsupportedError } from "../../errors.ts";
import { ExpressionParser } from "./expression_parser.ts";
import { SyntaxProblem, tokenize } from "./lexer.ts";
import type { Expression, Named, Parameter, Statement } from "./syntax.ts";

/** Statements of Jinja that chat templates have no use for: they read other templates, or need extensions that transformers does not load. */
const UNSUPPORTED = ["block", "extends", "include", "import", "from", "autoescape", "do", "trans"];
/** Statements within each other; a template that needs more is none. */
const MAX_DEPTH = 100;

class TemplateParser extends ExpressionParser {
  #depth = 0;

  /** Parses statements up to a tag that begins with one of some names, whose name is the next token; up to the end without names. */
  parseStatements(...ends: string[]): Statement[] {
    if (++this.#depth > MAX_DEPTH) throw new SyntaxProblem("statements are nested too deeply", this.current.line);
    const statements: Statement[] = [];
    for (;;) {
      const { kind, value } = this.current;
      if (kind === "end") {
        if (ends.length > 0) throw new SyntaxProblem(`the template ends, required is ${ends.join(" or ")},`, this.current.line);
        break;
      }
      this.advance();
      if (kind === "text") statements.push({ type: "Text", value });
      else if (kind === "outputBegin") {
        statements.push({ type: "Output", value: this.parseTuple() });
        this.#end("outputEnd");
      } else {
        if (this.isName(...ends)) break;
        statements.push(...this.#statement());
      }
    }
    this.#depth--;
    return statements;
  }

  /** Parses the body of a statement, its tag's end before it and the tag that ends it. */
  #body(end: string): Statement[] {
    this.#end("blockEnd");
    const body = this.parseStatements(end);
    this.advance();
    this.#end("blockEnd");
    return body;
  }

  #end(kind: "blockEnd" | "outputEnd"): void {
    if (this.current.kind !== kind) throw this.unexpected("the tag's end");
    this.advance();
  }

  #statement(): Statement[] {
    const { line } = this.current, name = this.expectName();
    switch (name) {
      case "for":
        return [this.#for()];
      case "if":
        return [this.#if()];
      case "set":
        return [this.#set()];
      case "macro": {
        const name = this.expectName(), parameters = this.#parameters();
        return [{ type: "Macro", name, parameters, body: this.#body("endmacro") }];
      }
      case "call": {
        const parameters = this.isOperator("(") ? this.#parameters() : [], call = this.parseExpression();
        if (call.type !== "CallExpression") throw new SyntaxProblem("call has no call", line);
        return [{ type: "Call", call, parameters, body: this.#body("endcall") }];
      }
      case "filter": {
        const filters = [this.parseNamed(), ...this.#filters()];
        return [{ type: "Filter", filters, body: this.#body("endfilter") }];
      }
      case "with":
        return [this.#with()];
      case "print": {
        const printed: Statement[] = [];
        while (this.current.kind !== "blockEnd") {
          if (printed.length > 0) this.expectOperator(",");
          printed.push({ type: "Output", value: this.parseExpression() });
        }
        this.#end("blockEnd");
        return printed;
      }
      case "generation":
        // Tells transformers which tokens to train on; of the text it changes nothing.
        return [{ type: "Block", body: this.#body("endgeneration"), isScope: true }];
      case "break":
      case "continue":
        this.#end("blockEnd");
        return [{ type: name === "break" ? "Break" : "Continue" }];
    }
    if (UNSUPPORTED.includes(name)) {
      throw new UnsupportedError(`Cannot use the chat template: statement ${JSON.stringify(name)} is not known`);
    }
    throw new SyntaxProblem(`unknown statement ${JSON.stringify(name)}`, line);
  }

  #for(): Statement {
    const target = this.#target(["in"]);
    if (!this.skipName("in")) throw this.unexpected('"in"');
    const iterable = this.parseTuple({ withConditional: false, ends: ["recursive"] });
    const test = this.skipName("if") ? this.parseExpression() : undefined;
    const isRecursive = this.skipName("recursive");
    this.#end("blockEnd");
    const body = this.parseStatements("endfor", "else");
    let otherwise: Statement[] = [];
    if (this.advance().value === "else") otherwise = this.#body("endfor");
    else this.#end("blockEnd");
    return { type: "For", target, iterable, test, isRecursive, body, otherwise };
  }

  #if(): Statement {
    const test = this.parseTuple({ withConditional: false });
    this.#end("blockEnd");
    const body = this.parseStatements("elif", "else", "endif"), ended = this.advance().value;
    let otherwise: Statement[] = [];
    if (ended === "elif") otherwise = [this.#if()];
    else if (ended === "else") otherwise = this.#body("endif");
    else this.#end("blockEnd");
    return { type: "If", test, body, otherwise };
  }

  #set(): Statement {
    const target = this.#target([]);
    if (this.skipOperator("=")) {
      const value = this.parseTuple();
      this.#end("blockEnd");
      return { type: "Set", target, value };
    }
    const filters = this.#filters();
    return { type: "SetBlock", target, filters, body: this.#body("endset") };
  }

  #with(): Statement {
    const targets: { target: Expression; value: Expression }[] = [];
    while (this.current.kind !== "blockEnd") {
      if (targets.length > 0) this.expectOperator(",");
      const target = this.#assignable(this.parsePrimary());
      this.expectOperator("=");
      targets.push({ target, value: this.parseExpression() });
    }
    return { type: "With", targets, body: this.#body("endwith") };
  }

  /** Parses what is assigned to: a name, several, or a name of a namespace. */
  #target(ends: string[]): Expression {
    const { kind, value } = this.following;
    if (this.current.kind === "name" && kind === "operator" && value === ".") {
      const object: Expression = { type: "Identifier", value: this.advance().value };
      this.advance();
      return { type: "MemberExpression", object, name: this.expectName() };
    }
    return this.#assignable(this.parseTuple({ isSimple: true, ends }));
  }

  #assignable(target: Expression): Expression {
    if (target.type === "TupleLiteral" || target.type === "ArrayLiteral") target.value.forEach((one) => this.#assignable(one));
    else if (target.type !== "Identifier") throw new SyntaxProblem(`cannot assign to a ${target.type}`, this.current.line);
    return target;
  }

  #filters(): Named[] {
    const filters: Named[] = [];
    while (this.skipOperator("|")) filters.push(this.parseNamed());
    return filters;
  }

  #parameters(): Parameter[] {
    const parameters: Parameter[] = [];
    this.expectOperator("(");
    while (!this.isOperator(")")) {
      if (parameters.length > 0) this.expectOperator(",");
      const name = this.expectName();
      parameters.push(this.skipOperator("=") ? { name, default: this.parseExpression() } : { name });
    }
    this.expectOperator(")");
    return parameters;
  }
}

/**
 * Parses a template.
 * @throws {SyntaxProblem} where it is none, {UnsupportedError} for a statement that reads other templates.
 */
export function parseTemplate(source: string): Statement {
  return { type: "Block", body: new TemplateParser(tokenize(source)).parseStatements(), isScope: false };
}
