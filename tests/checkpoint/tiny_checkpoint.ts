/**
 * Writes tiny random Llama checkpoints for tests.
 */
import fs from "node:fs";
import { join } from "node:path";
import { type Dtype, writeHeader } from "../../lib/checkpoint/safetensors.ts";
import { LLAMA } from "../../lib/models/families/llama.ts";

/** A config of odd sizes: no width is a multiple of 32. */
export const TINY_CONFIG = {
  model_type: "llama",
  hidden_act: "silu",
  hidden_size: 72,
  intermediate_size: 100,
  num_hidden_layers: 3,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  vocab_size: 131,
  max_position_embeddings: 64,
  rms_norm_eps: 1e-5,
  rope_theta: 10000,
  tie_word_embeddings: false,
};

/** One tensor to write. */
export interface TinyTensor {
  name: string;
  dtype: Dtype;
  shape: number[];
  /** What the stored bytes mean, as float32. */
  values: Float32Array;
}

/** Returns a generator of normally distributed numbers, the same for the same seed. */
export function gaussian(seed: number): () => number {
  let state = (seed * 2654435761 + 1) >>> 0;
  const uniform = () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state = (state ^ (state << 5)) >>> 0;
    return (state + 0.5) / 2 ** 32;
  };
  return () => Math.sqrt(-2 * Math.log(uniform())) * Math.cos(2 * Math.PI * uniform());
}

/** Returns the bytes of values in an element type, and rounds the values to what those bytes mean. */
function encode(values: Float32Array, dtype: Dtype): Uint8Array {
  if (dtype === "F32") return new Uint8Array(values.buffer);
  if (dtype === "F16") {
    const halves = new Float16Array(values);
    values.set(halves);
    return new Uint8Array(halves.buffer);
  }
  if (dtype !== "BF16") throw new RangeError(`Cannot encode ${dtype}`);
  const bits = new Uint32Array(values.buffer);
  const halves = new Uint16Array(bits.length);
  for (let i = 0; i < bits.length; i++) {
    halves[i] = bits[i] >>> 16;
    bits[i] = halves[i] << 16;
  }
  return new Uint8Array(halves.buffer);
}

/** Returns the tensors that a config declares, random. */
export function tinyTensors(config: Record<string, unknown>, dtype: Dtype, seed = 1): TinyTensor[] {
  const { embedding, layers, head } = LLAMA.tensors(LLAMA.parseConfig(config));
  const random = gaussian(seed);
  return [...embedding, ...layers.flat(), ...head].map(({ name, rows, cols, kind }) => ({
    name,
    dtype,
    shape: kind === "vector" ? [cols] : [rows, cols],
    values: Float32Array.from({ length: rows * cols }, () => kind === "vector" ? 1 + 0.1 * random() : 0.02 * random()),
  }));
}

/** Writes one safetensors file. */
export function writeSafetensors(path: string, tensors: readonly TinyTensor[]): void {
  const data = tensors.map(({ values, dtype }) => encode(values, dtype));
  fs.writeFileSync(path, writeHeader(tensors.map((tensor, i) => ({ ...tensor, bytes: data[i].length }))));
  for (const bytes of data) fs.appendFileSync(path, bytes);
}

/** Writes a checkpoint of one file, or of several with their index, and a tokenizer's files. */
export function writeCheckpoint(
  directory: string,
  tensors: readonly TinyTensor[],
  config: Record<string, unknown> = TINY_CONFIG,
  fileCount = 1,
): void {
  fs.mkdirSync(directory, { recursive: true });
  fs.writeFileSync(join(directory, "config.json"), JSON.stringify(config));
  fs.writeFileSync(join(directory, "generation_config.json"), `{"eos_token_id":[2,3]}`);
  fs.writeFileSync(join(directory, "tokenizer.json"), `{"model":"none, this is a test"}`);
  fs.writeFileSync(join(directory, "tokenizer_config.json"), "{}");
  if (fileCount === 1) return writeSafetensors(join(directory, "model.safetensors"), tensors);
  const weightMap: Record<string, string> = {};
  for (let i = 0; i < fileCount; i++) {
    const name = `model-${i + 1}-of-${fileCount}.safetensors`;
    const part = tensors.filter((_, index) => index % fileCount === i);
    writeSafetensors(join(directory, name), part);
    for (const tensor of part) weightMap[tensor.name] = name;
  }
  fs.writeFileSync(join(directory, "model.safetensors.index.json"), JSON.stringify({ metadata: {}, weight_map: weightMap }));
}
