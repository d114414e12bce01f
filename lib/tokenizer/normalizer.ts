/**
 * Brings text into the form that a tokenizer was trained on, as tokenizer.json describes it. Follows `normalizers/` of Hugging Face's
 * `tokenizers`; of `@huggingface/tokenizers`, which takes BERT's for UTF-16 units and lowers case by context, only the patterns are used.
 * @module
 */
import { FormatError, UnsupportedError } from "../errors.ts";
import { CharacterTable } from "./character_table.ts";

/** Normalizes a text. */
export type TextNormalizer = (text: string) => string;

/** The class of `@huggingface/tokenizers` that is of use as it is. */
export type NormalizerLibrary = Pick<typeof import("@huggingface/tokenizers"), "ReplaceNormalizer">;

/** A `normalizer` of tokenizer.json. */
interface Config {
  type: string;
  normalizers?: Config[];
  prepend?: string;
  strip_left?: boolean;
  strip_right?: boolean;
  clean_text?: boolean;
  handle_chinese_chars?: boolean;
  strip_accents?: boolean | null;
  lowercase?: boolean;
  precompiled_charsmap?: string | null;
}

/** Lower case by characters, as Rust has it: JavaScript's own lowers a sigma by what follows it. */
function lowercase(text: string): string {
  let result = "";
  for (const character of text) result += character.toLowerCase();
  return result;
}

/** Control characters that `Nmt` removes, and what it takes for a space (normalizers/unicode.rs). */
// deno-lint-ignore no-control-regex -- control characters are what this is to remove
const NMT_REMOVED = /[\x01-\x08\x0b\x0e-\x1f\x7f\x8f\x9f]/g;
const NMT_SPACE = /[\t\n\f\r\u1680\u200b-\u200f\u2028\u2029\u2581\ufeff\ufffd]/g;

/** Returns a table of characters. @throws {FormatError} */
function characterTable(base64: string | null | undefined): CharacterTable | undefined {
  // A table without a byte replaces nothing.
  if (base64 === null || base64 === undefined || base64 === "") return undefined;
  let bytes;
  try {
    bytes = Uint8Array.fromBase64(base64);
  } catch {
    throw new FormatError("Cannot use the tokenizer: its table of characters is not in base64");
  }
  return new CharacterTable(bytes);
}

/** Ideographs as BERT counts them, with the range that its Rust version has at U+2B920. */
const IDEOGRAPH =
  /[\u4e00-\u9fff\u3400-\u4dbf\u{20000}-\u{2a6df}\u{2a700}-\u{2b73f}\u{2b740}-\u{2b81f}\u{2b920}-\u{2ceaf}\uf900-\ufaff\u{2f800}-\u{2fa1f}]/gu;

// deno-lint-ignore no-control-regex -- NUL and control characters are what this is to remove
const CONTROL = /(?![\t\n\r])[\x00\ufffd\p{Cc}\p{Cf}\p{Co}\p{Cs}]/gu;

/** What BERT was trained on (normalizers/bert.rs): no control characters, ideographs apart, and unless cased no accents. */
function bert(config: Config): TextNormalizer {
  const { clean_text: clean = true, handle_chinese_chars: apart = true, lowercase: lower = true } = config;
  const strip = config.strip_accents ?? lower;
  return (text) => {
    if (clean) text = text.replace(CONTROL, "").replace(/\p{White_Space}/gu, " ");
    if (apart) text = text.replace(IDEOGRAPH, " $& ");
    if (strip) text = text.normalize("NFD").replace(/\p{Mn}/gu, "");
    return lower ? lowercase(text) : text;
  };
}

/**
 * Returns the normalizer that tokenizer.json describes; without one a text stays as it is.
 *
 * @throws {UnsupportedError} for one that is not known.
 */
export function textNormalizer(described: unknown, library: NormalizerLibrary): TextNormalizer {
  if (described === null || described === undefined) return (text) => text;
  const config = described as Config;
  switch (config.type) {
    case "Sequence": {
      const steps = (config.normalizers ?? []).map((step) => textNormalizer(step, library));
      return (text) => steps.reduce((text, step) => step(text), text);
    }
    case "NFC":
    case "NFD":
    case "NFKC":
    case "NFKD":
      return (text) => text.normalize(config.type);
    case "Replace": {
      const step = new library.ReplaceNormalizer(config as never);
      return (text) => step.normalize(text);
    }
    case "Prepend":
      return (text) => text === "" ? "" : (config.prepend ?? "") + text;
    case "Lowercase":
      return lowercase;
    case "StripAccents":
      return (text) => text.replace(/\p{M}/gu, "");
    case "Strip":
      return (text) => {
        const left = config.strip_left ?? true ? text.replace(/^\p{White_Space}+/u, "") : text;
        return config.strip_right ?? true ? left.replace(/\p{White_Space}+$/u, "") : left;
      };
    case "BertNormalizer":
      return bert(config);
    case "Nmt":
      return (text) => text.replace(NMT_REMOVED, "").replace(NMT_SPACE, " ");
    case "Precompiled": {
      const table = characterTable(config.precompiled_charsmap);
      return (text) => table ? table.replaceGraphemes(text) : text;
    }
  }
  const known =
    "Sequence, NFC, NFD, NFKC, NFKD, Nmt, Precompiled, Replace, Prepend, Lowercase, StripAccents, Strip, BertNormalizer";
  throw new UnsupportedError(`Cannot use the tokenizer: normalizer ${JSON.stringify(config.type)}; known are ${known}`);
}
