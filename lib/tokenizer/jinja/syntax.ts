/**
 * The syntax tree of a template. Types only.
 * @module
 */

/** A name. */
export interface Identifier {
  type: "Identifier";
  value: string;
}

/** One argument of a call: by its place, by `name=`, or spread with `*` or `**`. */
export type Argument =
  | { kind: "positional" | "spread" | "keywordSpread"; value: Expression }
  | { kind: "keyword"; name: string; value: Expression };

/** A filter or test with its arguments. */
export interface Named {
  name: string;
  args: Argument[];
}

/** Whatever has a value. */
export type Expression =
  | Identifier
  | { type: "IntegerLiteral" | "FloatLiteral"; value: number }
  | { type: "StringLiteral"; value: string }
  | { type: "ConstantLiteral"; value: boolean | null }
  | { type: "ArrayLiteral" | "TupleLiteral"; value: Expression[] }
  | { type: "ObjectLiteral"; value: [key: Expression, value: Expression][] }
  /** `object.name` */
  | { type: "MemberExpression"; object: Expression; name: string }
  /** `object[key]` */
  | { type: "ItemExpression"; object: Expression; key: Expression | SliceExpression }
  | { type: "CallExpression"; callee: Expression; args: Argument[] }
  | { type: "BinaryExpression"; operator: string; left: Expression; right: Expression }
  /** `a < b < c`: each compared with the one before, until one does not hold. */
  | { type: "Comparison"; first: Expression; rest: { operator: string; right: Expression }[] }
  | { type: "UnaryExpression"; operator: "-" | "+" | "not"; argument: Expression }
  | { type: "FilterExpression"; operand: Expression; filter: Named }
  | { type: "TestExpression"; operand: Expression; negate: boolean; test: Named }
  | { type: "Conditional"; condition: Expression; then: Expression; otherwise?: Expression };

/** `[start:stop:step]`. */
export interface SliceExpression {
  type: "SliceExpression";
  start?: Expression;
  stop?: Expression;
  step?: Expression;
}

/** A parameter of a macro. */
export interface Parameter {
  name: string;
  default?: Expression;
}

/** What a template is made of. */
export type Statement =
  | { type: "Text"; value: string }
  | { type: "Output"; value: Expression }
  | { type: "Block"; body: Statement[]; isScope: boolean }
  | { type: "If"; test: Expression; body: Statement[]; otherwise: Statement[] }
  | {
    type: "For";
    target: Expression;
    iterable: Expression;
    test?: Expression;
    isRecursive: boolean;
    body: Statement[];
    otherwise: Statement[];
  }
  | { type: "Break" | "Continue" }
  | { type: "Set"; target: Expression; value: Expression }
  | { type: "SetBlock"; target: Expression; filters: Named[]; body: Statement[] }
  | { type: "With"; targets: { target: Expression; value: Expression }[]; body: Statement[] }
  | { type: "Macro"; name: string; parameters: Parameter[]; body: Statement[] }
  | { type: "Call"; call: Expression & { type: "CallExpression" }; parameters: Parameter[]; body: Statement[] }
  | { type: "Filter"; filters: Named[]; body: Statement[] };
