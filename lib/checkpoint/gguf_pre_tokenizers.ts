/**
 * How text is cut before byte-level BPE, by `tokenizer.ggml.pre`, as the tokenizer.json of the releases that have the name does it. Names and which
 * releases they are of: llama.cpp's `src/llama-vocab.cpp` and `conversion/base.py`, whose own patterns are approximations of these.
 * @module
 */

/** What a name stands for. */
export interface PreTokenizer {
  pre_tokenizer: unknown;
  normalizer: unknown;
  /** Whether a piece that is a token stays one whatever merges say. */
  ignore_merges: boolean;
  /** Whether a text begins with the token for that where the file does not say. */
  beginsText: boolean;
}

const CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)", SPACES = "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
const LLAMA3 = `${CONTRACTIONS}|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|${SPACES}`;
const QWEN2 = LLAMA3.replace("\\p{N}{1,3}", "\\p{N}");
const QWEN35 = `${CONTRACTIONS}|[^\\r\\n\\p{L}\\p{N}]?[\\p{L}\\p{M}]+|\\p{N}| ?[^\\s\\p{L}\\p{M}\\p{N}]+[\\r\\n]*|${SPACES}`;

/** Words of o200k: a part in capitals, a part that is not, either of which may be missing. */
function words(upper: string, lower: string, ending: string): string {
  return `[^\\r\\n\\p{L}\\p{N}]?${upper}*${lower}+${ending}|[^\\r\\n\\p{L}\\p{N}]?${upper}+${lower}*${ending}`;
}
const UPPER = "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]", LOWER = "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]";
const TEKKEN = `${words(UPPER, LOWER, "")}|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|${SPACES}`;
const O200K = `${words(UPPER, LOWER, `${CONTRACTIONS}?`)}|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|${SPACES}`;

/** Letters of a kind that are no ideographs. */
const letters = (kinds: string) => `(?:(?!\\p{Script=Han})${kinds})`;
const KIMI = `\\p{Script=Han}+|${
  words(letters(UPPER), letters(LOWER), `${CONTRACTIONS}?`)
}|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|${SPACES}`;

const DEEPSEEK_V3 = [
  "\\p{N}{1,3}",
  `[${classOf([0x4e00, 0x9fa5, 0x3040, 0x309f, 0x30a0, 0x30ff])}]+`,
  `[!"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_\`{|}~][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\\r\\n]*|${SPACES}`,
];
/** Letters of scripts that have capitals: the first and the last of each range. */
const CASED = [
  ...[0x41, 0x5a, 0x61, 0x7a, 0xb5, 0xb5, 0xc0, 0xd6, 0xd8, 0xf6, 0xf8, 0x1ba, 0x1bc, 0x1bf, 0x1c4, 0x293],
  ...[0x295, 0x2af, 0x370, 0x373, 0x376, 0x377, 0x37b, 0x37d, 0x37f, 0x37f, 0x386, 0x386, 0x388, 0x38a, 0x38c, 0x38c],
  ...[0x38e, 0x3a1, 0x3a3, 0x3f5, 0x3f7, 0x481, 0x48a, 0x52f, 0x531, 0x556, 0x10a0, 0x10c5, 0x13a0, 0x13f5, 0x13f8, 0x13fd],
  ...[
    0x1c90,
    0x1cba,
    0x1cbd,
    0x1cbf,
    0x1d00,
    0x1d2b,
    0x1d6b,
    0x1d77,
    0x1d79,
    0x1d9a,
    0x1e00,
    0x1f15,
    0x1f18,
    0x1f1d,
    0x1f20,
    0x1f45,
  ],
  ...[
    0x1f48,
    0x1f4d,
    0x1f50,
    0x1f57,
    0x1f59,
    0x1f59,
    0x1f5b,
    0x1f5b,
    0x1f5d,
    0x1f5d,
    0x1f5f,
    0x1f7d,
    0x1f80,
    0x1fb4,
    0x1fb6,
    0x1fbc,
  ],
  ...[
    0x1fbe,
    0x1fbe,
    0x1fc2,
    0x1fc4,
    0x1fc6,
    0x1fcc,
    0x1fd0,
    0x1fd3,
    0x1fd6,
    0x1fdb,
    0x1fe0,
    0x1fec,
    0x1ff2,
    0x1ff4,
    0x1ff6,
    0x1ffc,
  ],
  ...[
    0x2102,
    0x2102,
    0x2107,
    0x2107,
    0x210a,
    0x2113,
    0x2115,
    0x2115,
    0x2119,
    0x211d,
    0x2124,
    0x2124,
    0x2126,
    0x2126,
    0x2128,
    0x2128,
  ],
  ...[
    0x212a,
    0x212d,
    0x212f,
    0x2134,
    0x2139,
    0x2139,
    0x213c,
    0x213f,
    0x2145,
    0x2149,
    0x214e,
    0x214e,
    0x2183,
    0x2184,
    0x2c00,
    0x2c7b,
  ],
  ...[
    0x2c7e,
    0x2ce4,
    0x2ceb,
    0x2cee,
    0x2cf2,
    0x2cf3,
    0xa640,
    0xa66d,
    0xa680,
    0xa69b,
    0xa722,
    0xa76f,
    0xa771,
    0xa787,
    0xa78b,
    0xa78e,
  ],
  ...[
    0xab70,
    0xabbf,
    0xfb00,
    0xfb06,
    0xfb13,
    0xfb17,
    0xff21,
    0xff3a,
    0xff41,
    0xff5a,
    0x10400,
    0x1044f,
    0x104b0,
    0x104d3,
    0x104d8,
    0x104fb,
  ],
  ...[0x10c80, 0x10cb2, 0x10cc0, 0x10cf2, 0x118a0, 0x118df, 0x1e900, 0x1e943],
];

