import assert from "node:assert/strict";
import fs from "node:fs";
import { join } from "node:path";
import { openCheckpoint } from "../../lib/checkpoint/checkpoint.ts";
import { removeCheckpointFile } from "../../lib/checkpoint/remove_file.ts";
import { FormatError } from "../../lib/errors.ts";
import { TINY_CONFIG, tinyTensors, writeCheckpoint, writeSafetensors } from "./tiny_checkpoint.ts";
import { withTemporaryDirectory } from "../temporary_directory.ts";

async function refuses(path: string, expected: RegExp): Promise<void> {
  await assert.rejects(async () => {
    using _ = await openCheckpoint(path);
  }, (error: Error) => {
    assert(error instanceof FormatError, error.stack);
    assert.match(error.message, expected);
    assert(!error.message.includes("\n"), error.message);
    return true;
  });
}

for (const [dtype, fileCount] of [["F32", 1], ["F16", 3], ["BF16", 2]] as const) {
  Deno.test(`openCheckpoint() and readRows() give any rows of ${dtype} weights in ${fileCount} file(s)`, () =>
    withTemporaryDirectory(async (directory) => {
      const tensors = tinyTensors(TINY_CONFIG, dtype);
      writeCheckpoint(directory, tensors, TINY_CONFIG, fileCount);
      using checkpoint = await openCheckpoint(directory);
      assert.deepEqual(checkpoint.config, TINY_CONFIG);
      assert.deepEqual(checkpoint.generationConfig, { eos_token_id: [2, 3] });
      assert.deepEqual([...checkpoint.tensors.keys()].sort(), tensors.map(({ name }) => name).sort());
      await Promise.all(tensors.map(async ({ name, shape, values }) => {
        const [rows, cols] = shape.length === 2 ? shape : [1, shape[0]];
        const first = Math.floor(rows / 3), count = Math.ceil(rows / 2);
        const elementBytes = dtype === "F32" ? 4 : 2;
        const into = new Uint8Array(count * cols * elementBytes);
        await checkpoint.readRows(checkpoint.tensors.get(name)!, first, count, into);
        const got = dtype === "F32"
          ? new Float32Array(into.buffer)
          : dtype === "F16"
          ? Float32Array.from(new Float16Array(into.buffer))
          : new Float32Array(Uint32Array.from(new Uint16Array(into.buffer), (half) => half << 16).buffer);
        assert.deepEqual(got, values.slice(first * cols, (first + count) * cols), name);
      }));
    }));
}

Deno.test("openCheckpoint() says of a path that is no checkpoint what is wrong with it", () =>
  withTemporaryDirectory(async (directory) => {
    await refuses(join(directory, "none"), /Cannot open model .*none: no such directory/);
    await refuses(directory, /holds neither model.safetensors nor model.safetensors.index.json/);
    fs.writeFileSync(join(directory, "airkern.json"), "{}");
    await refuses(directory, /it is a shard directory already/);
    writeSafetensors(join(directory, "model.safetensors"), tinyTensors(TINY_CONFIG, "F32"));
    await refuses(directory, /holds no config.json/);
    fs.writeFileSync(join(directory, "config.json"), "{ not json");
    await refuses(directory, /config.json: not valid JSON/);
    fs.writeFileSync(join(directory, "config.json"), "[]");
    await refuses(directory, /config.json: it holds no JSON object/);
    await refuses(join(directory, "config.json"), /it is a file; give the directory/);
  }));

