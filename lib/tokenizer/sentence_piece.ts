/**
 * Turns a `tokenizer.model` of SentencePiece into what a tokenizer.json says, for checkpoints that have no other.
 *
 * The file is a protocol buffer (sentencepiece_model.proto). The conversion is that of transformers' `LlamaConverter`: a BPE's merges are all
 * ways to put a piece together from two others, the best scores first.
 * @module
 */
import { FormatError, UnsupportedError } from "../errors.ts";

/** Kinds of pieces (`SentencePiece.Type`). */
const UNKNOWN = 2, CONTROL = 3, USER_DEFINED = 4, BYTE = 6;

/** Of `TrainerSpec.ModelType`. */
const MODEL_TYPES = ["?", "unigram", "bpe", "word", "char"];

interface Piece {
  text: string;
  score: number;
  type: number;
}

/** What of the file matters here. */
interface Model {
  pieces: Piece[];
  modelType: string;
  byteFallback: boolean;
  /** Name of the character table; only `identity` has none. */
  characterTable: string;
  addDummyPrefix: boolean;
  removeExtraWhitespaces: boolean;
}

/** One field of a message: a number, or the bytes of a text or an inner message. */
interface Field {
  number: number;
  value: number;
  bytes: Uint8Array;
}

const damaged = () => new FormatError("Cannot read tokenizer.model: it is no SentencePiece model, or damaged");

/** Goes through the fields of a message. */
function* fields(message: Uint8Array): Generator<Field> {
  const view = new DataView(message.buffer, message.byteOffset, message.byteLength);
  let at = 0;
  const varint = (): number => {
    let value = 0;
    for (let shift = 0; shift < 70; shift += 7) {
      if (at >= message.length) throw damaged();
      const byte = message[at++];
      value += (byte & 127) * 2 ** shift;
      if (byte < 128) return value;
    }
    throw damaged();
  };
  while (at < message.length) {
    const key = varint(), number = Math.floor(key / 8), wire = key % 8;
    let value = 0, length = 0;
    if (wire === 0) value = varint();
    else if (wire === 2) length = varint();
    else if (wire === 1 || wire === 5) length = wire === 1 ? 8 : 4;
    else throw damaged();
    if (number === 0 || !Number.isSafeInteger(length) || at + length > message.length) throw damaged();
    if (wire === 5) value = view.getFloat32(at, true);
    yield { number, value, bytes: message.subarray(at, at + length) };
    at += length;
  }
}

function utf8(bytes: Uint8Array): string {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    throw damaged();
  }
}

function parse(file: Uint8Array): Model {
  const model: Model = {
    ...{ pieces: [], modelType: "unigram", byteFallback: false },
    ...{ characterTable: "", addDummyPrefix: true, removeExtraWhitespaces: true },
  };
  for (const { number, bytes } of fields(file)) {
    if (number === 1) {
      const piece: Piece = { text: "", score: 0, type: 1 };
      for (const field of fields(bytes)) {
        if (field.number === 1) piece.text = utf8(field.bytes);
        else if (field.number === 2) piece.score = field.value;
        else if (field.number === 3) piece.type = field.value;
      }
      model.pieces.push(piece);
    } else if (number === 2) {
      for (const field of fields(bytes)) {
        if (field.number === 3) model.modelType = MODEL_TYPES[field.value] ?? `${field.value}`;
        else if (field.number === 35) model.byteFallback = field.value !== 0;
      }
    } else if (number === 3) {
      for (const field of fields(bytes)) {
        if (field.number === 2 && field.bytes.length > 0) model.characterTable ||= "a table without a name";
        else if (field.number === 1 && utf8(field.bytes) !== "identity") model.characterTable = utf8(field.bytes);
        else if (field.number === 3) model.addDummyPrefix = field.value !== 0;
        else if (field.number === 4) model.removeExtraWhitespaces = field.value !== 0;
      }
    }
  }
  if (model.pieces.length === 0) throw damaged();
  return model;
}

/** Returns the merges that build the pieces, best first; of equal scores those of longer parts. */
function mergesOf(pieces: readonly Piece[], ids: ReadonlyMap<string, number>): [string, string][] {
  const merges: { left: string; right: string; score: number; lengths: [number, number] }[] = [];
  for (const { text, score } of pieces) {
    const characters = [...text];
    const local: { left: string; right: string }[] = [];
    for (let i = 1; i < characters.length; i++) {
      const left = characters.slice(0, i).join(""), right = characters.slice(i).join("");
      if (ids.has(left) && ids.has(right)) local.push({ left, right });
    }
    local.sort((a, b) => ids.get(a.left)! - ids.get(b.left)! || ids.get(a.right)! - ids.get(b.right)!);
    for (const { left, right } of local) merges.push({ left, right, score, lengths: [[...left].length, [...right].length] });
  }
  merges.sort((a, b) => b.score - a.score || b.lengths[0] - a.lengths[0] || b.lengths[1] - a.lengths[1]);
  return merges.map(({ left, right }) => [left, right]);
}

