/**
 * Rewrites a template's tokens so that `@huggingface/jinja`'s parser reads all of them, and reads them as Jinja does.
 *
 * What the parser does not know becomes something that it does, under a name that no template can write since it has a space: a test becomes
 * a filter, which in Jinja has the same precedence; a tuple and a group in parentheses become calls; a loop that is recursive says so in a
 * first statement.
 * @module
 */
import type { tokenize } from "@huggingface/jinja";

type Token = ReturnType<typeof tokenize>[number];

/** Stands before the arguments that are a tuple's items. */
export const TUPLE = "a tuple";

/** Stands before parentheses that keep operators apart; in the tree nothing else would tell `(a == b) == c` from `a == b == c`. */
export const GROUP = "a group";

/** Is printed first in each round of a loop that may be called, and prints nothing. */
export const RECURSIVE = "a recursive loop";

/** Returns the test that a filter's name stands for. */
export function testOfName(name: string): { name: string; negated: boolean } | undefined {
  const match = /^is (not )?(.*)$/.exec(name);
  return match ? { name: match[2], negated: match[1] !== undefined } : undefined;
}

/** Words after which a parenthesis begins an expression and not a call's arguments. */
const OPERATORS = new Set(["and", "or", "not", "in", "if", "elif", "else", "is"]);

/** Words that end a test's operand: what comes next is no argument of it. */
const AFTER_TEST = new Set(["else", "or", "and"]);

/** Tokens with which an expression may begin. */
const PRIMARIES: ReadonlySet<string> = new Set([
  ...["Identifier", "StringLiteral", "NumericLiteral"],
  ...["OpenParen", "OpenSquareBracket", "OpenCurlyBracket"],
]);

const OPENING: ReadonlySet<string> = new Set(["OpenParen", "OpenSquareBracket", "OpenCurlyBracket"]);
const CLOSING: ReadonlySet<string> = new Set(["CloseParen", "CloseSquareBracket", "CloseCurlyBracket"]);

function token(type: Token["type"], value: string): Token {
  return { type, value };
}

function isWord(token: Token | undefined, words: ReadonlySet<string>): boolean {
  return token?.type === "Identifier" && words.has(token.value);
}

/** Returns where the bracket that opens at a place closes, or the end where it does not. */
function closing(tokens: readonly Token[], from: number): number {
  let depth = 0;
  for (let i = from; i < tokens.length; i++) {
    if (OPENING.has(tokens[i].type)) depth++;
    else if (CLOSING.has(tokens[i].type) && --depth === 0) return i;
  }
  return tokens.length;
}

/** Joins the parts of `1e20`, `1_000` and `0xff`, which are a number and a word to the parser. */
function joinNumbers(tokens: readonly Token[]): Token[] {
  const result: Token[] = [];
  for (let i = 0; i < tokens.length; i++) {
    const number = tokens[i], word = tokens[i + 1];
    if (number.type !== "NumericLiteral" || word?.type !== "Identifier") {
      result.push(number);
      continue;
    }
    let value: string | undefined, used = 1;
    // A float is told from an int by its point.
    const decimal = (exponent: string) => (number.value.includes(".") ? number.value : `${number.value}.0`) + exponent;
    const sign = tokens[i + 2], digits = tokens[i + 3];
    if (/^e\d+$/i.test(word.value)) value = decimal(word.value);
    else if (/^e$/i.test(word.value) && /^[+-]$/.test(sign?.value) && /^\d+$/.test(digits?.value)) {
      [value, used] = [decimal(`e${sign.value}${digits.value}`), 3];
    } else if (/^(_\d+)+$/.test(word.value)) {
      value = number.value + word.value.replaceAll("_", "");
      if (sign?.type === "Dot" && digits?.type === "NumericLiteral") [value, used] = [`${value}.${digits.value}`, 3];
    } else if (/^-?0$/.test(number.value) && /^(x[\da-f]+|o[0-7]+|b[01]+)$/i.test(word.value)) {
      value = number.value.replace("0", String(Number(`0${word.value}`)));
    }
    result.push(value === undefined ? number : token("NumericLiteral", value));
    if (value !== undefined) i += used;
  }
  return result;
}

/** Returns where the one argument ends that a test takes without parentheses: a value with its members and calls. */
function argumentEnd(tokens: readonly Token[], from: number): number {
  let at = OPENING.has(tokens[from].type) ? closing(tokens, from) + 1 : from + 1;
  if (tokens[from].type === "StringLiteral") { while (tokens[at]?.type === "StringLiteral") at++; }
  for (;;) {
    const type = tokens[at]?.type;
    if (type === "Dot") at += 2;
    else if (type === "OpenSquareBracket" || type === "OpenParen") at = closing(tokens, at) + 1;
    else return Math.min(at, tokens.length);
  }
}

