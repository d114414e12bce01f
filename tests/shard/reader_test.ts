import assert from "node:assert/strict";
import fs from "node:fs";
import { join } from "node:path";
import { readHeader } from "../../lib/checkpoint/safetensors.ts";
import { FormatError } from "../../lib/errors.ts";
import type { Manifest, TensorEntry } from "../../lib/shard/manifest.ts";
import { openShards } from "../../lib/shard/reader.ts";
import { ShardFileWriter, writeManifest } from "../../lib/shard/writer.ts";
import { withTemporaryDirectory } from "../temporary_directory.ts";

/** Writes a shard directory of f32 vectors, one tensor a file, each of some one-page extents of one row. */
async function writeVectors(directory: string, fileCount: number, extentsPerFile: number): Promise<Manifest> {
  const files: Manifest["files"] = [], tensors: TensorEntry[] = [];
  const page = new Uint8Array(4096);
  for (let file = 0; file < fileCount; file++) {
    const names = Array.from({ length: extentsPerFile }, (_, i) => `w#${i}`);
    using writer = new ShardFileWriter(directory, `f${file}.safetensors`, names.map((name) => ({ name, maxBytes: 4096 })));
    const extents = [];
    for (const [i, name] of names.entries()) {
      page.fill(file + i);
      extents.push({ ...await writer.append(name, page), bytes: 4096, rows: 1, outliers: 0 });
    }
    tensors.push({ name: `t${file}`, file, format: "f32", rows: extentsPerFile, cols: 1024, extents, snrDb: null });
    files.push(await writer.finish());
  }
  const manifest: Manifest = {
    format: "airkern-shards",
    formatVersion: 1,
    generator: "test",
    config: {},
    generationConfig: null,
    tokenizerFiles: [],
    source: { name: "x", revision: "y" },
    compression: "none",
    files,
    tensors,
    ignoredTensors: [],
  };
  await writeManifest(directory, manifest);
  return manifest;
}

Deno.test("a shard file is a safetensors file: header a multiple of 4096, U8 tensors without gaps, each of its bytes", () =>
  withTemporaryDirectory(async (directory) => {
    const { files, tensors } = await writeVectors(directory, 1, 3);
    const header = await readHeader(join(directory, "f0.safetensors"));
    assert.equal(header.headerBytes % 4096, 0);
    assert.equal((header.headerBytes - 8) % 8, 0);
    assert.equal(header.headerBytes, files[0].headerBytes);
    assert.equal(header.headerSha256, files[0].headerSha256);
    assert.deepEqual(
      header.tensors.map(({ name, dtype, shape, offset }) => ({ name, dtype, shape, offset })),
      tensors[0].extents.map(({ offset, bytes }, i) => ({ name: `w#${i}`, dtype: "U8", shape: [bytes], offset })),
    );
  }));

Deno.test("a shard file has its name only when it is finished", () =>
  withTemporaryDirectory(async (directory) => {
    {
      using writer = new ShardFileWriter(directory, "x.safetensors", [{ name: "a", maxBytes: 4096 }]);
      await writer.append("a", new Uint8Array(4096));
      assert.deepEqual(fs.readdirSync(directory), ["x.safetensors.partial"]);
    }
    assert.deepEqual(fs.readdirSync(directory), []);
    using writer = new ShardFileWriter(directory, "x.safetensors", [{ name: "a", maxBytes: 4096 }]);
    await writer.append("a", new Uint8Array(4096));
    await writer.finish();
    assert.deepEqual(fs.readdirSync(directory), ["x.safetensors"]);
  }));

Deno.test("openShards() finds tensors by name", () =>
  withTemporaryDirectory(async (directory) => {
    const manifest = await writeVectors(directory, 2, 1);
    const shards = await openShards(directory);
    assert.deepEqual(shards.manifest, manifest);
    assert.equal(shards.tensorIndex("t1"), 1);
    assert.equal(shards.tensor("t1").file, 1);
    assert.equal(shards.findTensor("t2"), undefined);
    assert.throws(() => shards.tensor("t2"), /it has no tensor "t2"/);
    assert.deepEqual(shards.filePaths, [join(directory, "f0.safetensors"), join(directory, "f1.safetensors")]);
  }));

Deno.test("openShards() finds damage of manifest, headers and sizes, each with one line that names the file", () =>
  withTemporaryDirectory(async (directory) => {
    await writeVectors(directory, 2, 1);
    const refuses = (expected: RegExp) =>
      assert.rejects(openShards(directory), (error: Error) => {
        assert(error instanceof FormatError, error.stack);
        assert.match(error.message, expected);
        return !error.message.includes("\n");
      });
    const file = join(directory, "f1.safetensors"), manifest = join(directory, "airkern.json");
    const damaged = async (path: string, at: number, expected: RegExp) => {
      const bytes = fs.readFileSync(path);
      bytes[at] ^= 1;
      fs.writeFileSync(path, bytes);
      await refuses(expected);
      bytes[at] ^= 1;
      fs.writeFileSync(path, bytes);
      await openShards(directory);
    };
    await damaged(file, 20, /f1.safetensors: its header is damaged/);
    await damaged(file, 4095, /f1.safetensors: its header is damaged/);
    await damaged(manifest, 200, /airkern.json: /);
    fs.truncateSync(file, 8191);
    await refuses(/f1.safetensors: it has 8191 bytes, required 8192/);
    fs.rmSync(file);
    await refuses(/f1.safetensors: the file is missing/);
    fs.rmSync(manifest);
    await refuses(/it holds no airkern.json, so it is no \(finished\) shard directory/);
    await assert.rejects(openShards(join(directory, "none")), /none: no such directory/);
  }));

Deno.test("openShards() opens a directory of a 405B's 128 files and 8000 extents in under 1 s", () =>
  withTemporaryDirectory(async (directory) => {
    await writeVectors(directory, 1, 63);
    const manifest = (await openShards(directory)).manifest;
    const files = [], tensors = [];
    for (let i = 0; i < 128; i++) {
      if (i > 0) fs.linkSync(join(directory, "f0.safetensors"), join(directory, `f${i}.safetensors`));
      files.push({ ...manifest.files[0], name: `f${i}.safetensors` });
      for (const tensor of manifest.tensors) tensors.push({ ...tensor, name: `${tensor.name}.${i}`, file: i });
    }
    await writeManifest(directory, { ...manifest, files, tensors });
    const start = performance.now();
    const shards = await openShards(directory);
    const ms = performance.now() - start;
    assert.equal(shards.manifest.tensors.reduce((sum, { extents }) => sum + extents.length, 0), 8064);
    assert(ms < 1000, `took ${ms} ms`);
  }));
