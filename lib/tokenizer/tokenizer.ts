/**
 * A model's tokenizer, read from its tokenizer.json.
 * @module
 */
import { existsSync } from "node:fs";
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { FormatError, UsageError } from "../errors.ts";
import { ChatEncoder, type ChatPrompt, chatTemplates, tokenText } from "./chat_encoder.ts";
import type { ChatMessage, ChatTemplateOptions } from "./chat_template.ts";
import { Detokenizer, type DetokenizerOptions, tokenDecoder } from "./detokenizer.ts";
import { tokenizerJsonParts } from "./tokenizer_json.ts";
import type { TokenizerParts } from "./tokenizer_parts.ts";

/** How text is encoded. */
export interface EncodeOptions {
  /** Adds what the model expects around a text, such as a token that begins it. Default: true. */
  addSpecialTokens?: boolean;
  /**
   * Recognises special tokens written out in the text, such as `<|eot_id|>`. Only for text from a trusted source: by default they are
   * ordinary text, so that a user cannot forge them. Default: false.
   */
  allowSpecialTokens?: boolean;
}

/** How tokens are decoded. */
export interface DecodeOptions {
  /** Leaves special tokens out of the text. Default: true. */
  skipSpecialTokens?: boolean;
}

/** A tokenizer; calling it encodes one or several texts. */
export interface Tokenizer {
  (texts: string | readonly string[], options?: EncodeOptions): { inputIds: number[][] };
  /** Returns the tokens of a text. */
  encode(text: string, options?: EncodeOptions): number[];
  /**
   * Returns the text of tokens. Bytes that are not UTF-8 become U+FFFD; spaces before punctuation stay as they are.
   * @throws {UsageError} where an id is not in the vocabulary.
   */
  decode(ids: ArrayLike<number>, options?: DecodeOptions): string;
  /** Returns a decoder that takes tokens one at a time. */
  detokenizer(options?: DetokenizerOptions): Detokenizer;
  /**
   * Turns a conversation into a prompt with the model's own chat template, as transformers does.
   *
   * Control tokens come from the template alone: what messages, tools and documents spell out, such as `<|eot_id|>`, is ordinary text.
   *
   * @throws {UsageError} where there is no template, or it refuses the messages.
   */
  applyChatTemplate(messages: readonly ChatMessage[], options?: ChatTemplateOptions): Promise<ChatPrompt>;
  /** Whether there is a chat template. */
  readonly hasChatTemplate: boolean;
  /** Tokens that end a text: of generation_config.json, else config.json, else tokenizer_config.json. */
  readonly eosTokenIds: readonly number[];
  /** Token that begins a text, where the tokenizer names one. */
  readonly bosTokenId: number | undefined;
  /** One more than the largest token id; a model's own vocabulary may be padded beyond it. */
  readonly vocabSize: number;
}

/** The parsed files that describe a tokenizer. */
export interface TokenizerFiles {
  /** tokenizer.json */
  tokenizer?: Record<string, unknown>;
  /** The bytes of tokenizer.model, ice_text.model or tiktoken.model, of SentencePiece or tiktoken, which is read where there is no tokenizer.json. */
  sentencePiece?: Uint8Array;
  /** tokenizer_config.json; without one nothing is known but what tokenizer.json says. */
  tokenizerConfig?: Record<string, unknown>;
  /** config.json, for its eos_token_id. */
  config?: Record<string, unknown> | null;
  /** generation_config.json, for its eos_token_id. */
  generationConfig?: Record<string, unknown> | null;
  /**
   * The text of chat_template.jinja, or of chat_template.json's `chat_template`, as `default`, and those of additional_chat_templates/ by
   * name. They go before those of tokenizer_config.json.
   */
  chatTemplates?: ReadonlyMap<string, string>;
}

/** Returns an eos_token_id, which may be one number or several, as a list; undefined where there is none. */
function tokenIds(value: unknown, file: string): number[] | undefined {
  if (value === undefined || value === null) return undefined;
  const list = Array.isArray(value) ? value : [value];
  if (!list.every((id) => Number.isSafeInteger(id) && id >= 0)) {
    throw new FormatError(`Cannot read ${file}: eos_token_id is ${JSON.stringify(value)}, required a token id or a list of them`);
  }
  return list;
}

