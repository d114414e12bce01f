/**
 * The syntax tree that `@huggingface/jinja` parses templates to. Types only; the library does not export its own.
 * @module
 */

/** A name. */
export interface Identifier {
  type: "Identifier";
  value: string;
}

/** `name=value` among arguments or parameters. */
export interface KeywordArgument {
  type: "KeywordArgumentExpression";
  key: Identifier;
  value: Expression;
}

/** A filter's or test's name, with arguments or without. */
export type Named = Identifier | { type: "CallExpression"; callee: Expression; args: Argument[] };

/** One argument of a call. */
export type Argument =
  | Expression
  | KeywordArgument
  | { type: "SpreadExpression" | "KeywordSpreadExpression"; argument: Expression };

/** Whatever has a value. */
export type Expression =
  | Identifier
  | { type: "IntegerLiteral" | "FloatLiteral"; value: number }
  | { type: "StringLiteral"; value: string }
  | { type: "ArrayLiteral" | "TupleLiteral"; value: Expression[] }
  | { type: "ObjectLiteral"; value: Map<Expression, Expression> }
  | { type: "MemberExpression"; object: Expression; property: Expression | SliceExpression; computed: boolean }
  | { type: "CallExpression"; callee: Expression; args: Argument[] }
  | { type: "BinaryExpression"; operator: { value: string }; left: Expression; right: Expression }
  | { type: "UnaryExpression"; operator: { value: string }; argument: Expression }
  | { type: "FilterExpression"; operand: Expression; filter: Named }
  | { type: "SelectExpression"; lhs: Expression; test: Expression }
  | { type: "Ternary"; condition: Expression; trueExpr: Expression; falseExpr: Expression };

/** `[start:stop:step]`. */
export interface SliceExpression {
  type: "SliceExpression";
  start?: Expression;
  stop?: Expression;
  step?: Expression;
}

/** A parameter of a macro. */
export type Parameter = Identifier | KeywordArgument;

/** What a template is made of. */
export type Statement =
  | Expression
  | { type: "Program"; body: Statement[] }
  | { type: "If"; test: Expression; body: Statement[]; alternate: Statement[] }
  | { type: "For"; loopvar: Expression; iterable: Expression; body: Statement[]; defaultBlock: Statement[] }
  | { type: "Break" | "Continue" }
  | { type: "Set"; assignee: Expression; value: Expression | null; body: Statement[] }
  | { type: "Macro"; name: Identifier; args: Parameter[]; body: Statement[] }
  | { type: "CallStatement"; call: Expression & { type: "CallExpression" }; callerArgs: Parameter[] | null; body: Statement[] }
  | { type: "FilterStatement"; filter: Named; body: Statement[] }
  | { type: "Comment"; value: string };
