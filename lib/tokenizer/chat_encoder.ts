/**
 * Renders conversations with a tokenizer's chat template and encodes what comes out, control tokens by the template's word alone.
 * @module
 */
import { FormatError, UsageError } from "../errors.ts";
import type { ChatMessage, ChatTemplate, ChatTemplateOptions } from "./chat_template.ts";
import { chooseMark, ControlTokenGuard } from "./control_token_guard.ts";
import type { AddedToken, TokenEncoder } from "./encoder.ts";

/** A conversation as a model reads it. */
export interface ChatPrompt {
  /** What the chat template makes of the messages. */
  text: string;
  /** Its tokens. Those that begin and end a text are the template's to write, so none are added. */
  inputIds: number[];
}

/** Returns a special token's text, which tokenizer_config.json may wrap in an object. */
export function tokenText(value: unknown): string | undefined {
  if (typeof value === "string") return value;
  const content = (value as { content?: unknown } | null | undefined)?.content;
  return typeof content === "string" ? content : undefined;
}

/**
 * Returns the chat templates by name: a tokenizer has none, one, or several.
 *
 * @param files Those of files of their own by name, the one without a name as `default`; they go before those of tokenizer_config.json.
 * @throws {FormatError} where what is given is none.
 */
export function chatTemplates(files: ReadonlyMap<string, string>, tokenizerConfig: Record<string, unknown>): Map<string, string> {
  if (files.size > 0) return new Map(files);
  const given = tokenizerConfig.chat_template;
  if (given === undefined || given === null) return new Map();
  if (typeof given === "string") return new Map([["default", given]]);
  const refuse = () =>
    new FormatError("Cannot read tokenizer_config.json: chat_template is neither a text nor a list of names and templates");
  if (!Array.isArray(given)) throw refuse();
  return new Map(given.map((entry: { name?: unknown; template?: unknown } | null) => {
    if (typeof entry?.name !== "string" || typeof entry.template !== "string") throw refuse();
    return [entry.name, entry.template];
  }));
}

/** Returns the special tokens that templates are given: those of tokenizer_config.json that have a name, such as `bos_token`. */
function namedSpecialTokens(tokenizerConfig: Record<string, unknown>): Record<string, string> {
  const { extra_special_tokens: extra, model_specific_special_tokens: specific } = tokenizerConfig;
  const groups = [specific, extra].filter((group) => typeof group === "object" && group !== null && !Array.isArray(group));
  const named = Object.entries(tokenizerConfig).filter(([name]) => name.endsWith("_token"));
  return Object.fromEntries(
    [...named, ...groups.flatMap((group) => Object.entries(group!))].flatMap(([name, value]) => {
      const text = tokenText(value);
      return text === undefined ? [] : [[name, text]];
    }),
  );
}

/** Renders conversations and encodes what comes out. */
export class ChatEncoder {
  readonly #encoder: TokenEncoder;
  readonly #added: readonly AddedToken[];
  readonly #normalize: (text: string) => string;
  readonly #sources: Map<string, string>;
  readonly #specialTokens: Record<string, string>;
  readonly #parsed = new Map<string, Promise<{ template: ChatTemplate; guards: (role?: string) => ControlTokenGuard }>>();

  constructor(
    encoder: TokenEncoder,
    added: readonly AddedToken[],
    normalize: (text: string) => string,
    sources: Map<string, string>,
    tokenizerConfig: Record<string, unknown>,
  ) {
    this.#encoder = encoder;
    this.#added = added;
    this.#normalize = normalize;
    this.#sources = sources;
    this.#specialTokens = namedSpecialTokens(tokenizerConfig);
  }

  async apply(messages: readonly ChatMessage[], options: ChatTemplateOptions = {}): Promise<ChatPrompt> {
    const { template, guards } = await this.#template(options);
    const mark = chooseMark([messages, options]);
    const marked = template.render(messages, options, (text, role) => guards(role).escape(text, mark));
    return { text: marked.replaceAll(mark, ""), inputIds: this.#encoder.encode(marked, true, mark) };
  }

  #template({ templateName, tools }: ChatTemplateOptions) {
    const known = [...this.#sources.keys()];
    if (known.length === 0) throw new UsageError("Cannot apply a chat template: the tokenizer has none; this is no chat model");
    const name = templateName ?? (tools && this.#sources.has("tool_use") ? "tool_use" : "default");
    const source = this.#sources.get(name);
    if (source === undefined) {
      throw new UsageError(`Cannot use chat template ${JSON.stringify(name)}: there are ${known.join(", ")}`);
    }
    let parsed = this.#parsed.get(name);
    if (parsed === undefined) this.#parsed.set(name, parsed = this.#parse(source));
    return parsed;
  }

  async #parse(source: string) {
    // Loaded here, not at the top, as the parser is: many use a tokenizer without a chat.
    const { ChatTemplate } = await import("./chat_template.ts");
    const template = await ChatTemplate.parse(source, this.#specialTokens);
    // Tokens that the template writes are its own, special or not; the model's earlier messages may hold those that are not, such as
    // <think>.
    const control = this.#added.filter(({ special, content }) => special || (content.trim() !== "" && source.includes(content)));
    const all = new ControlTokenGuard(control, this.#normalize);
    const special = new ControlTokenGuard(control.filter((token) => token.special), this.#normalize);
    return { template, guards: (role?: string) => role === "assistant" ? special : all };
  }
}
