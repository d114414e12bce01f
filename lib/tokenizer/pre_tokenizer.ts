/**
 * Cuts normalized text into the pieces that a tokenizer's model works on, as tokenizer.json describes it.
 *
 * `@huggingface/tokenizers` differs here from the Rust library: its `Digits` takes no digits beyond ASCII, its `Punctuation` and `Split` know few of
 * the behaviors, and its `Metaspace` does not split. Those are written here; follows `pre_tokenizers/` and `tokenizer/normalizer.rs` of
 * Hugging Face's `tokenizers`.
 * @module
 */
import { UnsupportedError } from "../errors.ts";

/** Cuts a text; the number says how many sections of a longer text came before. */
export type PreTokenizer = (text: string, sectionIndex: number) => string[];

/** The classes of `@huggingface/tokenizers` that are of use as they are. */
export type PreTokenizerLibrary = Pick<
  typeof import("@huggingface/tokenizers"),
  | "BertPreTokenizer"
  | "ByteLevelPreTokenizer"
  | "MetaspacePreTokenizer"
  | "SplitPreTokenizer"
  | "WhitespacePreTokenizer"
  | "WhitespaceSplitPreTokenizer"
>;

/** A `pre_tokenizer` of tokenizer.json. */
interface Config {
  type: string;
  pretokenizers?: Config[];
  pattern?: { String?: string; Regex?: string };
  behavior?: string;
  invert?: boolean;
  individual_digits?: boolean;
  replacement?: string;
  split?: boolean;
}

const BEHAVIORS = ["Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"] as const;
type Behavior = typeof BEHAVIORS[number];

/** ASCII's punctuation counts, whatever Unicode says of `$+<=>^`|~`. */
const PUNCTUATION = /[\p{P}!-/:-@[-`{-~]/gu;

function behaviorOf({ type, behavior = "Isolated" }: Config): Behavior {
  const found = BEHAVIORS.find((known) => known.toLowerCase() === behavior.toLowerCase());
  if (found) return found;
  throw new UnsupportedError(
    `Cannot use the tokenizer: behavior ${JSON.stringify(behavior)} of its ${type}; known are ${BEHAVIORS.join(", ")}`,
  );
}

interface Piece {
  text: string;
  isMatch: boolean;
}

/** Cuts a text into matches and what is between them. */
function cut(text: string, pattern: RegExp, invert: boolean): Piece[] {
  const pieces: Piece[] = [];
  let end = 0;
  for (const match of text.matchAll(pattern)) {
    if (match.index > end) pieces.push({ text: text.slice(end, match.index), isMatch: invert });
    if (match[0] !== "") pieces.push({ text: match[0], isMatch: !invert });
    end = match.index + match[0].length;
  }
  if (end < text.length) pieces.push({ text: text.slice(end), isMatch: invert });
  return pieces;
}

/** Returns what a behavior makes of matches and what is between them. */
function split(text: string, pattern: RegExp, behavior: Behavior, invert = false): string[] {
  const pieces = cut(text, pattern, invert);
  if (behavior === "Removed") return pieces.filter(({ isMatch }) => !isMatch).map(({ text }) => text);
  if (behavior === "Isolated") return pieces.map(({ text }) => text);
  const joined: string[] = [];
  if (behavior === "MergedWithNext") {
    let before = false;
    for (const { text, isMatch } of pieces.reverse()) {
      if (isMatch && !before && joined.length > 0) joined[0] = text + joined[0];
      else joined.unshift(text);
      before = isMatch;
    }
    return joined;
  }
  let before: boolean | undefined;
  for (const { text, isMatch } of pieces) {
    const joins = behavior === "Contiguous" ? isMatch === before : isMatch && before === false;
    if (joins) joined[joined.length - 1] += text;
    else joined.push(text);
    before = isMatch;
  }
  return joined;
}

/**
 * Returns the pre-tokenizer that tokenizer.json describes; without one a text is one piece.
 *
 * @throws {UnsupportedError} for one, or a behavior of one, that is not known.
 */
export function preTokenizer(described: unknown, library: PreTokenizerLibrary): PreTokenizer {
  if (described === null || described === undefined) return (text) => [text];
  const config = described as Config;
  switch (config.type) {
    case "Sequence": {
      const steps = (config.pretokenizers ?? []).map((step) => preTokenizer(step, library));
      return (text, sectionIndex) => steps.reduce((pieces, step) => pieces.flatMap((piece) => step(piece, sectionIndex)), [text]);
    }
    case "Split": {
      // Its pattern is JavaScript's spelling of Oniguruma's.
      const { pattern } = new library.SplitPreTokenizer({ ...config, invert: false } as never) as unknown as {
        pattern: RegExp | null;
      };
      if (!pattern) throw new UnsupportedError("Cannot use the tokenizer: a Split without a pattern");
      const behavior = behaviorOf(config);
      return (text) => split(text, pattern, behavior, config.invert ?? false);
    }
    case "Digits": {
      const behavior = config.individual_digits ? "Isolated" : "Contiguous";
      return (text) => split(text, /\p{N}/gu, behavior);
    }
    case "Punctuation": {
      const behavior = behaviorOf(config);
      return (text) => split(text, PUNCTUATION, behavior);
    }
    case "Metaspace": {
      const step = new library.MetaspacePreTokenizer(config as never), mark = config.replacement ?? "▁";
      const pattern = new RegExp(mark.replace(/[\\^$.*+?()[\]{}|]/g, "\\$&"), "gu");
      return (text, sectionIndex) => {
        const pieces = step.pre_tokenize(text, { section_index: sectionIndex });
        return config.split === false ? pieces : pieces.flatMap((piece) => split(piece, pattern, "MergedWithNext"));
      };
    }
  }
  const classes: Record<string, keyof PreTokenizerLibrary> = {
    BertPreTokenizer: "BertPreTokenizer",
    ByteLevel: "ByteLevelPreTokenizer",
    Whitespace: "WhitespacePreTokenizer",
    WhitespaceSplit: "WhitespaceSplitPreTokenizer",
  };
  if (!Object.hasOwn(classes, config.type)) {
    const known = ["Sequence", "Split", "Digits", "Punctuation", "Metaspace", ...Object.keys(classes)].join(", ");
    throw new UnsupportedError(`Cannot use the tokenizer: pre-tokenizer ${JSON.stringify(config.type)}; known are ${known}`);
  }
  const step = new library[classes[config.type]](config as never);
  return (text, sectionIndex) => step.pre_tokenize(text, { section_index: sectionIndex });
}
