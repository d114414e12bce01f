/**
 * A small model of experts in files, and a stand-in for the layers that use them.
 * @module
 */
import assert from "node:assert/strict";
import { join } from "node:path";
import type { Context, DeviceBuffer, Stream } from "../../lib/ffi/context.ts";
import { Ops } from "../../lib/ffi/ops.ts";
import type { ExpertTable } from "../../lib/memory/plan.ts";
import { type FileIo, nodeFileIo } from "../../lib/stream/direct_file.ts";
import type { ExpertCache, ExpertCacheOptions } from "../../lib/stream/expert_cache.ts";
import type { Transfer } from "../../lib/stream/transfer.ts";
import { type SyntheticShards, writeSyntheticShards } from "./synthetic_shards.ts";

/** Bytes that layers may use between two checks. */
const CAPACITY = 16 << 20;

export const LAYERS = 4, EXPERTS = 6, EXTENTS = 3;

/** A file a layer, EXTENTS extents an expert. */
export function write(seed: number): { shards: SyntheticShards; table: ExpertTable } {
  const shards = writeSyntheticShards({ seed, files: LAYERS, extentsPerFile: EXPERTS * EXTENTS, maxExtentBlocks: 8 });
  const experts = Array.from(
    { length: LAYERS * EXPERTS },
    (_, index) => shards.tape.slice(index * EXTENTS, (index + 1) * EXTENTS),
  );
  return { shards, table: { numLayers: LAYERS, numExperts: EXPERTS, topK: 2, experts } };
}

export function options(
  shards: SyntheticShards,
  table: ExpertTable,
  transfer: Transfer,
  slots: number,
  io?: FileIo,
): ExpertCacheOptions {
  const paths = shards.manifest.files.map(({ name }) => join(shards.path, name));
  return { paths, manifest: shards.manifest, table, slots, stagingBytes: 3 * 8 * 4096, transfer, pieceBytes: 8192, io };
}

/** Counts the bytes that are read. */
export class CountingIo implements FileIo {
  open = nodeFileIo.open;
  close = nodeFileIo.close;
  bytes = 0;
  read(fd: number, target: Uint8Array<ArrayBuffer>, position: number): Promise<number> {
    this.bytes += target.length;
    return nodeFileIo.read(fd, target, position);
  }
}

export function expertBytes(table: ExpertTable, layer: number, expert: number): number {
  return table.experts[layer * EXPERTS + expert].reduce((sum, { paddedBytes }) => sum + paddedBytes, 0);
}

/** Stands for a layer's computation: copies what it is given out in stream order, behind a copy that takes a while, and compares it with the files. */
export class Layers implements AsyncDisposable {
  readonly #context: Context;
  readonly #copied: DeviceBuffer;
  readonly #ballast: DeviceBuffer;
  readonly #ops: Ops;
  readonly #expected: Uint8Array[] = [];
  #end = 0;
  constructor(readonly shards: SyntheticShards, readonly cache: ExpertCache, readonly stream: Stream) {
    this.#context = stream.context;
    this.#copied = this.#context.deviceBuffer(CAPACITY);
    this.#ballast = this.#context.deviceBuffer(2 << 20);
    this.#ops = new Ops(stream);
  }

  async run(layer: number, experts: number[], reorder = true, expected: number[] = []): Promise<number[]> {
    const order = this.cache.beginLayer(layer, experts.map((expert) => ({ expert, tokens: 1 })), 1, reorder);
    if (expected.length > 0) this.cache.expect(layer + 1, expected);
    for (const expert of order) {
      for (let index = 0; index < EXTENTS; index++) {
        const address = await this.cache.acquire(layer, expert, index);
        const content = this.shards.contents[(layer * EXPERTS + expert) * EXTENTS + index];
        this.#ops.copyOnDevice(this.#ballast.address + (1n << 20n), this.#ballast.address, 1 << 20);
        this.#ops.copyOnDevice(this.#copied.address + BigInt(this.#end), address, content.length);
        this.cache.release();
        this.#expected.push(content);
        this.#end += content.length;
      }
    }
    return order;
  }

  async check(): Promise<void> {
    using copied = await this.#context.hostBuffer(CAPACITY);
    this.#ops.copyToHost(copied.address, this.#copied.address, this.#end);
    await this.stream.synchronize();
    let offset = 0;
    for (const content of this.#expected.splice(0)) {
      const seen = copied.view(offset, content.length);
      assert.ok(content.every((byte, i) => byte === seen[i]), `an extent at ${offset} was computed with other bytes`);
      offset += content.length;
    }
    this.#end = 0;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stream.synchronize();
    this.#copied[Symbol.dispose]();
    this.#ballast[Symbol.dispose]();
  }
}
