/**
 * Turns a conversation into the text that a model was trained on, with the template that it was released with.
 *
 * Renders as transformers' `apply_chat_template` does (`utils/chat_template_utils.py`), byte for byte.
 * @module
 */
import { AirkernError, FormatError, UsageError } from "../errors.ts";
import { templateGlobals } from "./jinja/globals.ts";
import { Interpreter } from "./jinja/interpreter.ts";
import { strip } from "./jinja/methods.ts";
import type { Statement } from "./jinja/syntax.ts";
import { rewriteTokens } from "./jinja/token_rewriting.ts";
import { fromJson, TemplateError, type Value } from "./jinja/values.ts";

/** One part of a message's content. */
export interface ContentPart {
  /** Such as `text`. */
  type: string;
  /** Text of a part of that type. */
  text?: string;
  /** What parts of other types have. */
  [key: string]: unknown;
}

/** A call of a tool in an assistant's message. */
export interface ToolCall {
  /** Some templates want one of 9 letters and digits. */
  id?: string;
  /** Always `function`. */
  type?: "function";
  /** What is called, with arguments as an object; some templates want them as JSON text. */
  function: { name: string; arguments: Record<string, unknown> | string };
}

/** One message of a conversation. */
export interface ChatMessage {
  /** `system`, `user`, `assistant`, `tool`, and what else a template knows. */
  role: string;
  /** Text, or parts of it where a template knows them. */
  content?: string | readonly ContentPart[] | null;
  /** What an assistant called. */
  tool_calls?: readonly ToolCall[] | null;
  /** Which call a tool's message answers. */
  tool_call_id?: string;
  /** Which tool answers. */
  name?: string;
  /** What a reasoning model thought before its answer. */
  reasoning_content?: string | null;
  /** What else a template reads. */
  [key: string]: unknown;
}

/** How a conversation is rendered. */
export interface ChatTemplateOptions {
  /** Tools that the model may call, each a JSON schema: `{ type: "function", function: { name, description, parameters } }`. */
  tools?: readonly Record<string, unknown>[];
  /** Documents that the model may use, for templates that know them. */
  documents?: readonly Record<string, unknown>[];
  /** Ends with what begins an assistant's message, so that the model writes one. Default: false. */
  addGenerationPrompt?: boolean;
  /**
   * Leaves the last message open, so that the model goes on with it; the name of a field such as `reasoning_content` says which part of the
   * message. Default: false; `true` is its `content`.
   */
  continueFinalMessage?: boolean | string;
  /** Name of the template, where a tokenizer has several. Default: `tool_use` where tools are given and it has one, else `default`. */
  templateName?: string;
  /** Time that the template is told. Default: now. */
  now?: Date;
  /** Further variables of the template, such as `enable_thinking`, in its own spelling. */
  variables?: Record<string, unknown>;
}

/** Names under which templates look for what a model thought. */
const REASONING_FIELDS = ["reasoning_content", "thinking", "reasoning"];

/** Marks the place in the last message at which a text is to end. The space says whether a template trims. */
const CONTINUE_MARK = "\ufdd1CONTINUE_FINAL_MESSAGE\ufdd1 ";

/** Returns a message without what is not set, and with its reasoning under each name that templates use. */
function prepare(message: ChatMessage): Record<string, unknown> {
  const set = Object.fromEntries(Object.entries(message).filter(([, value]) => value !== null && value !== undefined));
  const field = REASONING_FIELDS.find((name) => set[name] !== undefined);
  return field === undefined ? set : { thinking: set[field], ...set, reasoning_content: set[field] };
}

/**
 * Marks where a field of the last message ends.
 *
 * @returns What the text to continue is, without whitespace at its ends.
 */
function markEnd(messages: Record<string, unknown>[], field: string, template: string): string {
  const last = messages[messages.length - 1], given = last[field];
  const refuse = (why: string) => new UsageError(`Cannot continue the final message: ${why}`);
  if (given === undefined) throw refuse(`it has no ${JSON.stringify(field)}`);
  // Reasoning is there under several names, of which a template reads one.
  const fields = REASONING_FIELDS.includes(field) ? REASONING_FIELDS.filter((name) => last[name] === given) : [field];
  if (!fields.some((name) => template.includes(name))) {
    throw refuse(`the chat template does not read ${JSON.stringify(field)}`);
  }
  const parts: ContentPart[] = Array.isArray(given) ? given : [];
  const part = parts.findLast(({ text }) => typeof text === "string");
  if (part) last[field] = parts.map((one) => one === part ? { ...part, text: part.text + CONTINUE_MARK } : one);
  else if (typeof given === "string") { for (const name of fields) last[name] = given + CONTINUE_MARK; }
  else throw refuse("it has no text");
  return strip(part?.text ?? given as string, undefined, true, true);
}

