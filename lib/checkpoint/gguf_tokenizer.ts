/**
 * The tokenizer that a GGUF file's metadata describe, as the files tokenizer.json and tokenizer_config.json. Byte-level BPE (`gpt2`) with the pre-tokenizers
 * of GPT-2, Llama 3 and Qwen 2, and SentencePiece's BPE (`llama`), whose merges are made of its scores as transformers does
 * (convert_slow_tokenizer.py). Keys: gguf-py's constants.py.
 * @module
 */
import { FormatError, UnsupportedError } from "../errors.ts";
import type { GgufValue } from "./gguf.ts";

/** Types of tokens that are special, and of those that are recognised in a text. */
const CONTROL = 3, USER_DEFINED = 4;

const LLAMA3_PATTERN =
  "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
const QWEN2_PATTERN = LLAMA3_PATTERN.replace("\\p{N}{1,3}", "\\p{N}");

const split = (Regex: string) => ({ type: "Split", pattern: { Regex }, behavior: "Isolated", invert: false });
const byteLevel = (useRegex: boolean) => ({
  type: "ByteLevel",
  add_prefix_space: false,
  trim_offsets: true,
  use_regex: useRegex,
});

/** What tokenizer.ggml.pre stands for. */
const PRE: Readonly<Record<string, { pre_tokenizer: unknown; normalizer: unknown; ignore_merges: boolean }>> = {
  "gpt-2": { pre_tokenizer: byteLevel(true), normalizer: null, ignore_merges: false },
  "llama-bpe": {
    pre_tokenizer: { type: "Sequence", pretokenizers: [split(LLAMA3_PATTERN), byteLevel(false)] },
    normalizer: null,
    ignore_merges: true,
  },
  "qwen2": {
    pre_tokenizer: { type: "Sequence", pretokenizers: [split(QWEN2_PATTERN), byteLevel(false)] },
    normalizer: { type: "NFC" },
    ignore_merges: false,
  },
};

/** Returns the merges that scores of pieces stand for: every split of a piece into two, better pieces first. */
function mergesOfScores(vocab: Map<string, number>, scores: number[]): [string, string][] {
  const merges: { pair: [string, string]; score: number }[] = [];
  for (const [piece, id] of vocab) {
    const characters = [...piece], own: [string, string][] = [];
    for (let i = 1; i < characters.length; i++) {
      const pair: [string, string] = [characters.slice(0, i).join(""), characters.slice(i).join("")];
      if (vocab.has(pair[0]) && vocab.has(pair[1])) own.push(pair);
    }
    own.sort(([a, b], [c, d]) => vocab.get(a)! - vocab.get(c)! || vocab.get(b)! - vocab.get(d)!);
    merges.push(...own.map((pair) => ({ pair, score: scores[id] })));
  }
  return merges.sort((a, b) => b.score - a.score).map(({ pair }) => pair);
}

/** Returns what tokenizer_config.json says of chat templates: one, or a list of those with names, which gguf-py writes apart. */
function chatTemplate(metadata: ReadonlyMap<string, GgufValue>): GgufValue | { name: string; template: GgufValue }[] | undefined {
  const only = metadata.get("tokenizer.chat_template"), names = metadata.get("tokenizer.chat_templates");
  if (!Array.isArray(names)) return only;
  const named = names.flatMap((name) => {
    const template = metadata.get(`tokenizer.chat_template.${name}`);
    return template === undefined ? [] : [{ name: String(name), template }];
  });
  return [...only === undefined ? [] : [{ name: "default", template: only }], ...named];
}

/**
 * Returns the contents of the tokenizer's files by name.
 * @throws {UnsupportedError} for a kind of tokenizer that is not known.
 * @throws {FormatError} where metadata are missing or contradict each other.
 */
