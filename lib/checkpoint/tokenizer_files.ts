/**
 * Finds the files of a checkpoint that tokenizers and chat templates are made from.
 * @module
 */
import fs from "node:fs";
import { join } from "node:path";
import { CHAT_TEMPLATE_FOLDER, TOKENIZER_FILES } from "./model_files.ts";

/** Returns whether a path in a checkpoint is that of a chat template with a name: `additional_chat_templates/NAME.jinja`. */
export function isNamedTemplate(path: unknown): path is string {
  if (typeof path !== "string" || !path.startsWith(`${CHAT_TEMPLATE_FOLDER}/`)) return false;
  return /^[A-Za-z0-9_-][A-Za-z0-9._-]*\.jinja$/.test(path.slice(CHAT_TEMPLATE_FOLDER.length + 1));
}

/** Returns the paths, in a directory that may have some of them, of all that a tokenizer may be made from. */
export function tokenizerFileNames(directory: string): string[] {
  const folder = join(directory, CHAT_TEMPLATE_FOLDER);
  const named = fs.existsSync(folder) ? fs.readdirSync(folder).map((name) => `${CHAT_TEMPLATE_FOLDER}/${name}`) : [];
  return [...TOKENIZER_FILES, ...named.filter(isNamedTemplate).sort()];
}
