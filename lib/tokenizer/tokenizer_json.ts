/**
 * The parts of a tokenizer that a tokenizer.json describes.
 * @module
 */
import { FormatError, UnsupportedError } from "../errors.ts";
import { type AddedToken, Encoder } from "./encoder.ts";
import { textNormalizer } from "./normalizer.ts";
import { preTokenizer } from "./pre_tokenizer.ts";
import type { TokenizerParts } from "./tokenizer_parts.ts";

const MODELS = ["BPE", "Unigram", "WordPiece"];

/**
 * Returns the parts of a tokenizer.
 *
 * @throws {FormatError} where the file is not what it should be, {UnsupportedError} for a kind of tokenizer that is not known.
 */
export async function tokenizerJsonParts(
  tokenizer: Record<string, unknown>,
  tokenizerConfig: Record<string, unknown>,
): Promise<TokenizerParts> {
  const modelType = (tokenizer.model as { type?: unknown } | undefined)?.type;
  if (modelType !== undefined && !MODELS.includes(modelType as string)) {
    throw new UnsupportedError(
      `Cannot use the tokenizer: its model is ${JSON.stringify(modelType)}; known are ${MODELS.join(", ")}`,
    );
  }
  const added: AddedToken[] = ((tokenizer.added_tokens ?? []) as Partial<AddedToken>[]).map((token) => ({
    id: token.id!,
    content: token.content!,
    special: token.special ?? false,
    single_word: token.single_word ?? false,
    lstrip: token.lstrip ?? false,
    rstrip: token.rstrip ?? false,
    normalized: token.normalized ?? !token.special,
  }));
  // Loaded here, not at the top: importing AirKern must stay cheap for those who need no tokenizer.
  const huggingFace = await import("@huggingface/tokenizers");
  let library, normalize, preTokenize;
  try {
    library = new huggingFace.Tokenizer(
      { post_processor: null, added_tokens: [], ...tokenizer, normalizer: null, pre_tokenizer: null, decoder: null },
      { ...tokenizerConfig, clean_up_tokenization_spaces: false },
    );
    normalize = textNormalizer(tokenizer.normalizer, huggingFace);
    preTokenize = preTokenizer(tokenizer.pre_tokenizer, huggingFace);
  } catch (error) {
    if (error instanceof UnsupportedError || error instanceof FormatError) throw error;
    throw new FormatError(`Cannot use the tokenizer: ${(error as Error).message.split("\n")[0]}`);
  }
  const addedIds = new Map(added.map(({ id, content }) => [content, id]));
  const idOf = (token: string): number | undefined => addedIds.get(token) ?? library.model!.tokens_to_ids.get(token);
  // A placeholder in the place of a text shows what the post-processor puts around it.
  const placeholder = "\0";
  const framed = library.post_processor?.post_process([placeholder], null, true).tokens ?? [placeholder];
  const middle = framed.indexOf(placeholder);
  return {
    encoder: new Encoder(library, normalize, preTokenize, added, tokenizer.model as Record<string, unknown>),
    vocabulary: library.model!.vocab,
    idOf,
    added,
    normalize,
    before: framed.slice(0, middle),
    after: framed.slice(middle + 1),
    decoder: tokenizer.decoder,
  };
}