/** Turns `x is [not] name` with its arguments into a filter. */
function testsToFilters(tokens: readonly Token[]): Token[] {
  const result: Token[] = [];
  for (let i = 0; i < tokens.length; i++) {
    if (tokens[i].type !== "Identifier" || tokens[i].value !== "is" || tokens[i - 1]?.type === "Dot") {
      result.push(tokens[i]);
      continue;
    }
    const negated = tokens[i + 1]?.type === "Identifier" && tokens[i + 1].value === "not";
    const name = tokens[i + (negated ? 2 : 1)];
    if (name?.type !== "Identifier") {
      result.push(tokens[i]);
      continue;
    }
    i += negated ? 2 : 1;
    result.push(token("Pipe", "|"), token("Identifier", `is ${negated ? "not " : ""}${name.value}`));
    const next = tokens[i + 1];
    if (!next || next.type === "OpenParen" || !PRIMARIES.has(next.type) || isWord(next, AFTER_TEST)) continue;
    const end = argumentEnd(tokens, i + 1);
    result.push(token("OpenParen", "("), ...testsToFilters(tokens.slice(i + 1, end)), token("CloseParen", ")"));
    i = end - 1;
  }
  return result;
}

/** Returns where the commas of some tokens are that are in no brackets, and whether operators are there that parentheses keep apart. */
function outline(inside: readonly Token[]): { commas: number[]; operators: boolean } {
  const commas: number[] = [];
  let depth = 0, operators = false;
  for (const [i, one] of inside.entries()) {
    if (OPENING.has(one.type)) depth++;
    else if (CLOSING.has(one.type)) depth--;
    else if (depth > 0) continue;
    else if (one.type === "Comma") commas.push(i);
    else if (one.type === "ComparisonBinaryOperator" || one.type === "AdditiveBinaryOperator") operators = true;
    else if (one.type === "Identifier" && (one.value === "in" || one.value === "if") && inside[i - 1]?.type !== "Dot") {
      operators = true;
    }
  }
  return { commas, operators };
}

/** Puts names before parentheses that are tuples of one item or none, or keep operators apart; a longer tuple loses a comma at its end. */
function nameGroups(tokens: readonly Token[]): Token[] {
  const dropped = new Set<number>();
  return tokens.flatMap((one, i) => {
    if (dropped.has(i)) return [];
    if (one.type !== "OpenParen") return one;
    const before = tokens[i - 1];
    const calls = before && (["CloseParen", "CloseSquareBracket", "CloseCurlyBracket", "StringLiteral"].includes(before.type) ||
      before.type === "Identifier" && (!OPERATORS.has(before.value) || ["Dot", "Pipe"].includes(tokens[i - 2]?.type)));
    if (calls) return one;
    const inside = tokens.slice(i + 1, closing(tokens, i)), { commas, operators } = outline(inside);
    const endsWithComma = commas[commas.length - 1] === inside.length - 1;
    if (commas.length > 1 && endsWithComma) dropped.add(i + inside.length);
    const isShort = inside.length === 0 || (commas.length === 1 && endsWithComma);
    const name = isShort ? TUPLE : operators && commas.length === 0 ? GROUP : undefined;
    return name === undefined ? one : [token("Identifier", name), one];
  });
}

/** Takes `recursive` out of loops and puts a statement in that says it. */
function markRecursiveLoops(tokens: readonly Token[]): Token[] {
  let inLoop = false, recursive = false;
  return tokens.flatMap((one, i) => {
    if (one.type === "OpenStatement") inLoop = isWord(tokens[i + 1], new Set(["for"]));
    if (inLoop && isWord(one, new Set(["recursive"])) && tokens[i + 1]?.type === "CloseStatement") {
      recursive = true;
      return [];
    }
    if (one.type !== "CloseStatement" || !recursive) return one;
    recursive = false;
    return [one, token("OpenExpression", "{{"), token("Identifier", RECURSIVE), token("CloseExpression", "}}")];
  });
}

/** Returns the tokens that mean to the parser what a template's tokens mean to Jinja. */
export function rewriteTokens(tokens: readonly Token[]): Token[] {
  return markRecursiveLoops(nameGroups(testsToFilters(joinNumbers(tokens))));
}