export function ggufTokenizerFiles(metadata: ReadonlyMap<string, GgufValue>, where: string): Map<string, string> {
  const get = (name: string) => metadata.get(`tokenizer.ggml.${name}`);
  const list = <T extends string | number>(name: string, type: "string" | "number", length?: number): T[] => {
    const value = get(name);
    const fits = Array.isArray(value) && value.every((item) => typeof item === type) &&
      (length === undefined || value.length === length);
    if (!fits) {
      throw new FormatError(`Cannot read ${where}: tokenizer.ggml.${name} is no list of ${length ?? "any number of"} ${type}s`);
    }
    return value as T[];
  };
  const kind = get("model"),
    tokens = list<string>("tokens", "string"),
    types = list<number>("token_type", "number", tokens.length);
  const vocab = new Map(tokens.map((token, id) => [token, id]));
  const addedTokens = tokens.flatMap((content, id) => {
    const special = types[id] === CONTROL;
    return special || types[id] === USER_DEFINED
      ? [{ id, content, special, normalized: false, single_word: false, lstrip: false, rstrip: false }]
      : [];
  });
  const token = (name: string): string | undefined => {
    const id = get(`${name}_token_id`);
    if (id === undefined) return undefined;
    if (typeof id !== "number" || tokens[id] === undefined) {
      throw new FormatError(`Cannot read ${where}: tokenizer.ggml.${name}_token_id is ${id}`);
    }
    return tokens[id];
  };
  let parts: Record<string, unknown>;
  if (kind === "gpt2") {
    const pre = get("pre") ?? "gpt-2";
    if (typeof pre !== "string" || !Object.hasOwn(PRE, pre)) {
      throw new UnsupportedError(
        `Cannot use the tokenizer of ${where}: tokenizer.ggml.pre is ${JSON.stringify(pre)}, supported: ${
          Object.keys(PRE).join(", ")
        }`,
      );
    }
    const merges = list<string>("merges", "string").map((merge) => {
      // A space within a piece is another character in byte-level vocabularies.
      const at = merge.indexOf(" ", 1);
      return [merge.slice(0, at), merge.slice(at + 1)];
    });
    const { pre_tokenizer, normalizer, ignore_merges } = PRE[pre];
    const model = {
      type: "BPE",
      dropout: null,
      unk_token: null,
      byte_fallback: false,
      ignore_merges,
      vocab: Object.fromEntries(vocab),
      merges,
    };
    parts = { normalizer, pre_tokenizer, decoder: byteLevel(true), model };
  } else if (kind === "llama") {
    const prefix = get("add_space_prefix") !== false;
    const merges = mergesOfScores(vocab, list<number>("scores", "number", tokens.length));
    const replace = { type: "Replace", pattern: { String: " " }, content: "▁" };
    const model = {
      type: "BPE",
      dropout: null,
      unk_token: token("unknown") ?? "<unk>",
      fuse_unk: true,
      byte_fallback: true,
      vocab: Object.fromEntries(vocab),
      merges,
    };
    const decoders: unknown[] = [{ type: "Replace", pattern: { String: "▁" }, content: " " }, { type: "ByteFallback" }, {
      type: "Fuse",
    }];
    if (prefix) decoders.push({ type: "Strip", content: " ", start: 1, stop: 0 });
    parts = {
      normalizer: { type: "Sequence", normalizers: prefix ? [{ type: "Prepend", prepend: "▁" }, replace] : [replace] },
      pre_tokenizer: null,
      decoder: { type: "Sequence", decoders },
      model,
    };
  } else {
    throw new UnsupportedError(
      `Cannot use the tokenizer of ${where}: tokenizer.ggml.model is ${JSON.stringify(kind)}, supported: gpt2, llama`,
    );
  }
  const bos = token("bos"), eos = token("eos"), template = chatTemplate(metadata);
  // llama.cpp begins a text of SentencePiece's with the token where nothing is said.
  const addBos = get("add_bos_token") ?? kind === "llama";
  const config = {
    ...(bos === undefined ? {} : { bos_token: bos, add_bos_token: addBos === true }),
    ...(eos === undefined ? {} : { eos_token: eos, add_eos_token: get("add_eos_token") === true }),
    ...(template === undefined ? {} : { chat_template: template }),
  };
  return new Map([
    [
      "tokenizer.json",
      JSON.stringify({
        version: "1.0",
        truncation: null,
        padding: null,
        added_tokens: addedTokens,
        post_processor: null,
        ...parts,
      }),
    ],
    ["tokenizer_config.json", JSON.stringify(config)],
  ]);
}
