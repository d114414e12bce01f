/**
 * Turns a vocabulary of tiktoken, lines of base64 and rank, into what a tokenizer.json says, for checkpoints that have no other: Kimi K2's
 * `tiktoken.model`, and the `tokenizer.model` of GLM-4-9B as it was first released. Their patterns are in code that was published with them
 * (moonshotai/Kimi-K2-Instruct, tokenization_kimi.py; THUDM/glm-4-9b, tokenization_chatglm.py).
 *
 * The merges are all ways to put a token together from two others, better ranks first, as transformers' `TikTokenConverter` does it.
 * @module
 */
import { FormatError, UnsupportedError } from "../errors.ts";
import { byteAlphabet } from "./detokenizer.ts";

const GLM4 =
  "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";

/** Letters of a kind that are no ideographs. */
const letters = (kinds: string) => `(?:(?!\\p{Script=Han})[${kinds}])`;
const UPPER = letters("\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}"), LOWER = letters("\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}");
const ENDING = "(?i:'s|'t|'re|'ve|'m|'ll|'d)?";
const KIMI = [
  "\\p{Script=Han}+",
  `[^\\r\\n\\p{L}\\p{N}]?${UPPER}*${LOWER}+${ENDING}`,
  `[^\\r\\n\\p{L}\\p{N}]?${UPPER}+${LOWER}*${ENDING}`,
  ...["\\p{N}{1,3}", " ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*", "\\s*[\\r\\n]+", "\\s+(?!\\S)", "\\s+"],
].join("|");

/** By `tokenizer_class`: the pattern, and the tokens that begin a text. */
const KINDS: Readonly<Record<string, { pattern: string; before: readonly string[] }>> = {
  TikTokenTokenizer: { pattern: KIMI, before: [] },
  ChatGLM4Tokenizer: { pattern: GLM4, before: ["[gMASK]", "<sop>"] },
};

const damaged = (line: number) =>
  new FormatError(`Cannot read the tokenizer: line ${line} of its tiktoken file is no token and rank`);

/** Whether a file is one of tiktoken's. */
export function isTiktoken(file: Uint8Array): boolean {
  return /^[A-Za-z0-9+/]+=* \d+\r?\n/.test(new TextDecoder().decode(file.subarray(0, 4096)));
}

/** Returns the tokens by rank, each byte a character of GPT-2's alphabet. */
function readVocabulary(file: Uint8Array): Map<string, number> {
  const characters = new Map([...byteAlphabet()].map(([character, byte]) => [byte, character]));
  const vocabulary = new Map<string, number>();
  new TextDecoder().decode(file).split("\n").forEach((line, i) => {
    if (line.trim() === "") return;
    const match = /^([A-Za-z0-9+/]+=*) (\d+)\s*$/.exec(line);
    if (!match) throw damaged(i + 1);
    let token;
    try {
      token = Array.from(Uint8Array.fromBase64(match[1]), (byte) => characters.get(byte)).join("");
    } catch {
      throw damaged(i + 1);
    }
    const rank = Number(match[2]);
    if (token === "" || vocabulary.has(token) || rank > 1e7) throw damaged(i + 1);
    vocabulary.set(token, rank);
  });
  if (new Set(vocabulary.values()).size !== vocabulary.size) throw damaged(vocabulary.size);
  return vocabulary;
}

/** Returns the merges that build the tokens. */
function mergesOf(vocabulary: ReadonlyMap<string, number>): [string, string][] {
  const merges: { left: string; right: string; ranks: [number, number, number] }[] = [];
  for (const [token, rank] of vocabulary) {
    for (let i = 1; i < token.length; i++) {
      const left = token.slice(0, i), right = token.slice(i);
      const leftRank = vocabulary.get(left), rightRank = vocabulary.get(right);
      if (leftRank !== undefined && rightRank !== undefined) merges.push({ left, right, ranks: [rank, leftRank, rightRank] });
    }
  }
  merges.sort(({ ranks: a }, { ranks: b }) => a[0] - b[0] || a[1] - b[1] || a[2] - b[2]);
  return merges.map(({ left, right }) => [left, right]);
}

/**
 * Returns a tokenizer.json for a vocabulary of tiktoken.
 *
 * @throws {FormatError} where the file is damaged, {UnsupportedError} for a `tokenizer_class` whose pattern is not known.
 */
export function convertTiktoken(file: Uint8Array, tokenizerConfig: Record<string, unknown>): Record<string, unknown> {
  const kind = tokenizerConfig.tokenizer_class;
  if (typeof kind !== "string" || !Object.hasOwn(KINDS, kind)) {
    throw new UnsupportedError(
      `Cannot use the tokenizer: its tokenizer_class is ${JSON.stringify(kind)}, known with a tiktoken file are ${
        Object.keys(KINDS).join(", ")
      }`,
    );
  }
  const { pattern, before } = KINDS[kind], vocab = readVocabulary(file);
  const listed = (tokenizerConfig.added_tokens_decoder ?? {}) as Record<string, Record<string, unknown>>;
  const added = Object.entries(listed).map(([id, token]) => ({ normalized: false, ...token, id: Number(id) }));
  const split = { type: "Split", pattern: { Regex: pattern }, behavior: "Isolated", invert: false };
  const byteLevel = { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: false };
  return {
    added_tokens: added,
    normalizer: null,
    pre_tokenizer: { type: "Sequence", pretokenizers: [split, byteLevel] },
    decoder: byteLevel,
    post_processor: before.length === 0 ? null : {
      type: "TemplateProcessing",
      single: [...before.map((id) => ({ SpecialToken: { id, type_id: 0 } })), { Sequence: { id: "A", type_id: 0 } }],
      pair: [],
      special_tokens: Object.fromEntries(before.map((id) => [id, { id, ids: [], tokens: [id] }])),
    },
    model: {
      ...{ type: "BPE", dropout: null, unk_token: null, byte_fallback: false, ignore_merges: true },
      vocab: Object.fromEntries(vocab),
      merges: mergesOf(vocab),
    },
  };
}
