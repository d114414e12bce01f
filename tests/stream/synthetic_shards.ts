import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { TapeExtent } from "../../lib/memory/plan.ts";
import type { Manifest } from "../../lib/shard/manifest.ts";
import { random } from "../random.ts";

/** A shard directory of random bytes: what a prefetcher needs of one, and what it must deliver. */
export interface SyntheticShards extends Disposable {
  path: string;
  manifest: Pick<Manifest, "files" | "tensors">;
  tape: TapeExtent[];
  /** Content of each extent of the tape. */
  contents: Uint8Array<ArrayBuffer>[];
  tapeBytes: number;
}

/** Writes files with one tensor each of extents of random length, up to `maxExtentBlocks` blocks of 4096 bytes. */
export function writeSyntheticShards(
  options: { seed: number; files: number; extentsPerFile: number; maxExtentBlocks: number; parent?: string },
): SyntheticShards {
  const next = random(options.seed);
  const path = mkdtempSync(join(options.parent ?? tmpdir(), "airkern-stream-"));
  const manifest: SyntheticShards["manifest"] = { files: [], tensors: [] };
  const tape: TapeExtent[] = [], contents: Uint8Array<ArrayBuffer>[] = [];
  for (let file = 0; file < options.files; file++) {
    const headerBytes = 4096 * (1 + Math.floor(next() * 2));
    const lengths = Array.from(
      { length: options.extentsPerFile },
      () => 4096 * (1 + Math.floor(next() * options.maxExtentBlocks)),
    );
    const bytes = headerBytes + lengths.reduce((sum, length) => sum + length, 0);
    const data = new Uint32Array(bytes / 4);
    for (let i = 0; i < data.length; i++) data[i] = Math.floor(next() * 2 ** 32);
    const name = `layer-${file}.safetensors`;
    writeFileSync(join(path, name), data);
    manifest.files.push({ name, bytes, headerBytes, headerSha256: "" });
    let offset = headerBytes;
    const extents = lengths.map((length, extent) => {
      tape.push({ tensor: file, extent, paddedBytes: length });
      contents.push(new Uint8Array(data.buffer, offset, length));
      offset += length;
      return { offset: offset - length, bytes: length, rows: 1, outliers: 0, sha256: "" };
    });
    manifest.tensors.push({ name, file, format: "q8", rows: extents.length, cols: 1, extents, snrDb: null });
  }
  const tapeBytes = tape.reduce((sum, extent) => sum + extent.paddedBytes, 0);
  return { path, manifest, tape, contents, tapeBytes, [Symbol.dispose]: () => rmSync(path, { recursive: true, force: true }) };
}