/** Returns the parts of a tokenizer from a file of SentencePiece or tiktoken. Loaded here, not at the top: few checkpoints need them. */
async function sentencePieceFileParts(file: Uint8Array, tokenizerConfig: Record<string, unknown>): Promise<TokenizerParts> {
  const { convertTiktoken, isTiktoken } = await import("./tiktoken.ts");
  if (isTiktoken(file)) return await tokenizerJsonParts(convertTiktoken(file, tokenizerConfig), tokenizerConfig);
  if (tokenizerConfig.tokenizer_class === "ChatGLMTokenizer") {
    return (await import("./chatglm_tokenizer.ts")).chatglmParts(file, tokenizerConfig);
  }
  return (await import("./sentence_piece.ts")).sentencePieceParts(file, tokenizerConfig);
}

/**
 * Makes a tokenizer from its parsed files.
 *
 * @throws {FormatError} where they are not what they should be.
 * @throws {UnsupportedError} for a kind of tokenizer that is not known.
 */
export async function createTokenizer(files: TokenizerFiles): Promise<Tokenizer> {
  const { tokenizer, sentencePiece, tokenizerConfig = {} } = files;
  if (tokenizer === undefined && sentencePiece === undefined) {
    throw new FormatError("Cannot make a tokenizer: required is a tokenizer.json or a tokenizer.model");
  }
  const parts = tokenizer !== undefined
    ? await tokenizerJsonParts(tokenizer, tokenizerConfig)
    : await sentencePieceFileParts(sentencePiece!, tokenizerConfig);
  const { encoder, vocabulary, added } = parts;
  const specialId = (token: string, what: string): number => {
    const id = parts.idOf(token);
    if (id === undefined) {
      throw new FormatError(`Cannot use the tokenizer: ${what} ${JSON.stringify(token)} is not in its vocabulary`);
    }
    return id;
  };
  let before = parts.before.map((token) => specialId(token, "post-processor's"));
  let after = parts.after.map((token) => specialId(token, "post-processor's"));
  const bos = tokenText(tokenizerConfig.bos_token), eos = tokenText(tokenizerConfig.eos_token) ?? parts.eosToken;
  // As in transformers, these two of tokenizer_config.json take the place of the post-processor.
  const { add_bos_token: addBos, add_eos_token: addEos } = tokenizerConfig;
  if (typeof addBos === "boolean") before = addBos && bos !== undefined ? [specialId(bos, "bos_token")] : [];
  if (typeof addEos === "boolean") after = addEos && eos !== undefined ? [specialId(eos, "eos_token")] : [];

  const templates = chatTemplates(files.chatTemplates ?? new Map(), tokenizerConfig);
  const chat = new ChatEncoder(encoder, added, parts.normalize, templates, tokenizerConfig);
  const addedTokens = new Map(added.map((token) => [token.id, token]));
  const decoder = tokenDecoder(parts.decoder, { token: (id) => vocabulary[id], addedTokens });
  const vocabSize = vocabulary.length;
  const eosTokenIds = tokenIds(files.generationConfig?.eos_token_id, "generation_config.json") ??
    tokenIds(files.config?.eos_token_id, "config.json") ??
    (eos === undefined ? [] : [specialId(eos, "eos_token")]);

  const encode = (text: string, options: EncodeOptions = {}): number[] => {
    const ids = encoder.encode(text, options.allowSpecialTokens ?? false);
    return options.addSpecialTokens ?? true ? [...before, ...ids, ...after] : ids;
  };
  return Object.assign(
    (texts: string | readonly string[], options?: EncodeOptions): { inputIds: number[][] } => ({
      inputIds: (typeof texts === "string" ? [texts] : texts).map((text) => encode(text, options)),
    }),
    {
      encode,
      decode(ids: ArrayLike<number>, options: DecodeOptions = {}): string {
        const detokenizer = new Detokenizer(decoder, options);
        let text = "";
        for (let i = 0; i < ids.length; i++) {
          if (vocabulary[ids[i]] === undefined) {
            throw new UsageError(`Cannot decode token ${ids[i]}: the vocabulary holds ids from 0 to ${vocabSize - 1}`);
          }
          text += detokenizer.push(ids[i]);
        }
        return text + detokenizer.flush();
      },
      detokenizer: (options?: DetokenizerOptions): Detokenizer => new Detokenizer(decoder, options),
      applyChatTemplate: async (messages: readonly ChatMessage[], options?: ChatTemplateOptions): Promise<ChatPrompt> =>
        await chat.apply(messages, options),
      hasChatTemplate: templates.size > 0,
      eosTokenIds,
      bosTokenId: bos === undefined ? undefined : specialId(bos, "bos_token"),
      vocabSize,
    },
  );
}

