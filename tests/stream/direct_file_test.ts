import assert from "node:assert/strict";
import { existsSync, truncateSync } from "node:fs";
import { join } from "node:path";
import { AirkernError, FormatError } from "../../lib/errors.ts";
import { Context, type HostBuffer } from "../../lib/ffi/context.ts";
import { DirectFiles, type FileIo, nodeFileIo } from "../../lib/stream/direct_file.ts";
import { type SyntheticShards, writeSyntheticShards } from "./synthetic_shards.ts";

const context = Context.open({ threads: 1 });

function shards(files = 1, parent?: string): SyntheticShards {
  return writeSyntheticShards({ seed: 5, files, extentsPerFile: 3, maxExtentBlocks: 20, parent });
}

function pathsOf({ path, manifest }: SyntheticShards): string[] {
  return manifest.files.map(({ name }) => join(path, name));
}

function failure(code: string): Error {
  return Object.assign(new Error(`${code}: planted`), { code });
}

/** Reads every extent and compares it. */
async function readAll(files: DirectFiles, shards: SyntheticShards): Promise<void> {
  using memory = await context.hostBuffer(20 * 4096);
  await readInto(memory, files, shards);
}

async function readInto(memory: HostBuffer, files: DirectFiles, { manifest, tape, contents }: SyntheticShards): Promise<void> {
  for (const [i, { tensor, extent, paddedBytes }] of tape.entries()) {
    memory.view().fill(0);
    const target = memory.view(0, paddedBytes);
    await files.read(manifest.tensors[tensor].file, target, manifest.tensors[tensor].extents[extent].offset);
    assert.deepEqual(target, contents[i], `extent ${i}`);
  }
}

Deno.test("DirectFiles.read() fills memory past the page cache", async () => {
  using made = shards(2);
  using files = new DirectFiles(pathsOf(made));
  await readAll(files, made);
  assert.equal(files.openDescriptors, 2);
});

Deno.test({
  name: "DirectFiles.read() works on a file system in memory, directly or not (where there is /dev/shm)",
  ignore: !existsSync("/dev/shm"),
  fn: async () => {
    using made = shards(1, "/dev/shm");
    using files = new DirectFiles(pathsOf(made));
    await readAll(files, made);
  },
});

for (const code of ["EINVAL", "EOPNOTSUPP"]) {
  Deno.test(`DirectFiles falls back to buffered reads where open answers ${code} to O_DIRECT`, async () => {
    using made = shards();
    const flags: number[] = [];
    const open: FileIo["open"] = (path, flag) => {
      flags.push(flag);
      if (flag !== 0) throw failure(code);
      return nodeFileIo.open(path, flag);
    };
    using files = new DirectFiles(pathsOf(made), { io: { ...nodeFileIo, open } });
    assert.equal(files.isDirect(0), true);
    await readAll(files, made);
    assert.equal(files.isDirect(0), false);
    assert.equal(flags.length, 2, "asked for direct reads once");
  });
}

Deno.test("DirectFiles falls back to buffered reads where reads in flight answer EINVAL", async () => {
  using made = shards();
  const direct = new Set<number>();
  const io: FileIo = {
    open: (path, flags) => {
      const fd = nodeFileIo.open(path, flags);
      if (flags !== 0) direct.add(fd);
      return fd;
    },
    read: (fd, target, position) => direct.has(fd) ? Promise.reject(failure("EINVAL")) : nodeFileIo.read(fd, target, position),
    close: (fd) => {
      direct.delete(fd);
      nodeFileIo.close(fd);
    },
  };
  using files = new DirectFiles(pathsOf(made), { io });
  await Promise.all([readAll(files, made), readAll(files, made), readAll(files, made)]);
  assert.equal(files.isDirect(0), false);
  assert.equal(direct.size, 0, "the refused descriptors are closed");
});

Deno.test("DirectFiles.read() reports the end of a truncated file, aligned or not, read directly or not", async () => {
  for (const cut of [4096, 1000]) {
    for (const buffered of [false, true]) {
      using made = shards();
      const { bytes } = made.manifest.files[0];
      truncateSync(pathsOf(made)[0], bytes - cut);
      const open: FileIo["open"] = (path, flags) => nodeFileIo.open(path, buffered ? 0 : flags);
      using files = new DirectFiles(pathsOf(made), { io: { ...nodeFileIo, open } });
      using memory = await context.hostBuffer(8192);
      await assert.rejects(files.read(0, memory.view(), bytes - 8192), (error) => {
        assert.ok(error instanceof FormatError);
        assert.equal(error.message, `Cannot read ${pathsOf(made)[0]}: it ends at byte ${bytes - cut}, required ${bytes}`);
        return true;
      });
    }
  }
});

Deno.test("DirectFiles.read() continues after a short read in the middle of a file", async () => {
  using made = shards();
  const read: FileIo["read"] = (fd, target, position) => nodeFileIo.read(fd, target.subarray(0, 4096), position);
  using files = new DirectFiles(pathsOf(made), { io: { ...nodeFileIo, read } });
  await readAll(files, made);
});

Deno.test("DirectFiles.read() names file, position and cause of a failed read or open", async () => {
  using made = shards();
  const [path] = pathsOf(made);
  using memory = await context.hostBuffer(4096);
  using broken = new DirectFiles([path], { io: { ...nodeFileIo, read: () => Promise.reject(failure("EIO")) } });
  await assert.rejects(broken.read(0, memory.view(), 8192), (error) => {
    assert.ok(error instanceof AirkernError);
    assert.equal(error.message, `Cannot read ${path}: 4096 bytes at byte 8192: EIO: planted`);
    return true;
  });
  assert.equal(broken.openDescriptors, 0);
  using missing = new DirectFiles([path + ".not"]);
  await assert.rejects(missing.read(0, memory.view(), 0), (error) => {
    assert.ok(error instanceof AirkernError);
    assert.match(error.message, /^Cannot open .*\.not: ENOENT/);
    return true;
  });
  assert.equal(missing.openDescriptors, 0);
});

Deno.test("DirectFiles keeps a bounded number of descriptors and closes all of them", async () => {
  using made = shards(9);
  let open = 0, peak = 0;
  const io: FileIo = {
    ...nodeFileIo,
    open: (path, flags) => {
      peak = Math.max(peak, ++open);
      return nodeFileIo.open(path, flags);
    },
    close: (fd) => {
      open--;
      nodeFileIo.close(fd);
    },
  };
  const files = new DirectFiles(pathsOf(made), { io, maxOpen: 4 });
  await Promise.all([readAll(files, made), readAll(files, made)]);
  assert.equal(peak, 4);
  assert.equal(files.openDescriptors, 4);
  using memory = await context.hostBuffer(20 * 4096);
  const last = readInto(memory, files, made);
  files[Symbol.dispose]();
  assert.equal(open, 1, "the descriptor in use stays open until its read ends");
  await assert.rejects(last, { message: /was closed/ });
  assert.equal(open, 0);
});
