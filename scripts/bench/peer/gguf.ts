/**
 * Writes a model of a Llama shape with random weights as a GGUF file, the format of llama.cpp, with the tensor types that its own
 * quantizer chooses for Q4_0. Follows the specification in ggml's docs/gguf.md (version 3).
 */
import fs from "node:fs";
import { RandomBytes } from "../../synthesize/extent.ts";
import type { LlamaConfigJson } from "../../synthesize/shapes.ts";

const ALIGNMENT = 32;

/** Types of metadata values. */
enum ValueType {
  Uint32 = 4,
  Int32 = 5,
  Float32 = 6,
  String = 8,
  Array = 9,
}

/** Types of tensors with their block's elements and bytes, and the offsets of the float16 scales in a block. */
const TENSOR_TYPES = {
  F32: { id: 0, elements: 1, bytes: 4, scale: -1 },
  Q4_0: { id: 2, elements: 32, bytes: 18, scale: 0 },
  Q6_K: { id: 14, elements: 256, bytes: 210, scale: 208 },
};

interface Tensor {
  name: string;
  type: keyof typeof TENSOR_TYPES;
  /** Columns first, as GGUF has it. */
  dimensions: number[];
}

/** Collects little-endian values. */
class ByteWriter {
  readonly #parts: Uint8Array[] = [];
  #bytes = 0;

  get bytes(): number {
    return this.#bytes;
  }

  #add(bytes: Uint8Array): this {
    this.#parts.push(bytes);
    this.#bytes += bytes.length;
    return this;
  }
  uint32(value: number): this {
    return this.#add(new Uint8Array(Uint32Array.of(value).buffer));
  }
  uint64(value: number): this {
    return this.#add(new Uint8Array(BigUint64Array.of(BigInt(value)).buffer));
  }
  float32(value: number): this {
    return this.#add(new Uint8Array(Float32Array.of(value).buffer));
  }
  string(text: string): this {
    const bytes = new TextEncoder().encode(text);
    return this.uint64(bytes.length).#add(bytes);
  }
  pad(multiple: number): this {
    return this.#add(new Uint8Array((multiple - this.#bytes % multiple) % multiple));
  }
  concat(): Uint8Array {
    const all = new Uint8Array(this.#bytes);
    let at = 0;
    for (const part of this.#parts) {
      all.set(part, at);
      at += part.length;
    }
    return all;
  }
}

type Value = { type: ValueType; value: number | string } | { type: ValueType; array: (number | string)[] };

const uint32 = (value: number): Value => ({ type: ValueType.Uint32, value });
const float32 = (value: number): Value => ({ type: ValueType.Float32, value });
const text = (value: string): Value => ({ type: ValueType.String, value });

function writeScalar(out: ByteWriter, type: ValueType, value: number | string): void {
  if (type === ValueType.String) out.string(value as string);
  else if (type === ValueType.Float32) out.float32(value as number);
  else out.uint32(value as number);
}

function writeValue(out: ByteWriter, value: Value): void {
  if (!("array" in value)) {
    out.uint32(value.type);
    return writeScalar(out, value.type, value.value);
  }
  out.uint32(ValueType.Array).uint32(value.type).uint64(value.array.length);
  for (const element of value.array) writeScalar(out, value.type, element);
}

/** A SentencePiece vocabulary of three special tokens, 256 bytes, and fillers: pieces, their scores, and their types. */
function vocabulary(size: number): { pieces: string[]; scores: number[]; types: number[] } {
  const [normal, unknown, control, byte] = [1, 2, 3, 6];
  const pieces = ["<unk>", "<s>", "</s>"], types = [unknown, control, control];
  for (let i = 0; i < 256; i++) {
    pieces.push(`<0x${i.toString(16).toUpperCase().padStart(2, "0")}>`);
    types.push(byte);
  }
  while (pieces.length < size) {
    pieces.push(`▁w${pieces.length}`);
    types.push(normal);
  }
  return { pieces, scores: pieces.map((_, id) => types[id] === normal ? -id : 0), types };
}

function metadata(config: LlamaConfigJson, name: string): Record<string, Value> {
  const heads = config.num_attention_heads as number;
  const { pieces, scores, types } = vocabulary(config.vocab_size);
  return {
    "general.architecture": text("llama"),
    "general.name": text(name),
    "general.alignment": uint32(ALIGNMENT),
    "general.file_type": uint32(2),
    "general.quantization_version": uint32(2),
    "llama.block_count": uint32(config.num_hidden_layers),
    "llama.context_length": uint32(config.max_position_embeddings as number),
    "llama.embedding_length": uint32(config.hidden_size),
    "llama.feed_forward_length": uint32(config.intermediate_size),
    "llama.attention.head_count": uint32(heads),
    "llama.attention.head_count_kv": uint32(config.num_key_value_heads as number),
    "llama.attention.layer_norm_rms_epsilon": float32(config.rms_norm_eps as number),
    "llama.rope.dimension_count": uint32(config.hidden_size / heads),
    "llama.rope.freq_base": float32(config.rope_theta as number),
    "llama.vocab_size": uint32(config.vocab_size),
    "tokenizer.ggml.model": text("llama"),
    "tokenizer.ggml.tokens": { type: ValueType.String, array: pieces },
    "tokenizer.ggml.scores": { type: ValueType.Float32, array: scores },
    "tokenizer.ggml.token_type": { type: ValueType.Int32, array: types },
    "tokenizer.ggml.unknown_token_id": uint32(0),
    "tokenizer.ggml.bos_token_id": uint32(1),
    "tokenizer.ggml.eos_token_id": uint32(2),
  };
}