/** Reads a JSON object, or undefined where there is no such file. */
async function readJson(path: string): Promise<Record<string, unknown> | undefined> {
  const text = await readText(path);
  if (text === undefined) return undefined;
  try {
    const value = JSON.parse(text);
    if (typeof value === "object" && value !== null && !Array.isArray(value)) return value;
  } catch {
    // Reported below, like JSON that is not an object.
  }
  throw new FormatError(`Cannot read ${path}: it is not a JSON object`);
}

/** Reads a text, or undefined where there is no such file. */
async function readText(path: string): Promise<string | undefined> {
  try {
    return await readFile(path, "utf8");
  } catch (error) {
    if ((error as { code?: string }).code === "ENOENT") return undefined;
    throw new FormatError(`Cannot read ${path}: ${(error as Error).message}`);
  }
}

/** Reads the chat templates of files of their own, by name. */
async function readChatTemplates(directory: string): Promise<Map<string, string>> {
  const folder = join(directory, "additional_chat_templates"), templates = new Map<string, string>();
  const first = await readText(join(directory, "chat_template.jinja")) ?? await readOlderChatTemplate(directory);
  if (first !== undefined) templates.set("default", first);
  for (const name of existsSync(folder) ? (await readdir(folder)).filter((name) => name.endsWith(".jinja")).sort() : []) {
    templates.set(name.slice(0, -".jinja".length), await readText(join(folder, name)) ?? "");
  }
  return templates;
}

async function readOlderChatTemplate(directory: string): Promise<string | undefined> {
  const older = await readJson(join(directory, "chat_template.json"));
  if (older === undefined) return undefined;
  if (typeof older.chat_template === "string") return older.chat_template;
  throw new FormatError(`Cannot read ${join(directory, "chat_template.json")}: it has no chat_template`);
}

/** Reads tokenizer_config.json. Before that listed the tokens that were added, special_tokens_map.json had the last word on the special ones. */
async function readTokenizerConfig(directory: string): Promise<Record<string, unknown> | undefined> {
  const config = await readJson(join(directory, "tokenizer_config.json"));
  if (config?.added_tokens_decoder !== undefined) return config;
  const specialTokens = await readJson(join(directory, "special_tokens_map.json"));
  return config === undefined && specialTokens === undefined ? undefined : { ...config, ...specialTokens };
}

/** Files of SentencePiece or tiktoken, which some checkpoints have in the place of tokenizer.json: the first ChatGLM the second, Kimi the third. */
const SENTENCE_PIECE_FILES = ["tokenizer.model", "ice_text.model", "tiktoken.model"];

async function readSentencePiece(directory: string): Promise<Uint8Array> {
  for (const path of SENTENCE_PIECE_FILES.map((name) => join(directory, name))) {
    try {
      return await readFile(path);
    } catch (error) {
      if ((error as { code?: string }).code === "ENOENT") continue;
      throw new FormatError(`Cannot read ${path}: ${(error as Error).message}`);
    }
  }
  throw new FormatError(`Cannot load the tokenizer: ${join(directory, "tokenizer.json")} is not there`);
}

/**
 * Reads the tokenizer of a checkpoint or shard directory.
 *
 * @param configs config.json and generation_config.json where the directory does not hold them itself, as a shard directory.
 * @param contents tokenizer.json and tokenizer_config.json where they are in no directory, by name.
 * @throws {FormatError} where tokenizer.json is missing and no tokenizer.model takes its place, or a file is damaged.
 */
export async function loadTokenizer(
  directory: string,
  configs?: Pick<TokenizerFiles, "config" | "generationConfig">,
  contents?: ReadonlyMap<string, string>,
): Promise<Tokenizer> {
  if (contents !== undefined) {
    const parsed = (name: string) => JSON.parse(contents.get(name)!);
    return await createTokenizer({
      tokenizer: parsed("tokenizer.json"),
      tokenizerConfig: parsed("tokenizer_config.json"),
      ...configs,
    });
  }
  const tokenizer = await readJson(join(directory, "tokenizer.json"));
  return await createTokenizer({
    tokenizer,
    sentencePiece: tokenizer === undefined ? await readSentencePiece(directory) : undefined,
    chatTemplates: await readChatTemplates(directory),
    tokenizerConfig: await readTokenizerConfig(directory),
    config: configs ? configs.config : await readJson(join(directory, "config.json")),
    generationConfig: configs ? configs.generationConfig : await readJson(join(directory, "generation_config.json")),
  });
}
