/**
 * Reads a `tokenizer.model` of SentencePiece, a protocol buffer (sentencepiece_model.proto).
 * @module
 */
import { FormatError } from "../errors.ts";

/** What a piece is (`SentencePiece.Type`). */
export const PIECE_TYPES = { normal: 1, unknown: 2, control: 3, userDefined: 4, unused: 5, byte: 6 } as const;

/** Of `TrainerSpec.ModelType`. */
const MODEL_TYPES = ["?", "unigram", "bpe", "word", "char"];

/** An entry of the vocabulary. */
export interface Piece {
  text: string;
  score: number;
  type: number;
}

/** What of the file matters here. */
export interface SentencePieceFile {
  pieces: Piece[];
  modelType: string;
  byteFallback: boolean;
  /** The table of characters, empty where there is none. */
  characterTable: Uint8Array;
  addDummyPrefix: boolean;
  removeExtraWhitespaces: boolean;
  escapeWhitespaces: boolean;
  /** Whether spaces end words and do not begin them. */
  whitespaceIsSuffix: boolean;
  /** Whether decoded text goes through a table of characters too. */
  denormalizes: boolean;
}

/** One field of a message: a number, or the bytes of a text or an inner message. */
interface Field {
  number: number;
  value: number;
  bytes: Uint8Array;
}

/** Makes the error for a file that is not what it should be. */
export function damagedModel(): FormatError {
  return new FormatError("Cannot read tokenizer.model: it is no SentencePiece model, or damaged");
}

/** Goes through the fields of a message. */
function* fields(message: Uint8Array): Generator<Field> {
  const view = new DataView(message.buffer, message.byteOffset, message.byteLength);
  let at = 0;
  const varint = (): number => {
    let value = 0;
    for (let shift = 0; shift < 70; shift += 7) {
      if (at >= message.length) throw damagedModel();
      const byte = message[at++];
      value += (byte & 127) * 2 ** shift;
      if (byte < 128) return value;
    }
    throw damagedModel();
  };
  while (at < message.length) {
    const key = varint(), number = Math.floor(key / 8), wire = key % 8;
    let value = 0, length = 0;
    if (wire === 0) value = varint();
    else if (wire === 2) length = varint();
    else if (wire === 1 || wire === 5) length = wire === 1 ? 8 : 4;
    else throw damagedModel();
    if (number === 0 || !Number.isSafeInteger(length) || at + length > message.length) throw damagedModel();
    if (wire === 5) value = view.getFloat32(at, true);
    yield { number, value, bytes: message.subarray(at, at + length) };
    at += length;
  }
}

function utf8(bytes: Uint8Array): string {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    throw damagedModel();
  }
}

/** Returns a file's contents. @throws {FormatError} where it is damaged. */
export function readSentencePieceFile(file: Uint8Array): SentencePieceFile {
  const model: SentencePieceFile = {
    ...{ pieces: [], modelType: "unigram", byteFallback: false, whitespaceIsSuffix: false, denormalizes: false },
    ...{ characterTable: new Uint8Array(), addDummyPrefix: true, removeExtraWhitespaces: true, escapeWhitespaces: true },
  };
  for (const { number, bytes } of fields(file)) {
    if (number === 1) {
      const piece: Piece = { text: "", score: 0, type: PIECE_TYPES.normal };
      for (const field of fields(bytes)) {
        if (field.number === 1) piece.text = utf8(field.bytes);
        else if (field.number === 2) piece.score = field.value;
        else if (field.number === 3) piece.type = field.value;
      }
      model.pieces.push(piece);
    } else if (number === 2) {
      for (const field of fields(bytes)) {
        if (field.number === 3) model.modelType = MODEL_TYPES[field.value] ?? `${field.value}`;
        else if (field.number === 24) model.whitespaceIsSuffix = field.value !== 0;
        else if (field.number === 35) model.byteFallback = field.value !== 0;
      }
    } else if (number === 3) {
      for (const field of fields(bytes)) {
        if (field.number === 2) model.characterTable = field.bytes;
        else if (field.number === 3) model.addDummyPrefix = field.value !== 0;
        else if (field.number === 4) model.removeExtraWhitespaces = field.value !== 0;
        else if (field.number === 5) model.escapeWhitespaces = field.value !== 0;
      }
    } else if (number === 5) {
      for (const field of fields(bytes)) if (field.number === 2) model.denormalizes = field.bytes.length > 0;
    }
  }
  if (model.pieces.length === 0) throw damagedModel();
  return model;
}
