/**
 * The options of `run` that make a conversation.
 * @module
 */
import fs from "node:fs";
import type { Command } from "commander";
import { UsageError } from "../errors.ts";
import type { ChatMessage } from "../tokenizer/chat_template.ts";
import type { Tokenizer } from "../tokenizer/tokenizer.ts";

/** What the options were given. */
export interface ChatOptions {
  chat?: boolean;
  system?: string;
  messages?: string;
  tools?: string;
  documents?: string;
  template?: string;
  templateVariable?: Map<string, unknown>;
}

type JsonObject = Record<string, unknown>;

/** Reads `name=value`, of which the value is JSON or else text. */
function variable(text: string, earlier: Map<string, unknown> = new Map()): Map<string, unknown> {
  const [, name, value] = /^([A-Za-z_]\w*)=(.*)$/s.exec(text) ?? [];
  if (name === undefined) throw new UsageError(`Cannot use --template-variable ${JSON.stringify(text)}: required is NAME=VALUE`);
  let parsed: unknown = value;
  try {
    parsed = JSON.parse(value);
  } catch {
    // Most values are words, which need no quotes.
  }
  return earlier.set(name, parsed);
}

/** Adds the options. */
export function addChatOptions(command: Command): Command {
  return command
    .option("--chat", "take the prompt for a user's message, in the model's own chat template")
    .option("--system <text>", "with --chat: what the system says before")
    .option(
      "--messages <file>",
      "with --chat: JSON list of messages that come before the prompt, which may be left out; an assistant's at the end is continued",
    )
    .option("--tools <file>", "with --chat: JSON list of the tools that the model may call, as JSON schemas")
    .option("--documents <file>", "with --chat: JSON list of documents, for templates that know them")
    .option("--template <name>", "with --chat: which template, of a model that has several (default: tool_use with --tools)")
    .option(
      "--template-variable <name=value>",
      "with --chat: sets a variable of the template, such as enable_thinking=false; may be given several times",
      variable,
    );
}

/** Reads a file that holds a JSON list of objects. */
function readObjects(option: string, path: string): JsonObject[] {
  const refuse = (why: string) => new UsageError(`Cannot use ${option} ${path}: ${why}`);
  let value: unknown;
  try {
    value = JSON.parse(fs.readFileSync(path, "utf8"));
  } catch (error) {
    throw refuse((error as Error).message.split("\n")[0]);
  }
  if (!Array.isArray(value) || !value.every((one) => typeof one === "object" && one !== null && !Array.isArray(one))) {
    throw refuse("required is a JSON list of objects");
  }
  return value;
}

/**
 * Returns the tokens of a conversation that waits for an answer, or for the rest of one.
 * @throws {UsageError} where the conversation has no message, or the template refuses it.
 */
export async function chatPrompt(tokenizer: Tokenizer, prompt: string | undefined, options: ChatOptions): Promise<number[]> {
  const { system, tools, documents, template, templateVariable } = options;
  const messages: ChatMessage[] = [
    ...system === undefined ? [] : [{ role: "system", content: system }],
    ...options.messages === undefined ? [] : readObjects("--messages", options.messages) as unknown as ChatMessage[],
    ...prompt === undefined ? [] : [{ role: "user", content: prompt }],
  ];
  // As in transformers' pipelines: what an assistant began, it is to end.
  const open = messages.at(-1)?.role === "assistant";
  const { inputIds } = await tokenizer.applyChatTemplate(messages, {
    ...tools === undefined ? {} : { tools: readObjects("--tools", tools) },
    ...documents === undefined ? {} : { documents: readObjects("--documents", documents) },
    ...template === undefined ? {} : { templateName: template },
    ...templateVariable === undefined ? {} : { variables: Object.fromEntries(templateVariable) },
    ...open ? { continueFinalMessage: true } : { addGenerationPrompt: true },
  });
  return inputIds;
}

/** @throws {UsageError} for an option that is of no use without `--chat`. */
export function checkChatOptions(options: ChatOptions): void {
  if (options.chat) return;
  const { system, messages, tools, documents, template, templateVariable } = options;
  const given = Object.entries({ system, messages, tools, documents, template, "template-variable": templateVariable });
  const [unused] = given.find(([, value]) => value !== undefined) ?? [];
  if (unused !== undefined) throw new UsageError(`Cannot use --${unused}: it needs --chat beside it`);
}
