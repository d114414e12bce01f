/**
 * The tiny random checkpoints of tests/fixtures/llama and tests/fixtures/architectures, with what transformers computes from them.
 */
import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { Engine, type EngineOptions, type Sequence } from "../../lib/engine/engine.ts";
import { BudgetError } from "../../lib/errors.ts";
import { EXTENT_ALIGNMENT } from "../../lib/shard/manifest.ts";
import { quantizeCheckpoint } from "../../lib/shard/quantizer.ts";
import { TEST_KIND } from "../kernels/reference.ts";

const FIXTURES = fileURLToPath(new URL("../fixtures/llama/", import.meta.url));

/** The folder of the architectures' fixtures. */
export const ARCHITECTURES = fileURLToPath(new URL("../fixtures/architectures/", import.meta.url));

/** Returns the architectures' fixtures as `family/variant`. */
export function architectureNames(): string[] {
  return readdirSync(ARCHITECTURES).sort().flatMap((family) =>
    readdirSync(ARCHITECTURES + family).sort().map((variant) => `${family}/${variant}`)
  );
}

/** A tensor in a fixture: base64 of little-endian float32. */
export interface TensorJson {
  dtype: "f32";
  shape: [rows: number, cols: number] | [cols: number];
  data: string;
}

export interface ParityCase {
  promptIds: number[];
  /** [prompt tokens][vocabulary] */
  promptLogits: Float32Array[];
  greedyIds: number[];
  /** Logits after greedy token 0, 1, ... each a cached step. */
  decodeLogits: Float32Array[];
}

/** Returns a fixture tensor's rows; a vector is one row. */
export function rowsOf({ dtype, shape, data }: TensorJson): Float32Array[] {
  assert.equal(dtype, "f32");
  const cols = shape.at(-1)!, rows = shape.length === 2 ? shape[0] : 1;
  const values = new Float32Array(Uint8Array.fromBase64(data).buffer);
  assert.equal(values.length, rows * cols);
  return Array.from({ length: rows }, (_, row) => values.subarray(row * cols, (row + 1) * cols));
}

/** Returns what transformers computes for a checkpoint of tests/fixtures/llama. */
export function expectedOf(name: string): ParityCase[] {
  return casesOf(FIXTURES + name);
}

/** Returns what transformers computes for the checkpoint in a folder, from its expected.json. */
export function casesOf(folder: string): ParityCase[] {
  const { cases } = JSON.parse(readFileSync(`${folder}/expected.json`, "utf8"));
  return cases.map((entry: Record<string, unknown>) => ({
    promptIds: entry.prompt_ids,
    promptLogits: rowsOf(entry.prompt_logits as TensorJson),
    greedyIds: entry.greedy_ids,
    decodeLogits: rowsOf(entry.decode_logits as TensorJson),
  }));
}

/** A fixture's shard directory, unquantized; removed when disposed of. */
export function shardFixture(name: string): Promise<{ path: string } & Disposable> {
  return shardCheckpoint(FIXTURES + name);
}

/** A checkpoint's shard directory, unquantized; removed when disposed of. */
export async function shardCheckpoint(source: string): Promise<{ path: string } & Disposable> {
  const path = Deno.makeTempDirSync({ prefix: "airkern-shards-" });
  await quantizeCheckpoint({ source, out: path, compression: "none" });
  return { path, [Symbol.dispose]: () => Deno.removeSync(path, { recursive: true }) };
}

/** Opens an engine that computes as exactly as it can, on the kind of device that AIRKERN_TEST_KIND names. */
export function openExact(path: string, options: EngineOptions = {}): Promise<Engine> {
  return Engine.open(path, {
    ...{ device: TEST_KIND, contextTokens: 128, kvCacheType: "f32", precision: "exact", threads: 2 },
    ...options,
  });
}

/**
 * Opens an engine that keeps no weights where it computes, and hardly an expert: they come from disk, on a device with memory of its own through host
 * memory.
 */
export async function openStreamed(path: string, options: EngineOptions): Promise<Engine> {
  // No more tokens than the planner keeps to: it would take fewer a pass where that makes all weights fit.
  options = { ...options, passTokens: 32, logitRows: 32, expertCacheBytes: 1 };
  let engine: Engine | undefined;
  if ((options.device ?? TEST_KIND) === "cpu") engine = await openExact(path, { ...options, residentBytes: 0 });
  else {
    let vramBytes: number;
    {
      await using resident = await openExact(path, options);
      const { device, residentBytes } = resident.plan;
      vramBytes = device!.totalBytes - residentBytes;
    }
    // Some extents for slots, fewer than all; what else the device needs is the same.
    for (let slotBytes = 2 * EXTENT_ALIGNMENT; engine === undefined; slotBytes += EXTENT_ALIGNMENT) {
      try {
        engine = await openExact(path, { ...options, vramBytes: vramBytes + slotBytes });
      } catch (error) {
        if (!(error instanceof BudgetError) || slotBytes > 16 * EXTENT_ALIGNMENT) throw error;
      }
    }
  }
  const { streamedBytesPerPass, deviceSlotBytes } = engine.plan;
  assert.ok(streamedBytesPerPass > 0 || deviceSlotBytes > 0);
  return engine;
}

/** Returns the largest error over rows, relative to the largest magnitude of each expected row. */
export function relativeError(actual: readonly Float32Array[], expected: readonly Float32Array[]): number {
  assert.equal(actual.length, expected.length);
  let worst = 0;
  expected.forEach((row, r) => {
    assert.equal(actual[r].length, row.length);
    const scale = row.reduce((max, value) => Math.max(max, Math.abs(value)), 0);
    row.forEach((value, i) => {
      const error = Math.abs(actual[r][i] - value) / scale;
      // Written so that NaN counts as wrong.
      if (!(error <= worst)) worst = error;
    });
  });
  return worst;
}

/** Cuts a pass's logits into rows of their own memory. */
export function logitRows(engine: Engine, logits: Float32Array | undefined): Float32Array[] {
  assert.ok(logits);
  const { vocabSize } = engine.config;
  return Array.from({ length: logits.length / vocabSize }, (_, row) => logits.slice(row * vocabSize, (row + 1) * vocabSize));
}

/** Continues a sequence greedily, a token a pass; its last token is not in the cache. */
export async function greedy(engine: Engine, sequence: Sequence, first: number, count: number): Promise<number[]> {
  const tokens = [first];
  while (tokens.length < count) {
    const [{ argmax }] = await engine.pass([{ sequence, tokens: tokens.slice(-1), logits: "last", output: "argmax" }]);
    tokens.push(argmax![0]);
  }
  return tokens;
}