Deno.test("openCheckpoint() checks the index against the files, both ways", () =>
  withTemporaryDirectory(async (directory) => {
    const tensors = tinyTensors(TINY_CONFIG, "F16");
    writeCheckpoint(directory, tensors, TINY_CONFIG, 2);
    const path = join(directory, "model.safetensors.index.json");
    const index = JSON.parse(fs.readFileSync(path, "utf8"));
    const change = async (edit: (map: Record<string, unknown>) => void, expected: RegExp) => {
      const changed = structuredClone(index);
      edit(changed.weight_map);
      fs.writeFileSync(path, JSON.stringify(changed));
      await refuses(directory, expected);
    };
    const [{ name: first }] = tensors;
    await change((map) => delete map[first], /its tensor "model.embed_tokens.weight" is listed nowhere/);
    await change((map) => map[first] = "model-2-of-2.safetensors", /is listed in model-2-of-2/);
    await change((map) => map.extra = "model-1-of-2.safetensors", /tensor "extra" should be in model-1-of-2/);
    await change((map) => map.extra = "model-9-of-2.safetensors", /lists model-9-of-2.safetensors, which is missing/);
    for (const escape of ["../model-1-of-2.safetensors", "/etc/passwd", "..", 3, ""]) {
      await change((map) => map[first] = escape, /which is no file name/);
    }
    fs.writeFileSync(path, "{}");
    await refuses(directory, /it has no weight_map/);
    fs.writeFileSync(path, JSON.stringify(index));
    fs.truncateSync(join(directory, "model-2-of-2.safetensors"), 4000);
    await refuses(directory, /model-2-of-2.safetensors: .*truncated/);
  }));

Deno.test("revision is equal for a copy and differs for other weights, another config or one changed element", () =>
  withTemporaryDirectory(async (directory) => {
    const revision = async (seed: number, config: Record<string, unknown> = TINY_CONFIG, edit?: (path: string) => void) => {
      const path = fs.mkdtempSync(join(directory, "m"));
      writeCheckpoint(path, tinyTensors(TINY_CONFIG, "F16", seed), config);
      edit?.(path);
      using checkpoint = await openCheckpoint(path);
      return checkpoint.revision;
    };
    const original = await revision(1);
    assert.match(original, /^[0-9a-f]{16}$/);
    assert.equal(await revision(1), original);
    const others = [
      await revision(2),
      await revision(1, { ...TINY_CONFIG, rms_norm_eps: 1e-6 }),
      await revision(1, TINY_CONFIG, (path) => {
        const file = join(path, "model.safetensors");
        const bytes = fs.readFileSync(file);
        bytes[bytes.length - 1] ^= 1;
        fs.writeFileSync(file, bytes);
      }),
    ];
    assert.equal(new Set([original, ...others]).size, 4);
  }));

Deno.test("a snapshot of a Hugging Face cache is known by its name and commit; removing a file removes its blob when no other snapshot has it", () =>
  withTemporaryDirectory(async (directory) => {
    const commits = ["a".repeat(40), "b".repeat(40)];
    const repository = join(directory, "models--org--tiny-llama"), blobs = join(repository, "blobs");
    fs.mkdirSync(blobs, { recursive: true });
    writeCheckpoint(join(directory, "plain"), tinyTensors(TINY_CONFIG, "F16"));
    for (const name of fs.readdirSync(join(directory, "plain"))) {
      fs.renameSync(join(directory, "plain", name), join(blobs, `blob-${name}`));
      for (const commit of commits) {
        fs.mkdirSync(join(repository, "snapshots", commit), { recursive: true });
        fs.symlinkSync(join("..", "..", "blobs", `blob-${name}`), join(repository, "snapshots", commit, name));
      }
    }
    const snapshots = commits.map((commit) => join(repository, "snapshots", commit));
    {
      using checkpoint = await openCheckpoint(snapshots[0]);
      assert.equal(checkpoint.name, "org/tiny-llama");
      assert.equal(checkpoint.revision, commits[0]);
    }
    const blob = join(blobs, "blob-model.safetensors");
    removeCheckpointFile(join(snapshots[0], "model.safetensors"));
    assert(fs.existsSync(blob) && !fs.existsSync(join(snapshots[0], "model.safetensors")));
    removeCheckpointFile(join(snapshots[1], "model.safetensors"));
    assert(!fs.existsSync(blob));
    // A link that leads elsewhere is only a link.
    fs.writeFileSync(join(directory, "elsewhere"), "x");
    fs.symlinkSync(join(directory, "elsewhere"), join(snapshots[1], "linked.safetensors"));
    removeCheckpointFile(join(snapshots[1], "linked.safetensors"));
    assert(fs.existsSync(join(directory, "elsewhere")));
  }));