/** Returns the tokens that tokenizer_config.json adds to those of the file, or gives other properties. */
function addedTokens(pieces: readonly Piece[], tokenizerConfig: Record<string, unknown>): Record<string, unknown>[] {
  const added = new Map<number, Record<string, unknown>>();
  pieces.forEach(({ text, type }, id) => {
    if (type !== CONTROL && type !== UNKNOWN && type !== USER_DEFINED) return;
    added.set(id, {
      id,
      content: text,
      special: type !== USER_DEFINED,
      normalized: false,
      single_word: false,
      lstrip: false,
      rstrip: false,
    });
  });
  for (
    const [id, token] of Object.entries((tokenizerConfig.added_tokens_decoder ?? {}) as Record<string, Record<string, unknown>>)
  ) {
    if (!/^\d+$/.test(id) || typeof token?.content !== "string") {
      throw new FormatError(
        `Cannot read tokenizer_config.json: added_tokens_decoder has ${JSON.stringify(id)}, which is no token`,
      );
    }
    added.set(Number(id), { ...token, id: Number(id) });
  }
  return [...added.values()];
}

/**
 * Returns a tokenizer.json for a SentencePiece model of BPE type.
 *
 * @throws {FormatError} where the file is damaged, {UnsupportedError} for another type, or one with a table of characters.
 */
export function convertSentencePiece(file: Uint8Array, tokenizerConfig: Record<string, unknown> = {}): Record<string, unknown> {
  const { pieces, modelType, byteFallback, characterTable, addDummyPrefix, removeExtraWhitespaces } = parse(file);
  const refuse = (what: string) =>
    new UnsupportedError(`Cannot use the tokenizer: its tokenizer.model ${what}; save it as tokenizer.json with transformers`);
  if (modelType !== "bpe") throw refuse(`is of type ${modelType}, supported is bpe`);
  if (characterTable !== "") throw refuse(`normalizes with ${JSON.stringify(characterTable)}, supported is identity`);
  const ids = new Map(pieces.map(({ text }, id) => [text, id]));
  if (ids.size !== pieces.length) throw damaged();
  const replaced = { type: "Replace", pattern: { String: " " }, content: "▁" };
  const mergeable = pieces.filter(({ type }) => type !== BYTE && type !== CONTROL && type !== UNKNOWN);
  const addBos = tokenizerConfig.add_bos_token ?? true;
  const bos = pieces.find(({ text, type }) => type === CONTROL && text === "<s>");
  return {
    added_tokens: addedTokens(pieces, tokenizerConfig),
    normalizer: {
      type: "Sequence",
      normalizers: [
        ...(removeExtraWhitespaces
          ? [
            { type: "Replace", pattern: { Regex: "(?<![\\s\\S]) +|[ ▁]+(?![\\s\\S])" }, content: "" },
            { type: "Replace", pattern: { Regex: " {2,}" }, content: " " },
          ]
          : []),
        ...(addDummyPrefix ? [{ type: "Prepend", prepend: "▁" }] : []),
        replaced,
      ],
    },
    pre_tokenizer: null,
    post_processor: addBos && bos
      ? {
        type: "TemplateProcessing",
        single: [{ SpecialToken: { id: bos.text, type_id: 0 } }, { Sequence: { id: "A", type_id: 0 } }],
        pair: [],
        special_tokens: { [bos.text]: { id: bos.text, ids: [ids.get(bos.text)], tokens: [bos.text] } },
      }
      : null,
    decoder: {
      type: "Sequence",
      decoders: [
        { type: "Replace", pattern: { String: "▁" }, content: " " },
        { type: "ByteFallback" },
        { type: "Fuse" },
        // What removes spaces before it encodes removes them after it decodes.
        ...(removeExtraWhitespaces || addDummyPrefix
          ? [{ type: "Strip", content: " ", start: removeExtraWhitespaces ? 2 ** 31 : 1, stop: 0 }]
          : []),
      ],
    },
    model: {
      type: "BPE",
      vocab: Object.fromEntries(ids),
      merges: mergesOf(mergeable, new Map(mergeable.map(({ text }) => [text, ids.get(text)!]))),
      unk_token: pieces.find(({ type }) => type === UNKNOWN)?.text ?? null,
      byte_fallback: byteFallback,
      fuse_unk: true,
      ignore_merges: false,
    },
  };
}
