/**
 * The tokenizer that a GGUF file's metadata describe, as the files tokenizer.json and tokenizer_config.json: byte-level BPE (`gpt2`), and SentencePiece's
 * BPE (`llama`), whose merges are made of its scores as transformers does (convert_slow_tokenizer.py). Keys: gguf-py's constants.py.
 * @module
 */
import { FormatError, UnsupportedError } from "../errors.ts";
import type { GgufValue } from "./gguf.ts";
import { byteLevel, PRE_TOKENIZERS } from "./gguf_pre_tokenizers.ts";

/** Types of tokens that are special, and of those that are recognised in a text. */
const CONTROL = 3, USER_DEFINED = 4;

/** Names of tokens that end a text or a turn, beside those that metadata name (llama.cpp's `src/llama-vocab.cpp`). */
const END_TOKENS = [
  ...["<|eot_id|>", "<|im_end|>", "<|end|>", "<|return|>", "<|call|>", "<end_of_turn>", "<|endoftext|>", "<|eom_id|>", "<EOT>"],
  ...["_<EOT>", "[EOT]", "[EOS]", "<|end_of_text|>", "<end_of_utterance>", "<eos>", "</s>"],
];

/** Returns the tokens that end a text or a turn; that which metadata name as the end first. */
export function ggufEndTokens(metadata: ReadonlyMap<string, GgufValue>): number[] {
  const get = (name: string) => metadata.get(`tokenizer.ggml.${name}`);
  const tokens = get("tokens"),
    types = get("token_type"),
    ids: unknown[] = ["eos", "eot", "eom"].map((name) => get(`${name}_token_id`));
  if (Array.isArray(tokens) && Array.isArray(types)) {
    // In gpt-oss `<|end|>` ends a message that others follow.
    const known = tokens.includes("<|return|>") ? END_TOKENS.filter((name) => name !== "<|end|>") : END_TOKENS;
    for (const name of known) ids.push(tokens.findIndex((token, id) => token === name && types[id] === CONTROL));
  }
  return [...new Set(ids.filter((id): id is number => typeof id === "number" && id >= 0))];
}

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
  let parts: Record<string, unknown>, beginsText = kind === "llama";
  if (kind === "gpt2") {
    const pre = get("pre") ?? "gpt-2";
    if (typeof pre !== "string" || !Object.hasOwn(PRE_TOKENIZERS, pre)) {
      throw new UnsupportedError(
        `Cannot use the tokenizer of ${where}: tokenizer.ggml.pre is ${JSON.stringify(pre)}, supported: ${
          Object.keys(PRE_TOKENIZERS).join(", ")
        }`,
      );
    }
    const merges = list<string>("merges", "string").map((merge) => {
      // A space within a piece is another character in byte-level vocabularies.
      const at = merge.indexOf(" ", 1);
      return [merge.slice(0, at), merge.slice(at + 1)];
    });
    const { pre_tokenizer, normalizer, ignore_merges } = PRE_TOKENIZERS[pre];
    beginsText = PRE_TOKENIZERS[pre].beginsText;
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
  // As llama.cpp has it where nothing is said.
  const addBos = get("add_bos_token") ?? beginsText;
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
