/**
 * A byte-level tokenizer for synthetic models: 256 byte tokens and no merges, padded to a vocabulary size, so that any text can be
 * encoded and any token id decoded.
 */

/** Maps each byte to the printable character that byte-level BPE writes for it (GPT-2's alphabet). */
function byteAlphabet(): string[] {
  const printable = (byte: number) => (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
  let next = 256;
  return Array.from({ length: 256 }, (_, byte) => String.fromCodePoint(printable(byte) ? byte : next++));
}

/**
 * Returns tokenizer.json and tokenizer_config.json for a vocabulary.
 *
 * @param bosId,eosId ids of the two special tokens; the bytes take the first other ids, fillers that no text encodes to the rest.
 */
export function byteTokenizer(vocabSize: number, bosId: number, eosId: number): { tokenizer: unknown; config: unknown } {
  const [bos, eos] = ["<|begin_of_text|>", "<|end_of_text|>"];
  const vocab: Record<string, number> = {};
  const alphabet = byteAlphabet();
  let byte = 0;
  for (let id = 0; id < vocabSize; id++) {
    if (id === bosId) vocab[bos] = id;
    else if (id === eosId) vocab[eos] = id;
    else if (byte < 256) vocab[alphabet[byte++]] = id;
    else vocab[`${alphabet[32]}w${id}`] = id;
  }
  const special = (id: number, content: string) => ({
    id,
    content,
    single_word: false,
    lstrip: false,
    rstrip: false,
    normalized: false,
    special: true,
  });
  const byteLevel = { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: false };
  return {
    tokenizer: {
      version: "1.0",
      truncation: null,
      padding: null,
      added_tokens: [special(bosId, bos), special(eosId, eos)].sort((a, b) => a.id - b.id),
      normalizer: null,
      pre_tokenizer: byteLevel,
      post_processor: {
        type: "TemplateProcessing",
        single: [{ SpecialToken: { id: bos, type_id: 0 } }, { Sequence: { id: "A", type_id: 0 } }],
        pair: [{ SpecialToken: { id: bos, type_id: 0 } }, { Sequence: { id: "A", type_id: 0 } }, {
          Sequence: { id: "B", type_id: 1 },
        }],
        special_tokens: { [bos]: { id: bos, ids: [bosId], tokens: [bos] } },
      },
      decoder: byteLevel,
      model: {
        type: "BPE",
        dropout: null,
        unk_token: null,
        continuing_subword_prefix: null,
        end_of_word_suffix: null,
        fuse_unk: false,
        byte_fallback: false,
        ignore_merges: false,
        vocab,
        merges: [],
      },
    },
    config: { bos_token: bos, eos_token: eos, clean_up_tokenization_spaces: false, tokenizer_class: "PreTrainedTokenizerFast" },
  };
}
