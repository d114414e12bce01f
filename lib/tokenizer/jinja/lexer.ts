/**
 * Cuts a template into tokens, as Jinja's lexer.py does with the settings of transformers: `trim_blocks` and `lstrip_blocks`, by which a line that holds
 * nothing but a statement leaves nothing behind.
 * @module
 */
import { PYTHON_SPACE, strip } from "./methods.ts";

/** A part of a template. `value` of a string is what it stands for, of a number its spelling. */
export interface Token {
  kind:
    | "text"
    | "blockBegin"
    | "blockEnd"
    | "outputBegin"
    | "outputEnd"
    | "name"
    | "string"
    | "integer"
    | "float"
    | "operator"
    | "end";
  value: string;
  /** Line of the template, from 1. */
  line: number;
}

/** What is no template, with the line where. */
export class SyntaxProblem extends Error {
  constructor(message: string, readonly line: number) {
    super(`${message} in line ${line}`);
  }
}

const BEGIN = new RegExp(
  `\\{%([-+]?)${PYTHON_SPACE}*raw${PYTHON_SPACE}*(?:-%\\}${PYTHON_SPACE}*|%\\})|\\{%[-+]?|\\{\\{[-+]?|\\{#[-+]?`,
  "g",
);
const RAW_END = new RegExp(
  `\\{%([-+]?)${PYTHON_SPACE}*endraw${PYTHON_SPACE}*(?:\\+%\\}|-%\\}${PYTHON_SPACE}*|%\\}\\n?)`,
  "g",
);
const COMMENT_END = new RegExp(`\\+#\\}|-#\\}${PYTHON_SPACE}*|#\\}\\n?`, "g");
const BLOCK_END = new RegExp(`\\+%\\}|-%\\}${PYTHON_SPACE}*|%\\}\\n?`, "y");
const OUTPUT_END = new RegExp(`-\\}\\}${PYTHON_SPACE}*|\\}\\}`, "y");
const SPACES = new RegExp(`${PYTHON_SPACE}+`, "y");
const ALL_SPACES = new RegExp(`^${PYTHON_SPACE}+$`);
const FLOAT = /(?<!\.)(?:\d+_)*\d+(?:(?:\.(?:\d+_)*\d+)?[eE][+-]?(?:\d+_)*\d+|\.(?:\d+_)*\d+)/y;
const INTEGER = /0[bB](?:_?[01])+|0[oO](?:_?[0-7])+|0[xX](?:_?[\da-fA-F])+|[1-9](?:_?\d)*|0(?:_?0)*/y;
const NAME = /[\p{L}\p{Nl}_][\p{L}\p{Nl}\p{Mn}\p{Mc}\p{Nd}\p{Pc}]*/uy;
const STRING = /'(?:[^'\\]|\\[\s\S])*'|"(?:[^"\\]|\\[\s\S])*"/y;
const OPERATOR = /\*\*|\/\/|==|!=|>=|<=|[+\-*/%~[\](){}<>=.:|,;]/y;

const CLOSERS: Readonly<Record<string, string>> = { "(": ")", "[": "]", "{": "}" };
const ESCAPES: Readonly<Record<string, string>> = {
  ...{ "\n": "", "\\": "\\", "'": "'", '"': '"', a: "\x07", b: "\b", f: "\f", n: "\n", r: "\r", t: "\t", v: "\v" },
};

/** Returns what a string literal stands for, with Python's escapes. */
function unescape(literal: string, line: number): string {
  return literal.slice(1, -1).replace(
    /\\(?:x([\da-fA-F]{2})|u([\da-fA-F]{4})|U([\da-fA-F]{8})|([0-7]{1,3})|([xuUN])|([\s\S]))/g,
    (whole, byte, short, long, octal, broken, other) => {
      const hex = byte ?? short ?? long;
      if (broken || (long && parseInt(long, 16) > 0x10ffff)) throw new SyntaxProblem(`the escape ${whole} is none`, line);
      if (hex) return String.fromCodePoint(parseInt(hex, 16));
      if (octal) return String.fromCharCode(parseInt(octal, 8));
      return Object.hasOwn(ESCAPES, other) ? ESCAPES[other] : whole;
    },
  );
}

/** Goes through a template. */
class Lexer {
  readonly #source: string;
  readonly #tokens: Token[] = [];
  #at = 0;
  #line = 1;
  /** Whether what comes next begins a line. */
  #startsLine = true;

