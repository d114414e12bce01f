/**
 * The weight files of a model on the hub, downloaded when they are first read.
 * @module
 */
import { createHash } from "node:crypto";
import fs from "node:fs";
import { join } from "node:path";
import { CONFIG_FILE } from "../checkpoint/model_files.ts";
import { readWeightHeader } from "../checkpoint/checkpoint.ts";
import { isGgufName } from "../checkpoint/gguf_files.ts";
import { parsePytorchHeader } from "../checkpoint/pytorch_bin.ts";
import { MAX_HEADER_BYTES, parseHeader, type SafetensorsHeader } from "../checkpoint/safetensors.ts";
import type { WeightSupply } from "../checkpoint/weight_supply.ts";
import { FormatError } from "../errors.ts";
import type { Downloads } from "./downloads.ts";

/** Bytes of the first request for a header: more than that of most files, little enough to be no waste. */
const HEADER_PROBE_BYTES = 64 * 1024;

/** The weights of one snapshot. */
export class HubWeights implements WeightSupply {
  readonly names: readonly string[];
  readonly #downloads: Downloads;
  readonly #acquiring = new Map<string, Promise<string>>();

  constructor(downloads: Downloads, names: readonly string[]) {
    this.#downloads = downloads;
    this.names = names;
  }

  get directory(): string {
    return this.#downloads.directory;
  }

  get identity(): string {
    const hash = createHash("sha256");
    const names = this.names.every(isGgufName) ? this.names : [CONFIG_FILE, ...this.names];
    for (const name of names) hash.update(`${name} ${this.#downloads.contentHash(name)}\n`);
    return hash.digest("hex").slice(0, 16);
  }

  expect(names: readonly string[]): Map<string, number> {
    return this.#downloads.expect(names);
  }

  acquire(name: string): Promise<string> {
    let acquiring = this.#acquiring.get(name);
    if (acquiring === undefined) {
      acquiring = this.#downloads.fetch(name).finally(() => this.#acquiring.delete(name));
      this.#acquiring.set(name, acquiring);
    }
    return acquiring;
  }

  async header(name: string): Promise<SafetensorsHeader> {
    const local = join(this.directory, name);
    if (fs.existsSync(local)) return await readWeightHeader(local);
    const ranges = this.#downloads.ranges(name);
    const { bytes } = ranges.file;
    const where = `${name} of model ${this.#downloads.id}`;
    if (name.endsWith(".bin")) {
      const read = async (into: Uint8Array, position: number) => {
        const there = into.subarray(0, Math.max(0, bytes - position));
        if (there.length > 0) await ranges.read(position, there);
        return there.length;
      };
      return await parsePytorchHeader(read, bytes, where);
    }
    if (bytes < 8) throw new FormatError(`Cannot read ${where}: it has ${bytes} bytes, fewer than the 8 of a header's length`);
    const probe = new Uint8Array(Math.min(bytes, HEADER_PROBE_BYTES));
    await ranges.read(0, probe);
    const jsonBytes = new DataView(probe.buffer).getBigUint64(0, true);
    if (jsonBytes > BigInt(Math.min(bytes - 8, MAX_HEADER_BYTES))) {
      throw new FormatError(
        `Cannot read ${where}: its header says it has ${jsonBytes} bytes, but the file has ${bytes}; not safetensors?`,
      );
    }
    const header = new Uint8Array(8 + Number(jsonBytes));
    header.set(probe.subarray(0, header.length));
    if (header.length > probe.length) await ranges.read(probe.length, header.subarray(probe.length));
    return parseHeader(header, bytes, where);
  }

  fileBytes(name: string): number {
    return this.#downloads.ranges(name).file.bytes;
  }

  async peek(name: string, position: number, into: Uint8Array): Promise<void> {
    await this.#downloads.ranges(name).read(position, into);
  }

  /**
   * Brings all of them to disk.
   * @throws {HubError} as {@linkcode Downloads.fetch}.
   */
  async pull(): Promise<void> {
    const missing = [...this.expect(this.names)].filter(([, bytes]) => bytes > 0);
    this.#downloads.checkDiskSpace(missing.reduce((sum, [, bytes]) => sum + bytes, 0));
    for (const name of this.names) await this.acquire(name);
  }
}