/** A template that was parsed. */
export class ChatTemplate {
  /** The template as it was given. */
  readonly source: string;
  readonly #program: Statement;
  readonly #specialTokens: Record<string, string>;

  private constructor(source: string, program: Statement, specialTokens: Record<string, string>) {
    this.source = source;
    this.#program = program;
    this.#specialTokens = specialTokens;
  }

  /**
   * Parses a template.
   *
   * @param specialTokens Text of `bos_token`, `eos_token` and their like.
   * @throws {FormatError} where it is none.
   */
  static async parse(source: string, specialTokens: Record<string, string>): Promise<ChatTemplate> {
    // Loaded here, not at the top: importing AirKern must stay cheap for those who need no template.
    const { parse, tokenize } = await import("@huggingface/jinja");
    try {
      // Jinja ends lines with a line feed, whatever a template's file ends them with.
      const tokens = tokenize(source.replace(/\r\n?/g, "\n"), { lstrip_blocks: true, trim_blocks: true });
      const program = parse(rewriteTokens(tokens));
      return new ChatTemplate(source, program as unknown as Statement, specialTokens);
    } catch (error) {
      throw new FormatError(`Cannot read the chat template: ${(error as Error).message.split("\n")[0]}`);
    }
  }

  /**
   * Returns a conversation's text.
   *
   * @param escape Is applied to each string that a message, tool, document or variable brings, but for roles and types; it is told the role
   * of a message.
   * @throws {UsageError} where the template refuses the conversation, or cannot work on it.
   * @throws {UnsupportedError} for a filter, test or statement that is not known.
   */
  render(
    messages: readonly ChatMessage[],
    options: ChatTemplateOptions = {},
    escape: (text: string, role?: string) => string = (text) => text,
  ): string {
    const { tools, documents, addGenerationPrompt = false, continueFinalMessage = false, now = new Date(), variables = {} } =
      options;
    if (messages.length === 0) throw new UsageError("Cannot apply the chat template: there are no messages");
    if (continueFinalMessage && addGenerationPrompt) {
      throw new UsageError(
        "Cannot both continue the final message and begin another: choose one of continueFinalMessage and addGenerationPrompt",
      );
    }
    const prepared = messages.map((message, i) => {
      // A role becomes part of special tokens, so it may not be just anything.
      if (typeof message.role === "string" && /^[A-Za-z][A-Za-z0-9_-]*$/.test(message.role)) {
        return escapeStrings(prepare(message), (text) => escape(text, message.role));
      }
      throw new UsageError(
        `Cannot apply the chat template: role ${JSON.stringify(message.role)} of message ${i}, required is a plain word`,
      );
    });
    const field = typeof continueFinalMessage === "string" ? continueFinalMessage : "content";
    const open = continueFinalMessage ? markEnd(prepared, field, this.source) : undefined;
    const given: Record<string, unknown> = {
      ...this.#specialTokens,
      ...escapeStrings(variables, escape),
      messages: prepared,
      tools: tools ? escapeStrings(tools, escape) : null,
      documents: documents ? escapeStrings(documents, escape) : null,
      add_generation_prompt: addGenerationPrompt,
    };
    let text: string;
    try {
      const values: [string, Value][] = Object.entries(given).map(([name, value]) => [name, fromJson(value)]);
      text = new Interpreter().render(this.#program, [...templateGlobals(now), ...values]);
    } catch (error) {
      if (error instanceof AirkernError) throw error;
      if (!(error instanceof TemplateError || error instanceof TypeError || error instanceof RangeError)) throw error;
      throw new UsageError(`Cannot apply the chat template: ${error.message.split("\n")[0]}`, { cause: error });
    }
    if (open === undefined) return text;
    const end = text.lastIndexOf(CONTINUE_MARK.trimEnd());
    if (end < 0 || !text.includes(open)) {
      throw new UsageError("Cannot continue the final message: the chat template leaves it out");
    }
    // A template that trims its messages would have trimmed this one before the mark.
    return text.startsWith(CONTINUE_MARK, end) ? text.slice(0, end) : strip(text.slice(0, end), undefined, false, true);
  }
}

/** Keys whose values say what something is, not what it says. */
const STRUCTURE_KEYS = new Set(["role", "type"]);

/** Returns data with each string in it escaped, keys and values. */
function escapeStrings<T>(data: T, escape: (text: string) => string, key?: string): T {
  if (typeof data === "string") return (key !== undefined && STRUCTURE_KEYS.has(key) ? data : escape(data)) as T;
  if (Array.isArray(data)) return data.map((item) => escapeStrings(item, escape)) as T;
  // What JSON has not is left as it is, to be refused where values are made.
  if (typeof data !== "object" || data === null || Object.getPrototypeOf(data) !== Object.prototype) return data;
  return Object.fromEntries(Object.entries(data).map(([name, value]) => [escape(name), escapeStrings(value, escape, name)])) as T;
}