/** Returns ranges of characters as a class has them, in characters: some of them normalization would change. */
function classOf(bounds: readonly number[]): string {
  const character = (index: number) => String.fromCodePoint(bounds[index]);
  return bounds.map((_, i) => i % 2 === 1 ? "" : `${character(i)}-${character(i + 1)}`).join("");
}
const CJK = `[${classOf([0x4e00, 0x9fa5, 0x800, 0x4e00, 0xac00, 0xd7ff])}]+`;
const PUNCTUATION = classOf([0x21, 0x2f, 0x3a, 0x7e, 0xff01, 0xff0f, 0xff1a, 0xff5e, 0x2018, 0x201f, 0x3000, 0x3002]);
const DEEPSEEK_LLM = ["[\\r\\n]", `\\s?[${classOf(CASED)}]+`, `\\s?[${PUNCTUATION}]+`, "\\s+$", CJK];
const DEEPSEEK_CODER = ["[\\r\\n]", "\\s?\\p{L}+", "\\s?\\p{P}+", CJK];

const split = (Regex: string) => ({ type: "Split", pattern: { Regex }, behavior: "Isolated", invert: false });
const digits = (individual: boolean) => ({ type: "Digits", individual_digits: individual });
const sequence = (...pretokenizers: unknown[]) => ({ type: "Sequence", pretokenizers });

/** Returns ByteLevel, which is the last step and the decoder. @param useRegex Whether it cuts as GPT-2 does. */
export function byteLevel(useRegex: boolean): Record<string, unknown> {
  return { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: useRegex };
}

const NFC = { type: "NFC" };

function pre(pre_tokenizer: unknown, changes: Partial<PreTokenizer> = {}): PreTokenizer {
  return { pre_tokenizer, normalizer: null, ignore_merges: false, beginsText: false, ...changes };
}

/** Cut by patterns, one after the other. */
const by = (...patterns: string[]) => sequence(...patterns.map(split), byteLevel(false));

const GPT2 = pre(byteLevel(true)), LLAMA = pre(by(LLAMA3), { ignore_merges: true, beginsText: true });
const DIGITS = pre(sequence(digits(true), byteLevel(true)));
const QWEN = pre(by(QWEN2), { normalizer: NFC });

/** By the name in a file. */
export const PRE_TOKENIZERS: Readonly<Record<string, PreTokenizer>> = {
  ...{ "gpt-2": GPT2, "phi-2": GPT2, "jais": GPT2, "olmo": { ...GPT2, normalizer: NFC }, "mpt": { ...GPT2, normalizer: NFC } },
  ...{ "llama-bpe": LLAMA, "llama3": LLAMA, "llama-v3": LLAMA, "falcon3": LLAMA },
  ...{ "dbrx": pre(by(LLAMA3)), "smaug-bpe": pre(by(LLAMA3)), "glm4": pre(by(LLAMA3)), "chatglm-bpe": pre(by(LLAMA3)) },
  ...{ "qwen2": QWEN, "deepseek-r1-qwen": QWEN, "stablelm2": QWEN, "qwen35": pre(by(QWEN35), { normalizer: NFC }) },
  ...{ "starcoder": DIGITS, "refact": DIGITS, "smollm": DIGITS, "codeshell": DIGITS },
  "command-r": { ...DIGITS, normalizer: NFC },
  "falcon": pre(
    sequence(
      { type: "Punctuation", behavior: "Contiguous" },
      byteLevel(true),
      digits(false),
      split("[0-9][0-9][0-9]"),
    ),
  ),
  "tekken": pre(by(TEKKEN), { ignore_merges: true, beginsText: true }),
  ...{ "gpt-4o": pre(by(O200K)), "llama4": pre(by(O200K)), "minimax-m2": pre(by(O200K)) },
  "kimi-k2": pre(by(KIMI)),
  ...{ "deepseek-v3": pre(by(...DEEPSEEK_V3)), "hunyuan-dense": pre(by(...DEEPSEEK_V3)) },
  "deepseek-llm": pre(sequence(...DEEPSEEK_LLM.map(split), digits(true), byteLevel(false))),
  "deepseek-coder": pre(sequence(...DEEPSEEK_CODER.map(split), digits(true), byteLevel(false))),
};
