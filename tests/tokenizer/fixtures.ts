/** The tokenizers that tests share: a byte-level one as Llama 3 has, and two as Llama 1 and 2 have. */
import { createTokenizer, type Tokenizer, type TokenizerFiles } from "../../lib/tokenizer/tokenizer.ts";

const root = new URL("../../", import.meta.url);

export function readJson<T>(path: string): T {
  return JSON.parse(Deno.readTextFileSync(new URL(path, root)));
}

export interface Case {
  text: string;
  ids: number[];
  decoded: string;
  decoded_skip_special_tokens: string;
  /** Special tokens in the text are ordinary text. */
  untrusted?: number[];
  ids_without_special_tokens?: number[];
}

export interface Fixture {
  files: TokenizerFiles & { tokenizer: Record<string, unknown> };
  cases: Case[];
  decodeCases: Omit<Case, "text">[];
}

export type Layout = "kjv" | "prepend" | "metaspace";

export const LAYOUTS: readonly Layout[] = ["kjv", "prepend", "metaspace"];

/** Returns a tokenizer's files, and what Hugging Face's library gives with them. */
export function fixture(layout: Layout): Fixture {
  const path = `tests/fixtures/tokenizer/${layout}.json`;
  if (layout === "kjv") {
    const { cases, decode_cases } = readJson<{ cases: Case[]; decode_cases: Omit<Case, "text">[] }>(path);
    const files = {
      tokenizer: readJson<Record<string, unknown>>("models/kjv-5m/tokenizer.json"),
      tokenizerConfig: readJson<Record<string, unknown>>("models/kjv-5m/tokenizer_config.json"),
    };
    return { files, cases, decodeCases: decode_cases };
  }
  const { tokenizer, tokenizer_config, cases } = readJson<
    { tokenizer: Record<string, unknown>; tokenizer_config: Record<string, unknown>; cases: Case[] }
  >(path);
  return { files: { tokenizer, tokenizerConfig: tokenizer_config }, cases, decodeCases: [] };
}

export async function makeTokenizer(layout: Layout): Promise<Tokenizer> {
  return await createTokenizer(fixture(layout).files);
}