  constructor(source: string) {
    // A line break at the end is no part of a template.
    this.#source = source.replace(/\r\n|\r/g, "\n").replace(/\n$/, "");
  }

  tokens(): Token[] {
    while (this.#at < this.#source.length) {
      BEGIN.lastIndex = this.#at;
      const begin = BEGIN.exec(this.#source);
      if (!begin) {
        this.#add("text", this.#source.slice(this.#at));
        this.#at = this.#source.length;
        break;
      }
      this.#text(begin.index, begin[0]);
      this.#take(begin[0]);
      if (begin[1] !== undefined) this.#raw();
      else if (begin[0].startsWith("{#")) this.#comment();
      else if (begin[0].startsWith("{{")) this.#expression("outputBegin", "outputEnd", OUTPUT_END);
      else this.#expression("blockBegin", "blockEnd", BLOCK_END);
    }
    this.#add("end", "");
    return this.#tokens;
  }

  #add(kind: Token["kind"], value: string): void {
    if (kind !== "text" || value !== "") this.#tokens.push({ kind, value, line: this.#line });
  }

  /** Goes past a part of the template. */
  #take(part: string): void {
    this.#at += part.length;
    for (const character of part) if (character === "\n") this.#line++;
    this.#startsLine = part.endsWith("\n");
  }

  /** Adds the text before a tag, without the spaces that the tag takes away. */
  #text(end: number, tag: string): void {
    const whole = this.#source.slice(this.#at, end), sign = /[-+]/.exec(tag)?.[0];
    let text = whole;
    if (sign === "-") text = strip(text, undefined, false, true);
    else if (sign !== "+" && !tag.startsWith("{{")) {
      const lineStart = text.lastIndexOf("\n") + 1;
      if ((lineStart > 0 || this.#startsLine) && ALL_SPACES.test(text.slice(lineStart))) text = text.slice(0, lineStart);
    }
    this.#add("text", text);
    this.#take(whole);
  }

  #raw(): void {
    RAW_END.lastIndex = this.#at;
    const end = RAW_END.exec(this.#source);
    if (!end) throw new SyntaxProblem("a raw block has no end", this.#line);
    this.#text(end.index, `{%${end[1]}`);
    this.#take(end[0]);
  }

  #comment(): void {
    COMMENT_END.lastIndex = this.#at;
    const end = COMMENT_END.exec(this.#source);
    if (!end) throw new SyntaxProblem("a comment has no end", this.#line);
    this.#take(this.#source.slice(this.#at, end.index + end[0].length));
  }

  #match(pattern: RegExp): string | undefined {
    pattern.lastIndex = this.#at;
    return pattern.exec(this.#source)?.[0];
  }

  #expression(begin: Token["kind"], end: Token["kind"], endPattern: RegExp): void {
    this.#add(begin, "");
    const open: string[] = [];
    for (;;) {
      // Braces that are open are closed first: {{ {'a': {}} }}.
      const closes = open.length === 0 ? this.#match(endPattern) : undefined;
      if (closes !== undefined) {
        this.#take(closes);
        this.#add(end, "");
        return;
      }
      if (this.#at >= this.#source.length) throw new SyntaxProblem("the template ends within a tag", this.#line);
      const spaces = this.#match(SPACES);
      if (spaces !== undefined) this.#take(spaces);
      else this.#token(open);
    }
  }

  #token(open: string[]): void {
    for (const [kind, pattern] of [["float", FLOAT], ["integer", INTEGER], ["name", NAME], ["string", STRING]] as const) {
      const found = this.#match(pattern);
      if (found === undefined) continue;
      this.#add(kind, kind === "string" ? unescape(found, this.#line) : found);
      this.#take(found);
      return;
    }
    const operator = this.#match(OPERATOR);
    if (operator === undefined) throw new SyntaxProblem(`unexpected ${JSON.stringify(this.#source[this.#at])}`, this.#line);
    if (Object.hasOwn(CLOSERS, operator)) open.push(CLOSERS[operator]);
    else if ([")", "]", "}"].includes(operator) && open.pop() !== operator) {
      throw new SyntaxProblem(`unexpected ${JSON.stringify(operator)}`, this.#line);
    }
    this.#add("operator", operator);
    this.#take(operator);
  }
}

/** Returns the tokens of a template, an `end` last. @throws {SyntaxProblem} where it is none. */
export function tokenize(source: string): Token[] {
  return new Lexer(source).tokens();
}
