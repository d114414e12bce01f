/**
 * Keeps what people write from becoming control tokens: whoever writes `<|eot_id|>` into a chat could end a turn in another's name.
 *
 * A chat template joins its own control tokens and what messages say to one text, so the tokens that messages spell out must be told apart
 * before. Each is given a mark inside, a noncharacter of Unicode: to the template it is text like any other, and the encoder, which
 * takes the marks out after it has found the control tokens, does not find it.
 * @module
 */
import { UsageError } from "../errors.ts";
import type { AddedToken } from "./encoder.ts";

/** Noncharacters, which no text for exchange holds (Unicode 23.7); the first one that a conversation does not hold is its mark. */
const MARKS = Array.from({ length: 16 }, (_, i) => String.fromCharCode(0xfdd2 + i));

/** Marks control tokens in the strings of one conversation. */
export class ControlTokenGuard {
  readonly #pattern: RegExp | undefined;
  readonly #prefixes = new Set<string>();
  readonly #suffixes = new Set<string>();
  readonly #normalized: string[];
  readonly #normalize: (text: string) => string;
  readonly #longest: number;

  /** @param normalize what the tokenizer does to a text before it looks for tokens that are matched after it. */
  constructor(tokens: readonly AddedToken[], normalize: (text: string) => string) {
    // One character alone has no inside to mark; such tokens, line breaks above all, are text in templates too.
    const contents = tokens.map(({ content }) => content).filter((content) => [...content].length > 1);
    this.#normalize = normalize;
    this.#normalized = tokens.filter(({ normalized }) => normalized).map(({ content }) => normalize(content)).filter(Boolean);
    this.#longest = contents.reduce((longest, { length }) => Math.max(longest, length), 0);
    if (contents.length === 0) return;
    const alternatives = contents.map((content) => content.replace(/[\\^$.*+?()[\]{}|/-]/g, "\\$&"));
    // A look ahead finds tokens that overlap, too.
    this.#pattern = new RegExp(`(?=(?:${alternatives.join("|")}))`, "giu");
    for (const content of contents) {
      for (let i = 1; i < content.length; i++) {
        this.#prefixes.add(content.slice(0, i));
        this.#suffixes.add(content.slice(i));
      }
    }
  }

  /** Returns a text with a mark in each control token that it spells out, and in what may become one beside the template's own text. */
  escape(text: string, mark: string): string {
    if (this.#pattern === undefined || text === "") return text;
    const cuts = new Set<number>();
    for (const { index } of text.matchAll(this.#pattern)) cuts.add(index + this.#firstLength(text, index));
    // Templates trim, so what whitespace keeps from the text's ends counts as being there.
    const from = text.length - text.trimStart().length, to = text.trimEnd().length;
    for (const end of new Set([to, text.length])) {
      for (let start = Math.max(0, end - this.#longest); start < end; start++) {
        if (this.#prefixes.has(text.slice(start, end))) cuts.add(start + this.#firstLength(text, start));
      }
    }
    for (const start of new Set([0, from])) {
      for (let end = start + 1; end <= Math.min(text.length, start + this.#longest); end++) {
        if (this.#suffixes.has(text.slice(start, end)) && text[end - 1].trim() !== "") cuts.add(end - 1);
      }
    }
    if (cuts.size === 0 && !this.#spells(text)) return text;
    const at = [...cuts].sort((a, b) => a - b);
    const escaped = at.map((cut, i) => text.slice(at[i - 1] ?? 0, cut)).concat(text.slice(at[at.length - 1] ?? 0)).join(mark);
    return this.#spells(escaped) ? [...text].join(mark) : escaped;
  }

  /** Whether a text becomes a control token by normalization. */
  #spells(text: string): boolean {
    if (this.#normalized.length === 0) return false;
    const normal = this.#normalize(text);
    return this.#normalized.some((content) => normal.includes(content));
  }

  #firstLength(text: string, index: number): number {
    return text.codePointAt(index)! > 0xffff ? 2 : 1;
  }
}

/**
 * Returns a mark that no string of the data holds.
 * @throws {UsageError} where each of them is held.
 */
export function chooseMark(data: unknown): string {
  const text = JSON.stringify(data) ?? "";
  const mark = MARKS.find((mark) => !text.includes(mark));
  if (mark === undefined) {
    throw new UsageError(
      "Cannot apply the chat template: the conversation holds all of Unicode's noncharacters from U+FDD2 to U+FDE1",
    );
  }
  return mark;
}