function tensors(config: LlamaConfigJson): Tensor[] {
  const { hidden_size: hidden, intermediate_size: inner, vocab_size: vocab, num_hidden_layers: layers } = config;
  const kvRows = hidden / (config.num_attention_heads as number) * (config.num_key_value_heads as number);
  const matrix = (name: string, rows: number, cols: number): Tensor => ({ name, type: "Q4_0", dimensions: [cols, rows] });
  const vector = (name: string): Tensor => ({ name, type: "F32", dimensions: [hidden] });
  return [
    matrix("token_embd.weight", vocab, hidden),
    ...Array.from({ length: layers }, (_, layer) => `blk.${layer}.`).flatMap((block) => [
      vector(`${block}attn_norm.weight`),
      matrix(`${block}attn_q.weight`, hidden, hidden),
      matrix(`${block}attn_k.weight`, kvRows, hidden),
      matrix(`${block}attn_v.weight`, kvRows, hidden),
      matrix(`${block}attn_output.weight`, hidden, hidden),
      vector(`${block}ffn_norm.weight`),
      matrix(`${block}ffn_gate.weight`, inner, hidden),
      matrix(`${block}ffn_up.weight`, inner, hidden),
      matrix(`${block}ffn_down.weight`, hidden, inner),
    ]),
    vector("output_norm.weight"),
    { name: "output.weight", type: "Q6_K", dimensions: [hidden, vocab] },
  ];
}

function tensorBytes({ type, dimensions }: Tensor): number {
  const { elements, bytes } = TENSOR_TYPES[type];
  return dimensions.reduce((product, length) => product * length, 1) / elements * bytes;
}

/** The bits of a positive float16, cut. */
function float16Bits(value: number): number {
  if (value < 2 ** -14) return Math.floor(value * 2 ** 24);
  const bits = new Uint32Array(Float32Array.of(value).buffer)[0];
  return ((bits >>> 23) - 112) << 10 | (bits >>> 13) & 0x3ff;
}

/** Random blocks whose scales give weights of standard deviation 1 / sqrt(cols), so that products keep the scale of what they multiply. */
function randomBlocks(type: "Q4_0" | "Q6_K", cols: number, count: number, random: RandomBytes): Uint8Array {
  const { bytes, scale } = TENSOR_TYPES[type];
  const blocks = new Uint8Array(count * bytes);
  random.fill(blocks);
  // Codes are uniform: of -8 to 7 with deviation 4.6, or of -32 to 31 with 18.5 times int8 scales with 74.
  const bits = float16Bits(1 / Math.sqrt(cols) / (type === "Q4_0" ? 4.6 : 18.5 * 74));
  for (let at = scale; at < blocks.length; at += bytes) {
    blocks[at] = bits & 255;
    blocks[at + 1] = bits >>> 8;
  }
  return blocks;
}

function writeTensor(fd: number, tensor: Tensor, random: RandomBytes): void {
  const total = tensorBytes(tensor);
  if (tensor.type === "F32") {
    fs.writeSync(fd, new Uint8Array(new Float32Array(tensor.dimensions[0]).fill(1).buffer));
  } else {
    // 8 MB of blocks over and over: speed does not depend on what they are.
    const count = Math.min(total / TENSOR_TYPES[tensor.type].bytes, tensor.type === "Q4_0" ? 1 << 19 : 1 << 15);
    const blocks = randomBlocks(tensor.type, tensor.dimensions[0], count, random);
    for (let written = 0; written < total;) {
      written += fs.writeSync(fd, blocks, 0, Math.min(blocks.length, total - written));
    }
  }
  fs.writeSync(fd, new Uint8Array((ALIGNMENT - total % ALIGNMENT) % ALIGNMENT));
}

/** Writes the file: under another name until it is whole. */
export function writeGguf(path: string, name: string, config: LlamaConfigJson): void {
  const entries = Object.entries(metadata(config, name)), all = tensors(config), random = new RandomBytes(1);
  const header = new ByteWriter();
  header.uint32(0x46554747).uint32(3).uint64(all.length).uint64(entries.length);
  for (const [key, value] of entries) writeValue(header.string(key), value);
  let offset = 0;
  for (const tensor of all) {
    header.string(tensor.name).uint32(tensor.dimensions.length);
    for (const length of tensor.dimensions) header.uint64(length);
    header.uint32(TENSOR_TYPES[tensor.type].id).uint64(offset);
    offset += Math.ceil(tensorBytes(tensor) / ALIGNMENT) * ALIGNMENT;
  }
  header.pad(ALIGNMENT);
  const fd = fs.openSync(`${path}.partial`, "w");
  try {
    fs.writeSync(fd, header.concat());
    for (const tensor of all) writeTensor(fd, tensor, random);
  } finally {
    fs.closeSync(fd);
  }
  fs.renameSync(`${path}.partial`, path);
}
