import assert from "node:assert/strict";
import fs from "node:fs";
import { join } from "node:path";
import { BudgetError, CancelledError, UsageError } from "../../lib/errors.ts";
import type { Compression } from "../../lib/shard/manifest.ts";
import { quantizeCheckpoint, type QuantizeOptions } from "../../lib/shard/quantizer.ts";
import { openShards } from "../../lib/shard/reader.ts";
import { verifyShards } from "../../lib/shard/verify.ts";
import { TINY_CONFIG, tinyTensors, writeCheckpoint } from "../checkpoint/tiny_checkpoint.ts";
import { withTemporaryDirectory } from "../temporary_directory.ts";

/** Returns every file of a directory with its content. */
function contents(directory: string): Map<string, string> {
  return new Map(fs.readdirSync(directory).sort().map((name) => [name, fs.readFileSync(join(directory, name), "latin1")]));
}

/** Returns name, inode and modification time of the shard files that are finished. */
function identities(directory: string): string[] {
  return fs.readdirSync(directory).filter((name) => name.endsWith(".safetensors")).map((name) => {
    const { ino, mtimeMs } = fs.statSync(join(directory, name));
    return `${name} ${ino} ${mtimeMs}`;
  });
}

/** Starts a child that stands still at an event of progress, and kills it there. */
async function killedAt(stopAt: number, source: string, out: string, compression: Compression): Promise<void> {
  const child = new Deno.Command(Deno.execPath(), {
    args: [
      "run",
      "-A",
      "--no-check",
      new URL("quantize_child.ts", import.meta.url).pathname,
      source,
      out,
      compression,
      String(stopAt),
    ],
    stdout: "piped",
  }).spawn();
  const reader = child.stdout.getReader();
  const { value } = await reader.read();
  child.kill("SIGKILL");
  await reader.cancel();
  assert.equal(new TextDecoder().decode(value), "standing still\n");
  assert.equal((await child.status).signal, "SIGKILL");
}

Deno.test("quantizeCheckpoint() killed anywhere goes on without redoing finished files, and ends with the same bytes", () =>
  withTemporaryDirectory(async (directory) => {
    const source = join(directory, "tiny"), out = join(directory, "out"), whole = join(directory, "whole");
    writeCheckpoint(source, tinyTensors(TINY_CONFIG, "F16"), TINY_CONFIG, 2);
    await quantizeCheckpoint({ source, out: whole, compression: "q4o" });
    // Events: the first, 1 of the embedding, 9 a layer, 2 of the head; those of files that are finished do not come again.
    for (const [stopAt, finished] of [[1, 0], [5, 1], [12, 2], [7, 2]]) {
      const before = fs.existsSync(out) ? identities(out) : [];
      await killedAt(stopAt, source, out, "q4o");
      assert(fs.readdirSync(out).includes("quantize-journal.json"));
      await assert.rejects(openShards(out), /no \(finished\) shard directory/);
      const after = identities(out);
      assert(before.every((identity) => after.includes(identity)), `${before} -> ${after}`);
      assert.equal(after.length, finished);
    }
    const before = identities(out);
    const report = await quantizeCheckpoint({ source, out, compression: "q4o" });
    assert.equal(report.resumedFiles, before.length);
    const after = identities(out);
    assert(before.every((identity) => after.includes(identity)));
    assert.deepEqual(contents(out), contents(whole));
  }));

/** Runs until `chunks` extents are done, then aborts. */
async function abortedAfter(chunks: number, options: QuantizeOptions): Promise<void> {
  const controller = new AbortController();
  const onProgress = () => void (chunks-- === 0 && controller.abort());
  await assert.rejects(quantizeCheckpoint({ ...options, onProgress, signal: controller.signal }), CancelledError);
}

Deno.test("quantizeCheckpoint() stops at its signal, and refuses to mix another format or model into what is unfinished", () =>
  withTemporaryDirectory(async (directory) => {
    const source = join(directory, "tiny"), other = join(directory, "other"), out = join(directory, "out");
    writeCheckpoint(source, tinyTensors(TINY_CONFIG, "F16"));
    writeCheckpoint(other, tinyTensors(TINY_CONFIG, "F16", 2));
    await abortedAfter(0, { source, out, compression: "nf4" });
    await abortedAfter(14, { source, out, compression: "nf4" });
    const before = identities(out);
    assert.equal(before.length, 2);
    assert(!fs.readdirSync(out).some((name) => name.endsWith(".partial")));
    await assert.rejects(
      quantizeCheckpoint({ source, out, compression: "q4o" }),
      /unfinished quantization with compression nf4, asked for q4o/,
    );
    await assert.rejects(
      quantizeCheckpoint({ source: other, out, compression: "nf4" }),
      /unfinished quantization with fingerprint/,
    );
    assert.deepEqual(identities(out), before);
    // Written to since: what was made from it may be of something else.
    const later = new Date(Date.now() + 5000);
    fs.utimesSync(join(source, "model.safetensors"), later, later);
    assert.equal((await quantizeCheckpoint({ source, out, compression: "nf4" })).resumedFiles, 0);
    assert.deepEqual((await verifyShards(out)).damages, []);
  }));

Deno.test("quantizeCheckpoint() redoes a finished file whose header was damaged meanwhile", () =>
  withTemporaryDirectory(async (directory) => {
    const source = join(directory, "tiny"), out = join(directory, "out");
    writeCheckpoint(source, tinyTensors(TINY_CONFIG, "F16"));
    await abortedAfter(14, { source, out, compression: "q8" });
    fs.truncateSync(join(out, "layer-0000.safetensors"), 5000);
    assert.equal((await quantizeCheckpoint({ source, out, compression: "q8" })).resumedFiles, 1);
    assert.deepEqual((await verifyShards(out)).damages, []);
  }));

Deno.test("quantizeCheckpoint() recognises its whole output, and refuses that of another model or format", () =>
  withTemporaryDirectory(async (directory) => {
    const source = join(directory, "tiny"), other = join(directory, "other"), out = join(directory, "out");
    writeCheckpoint(source, tinyTensors(TINY_CONFIG, "F16"));
    writeCheckpoint(other, tinyTensors(TINY_CONFIG, "F16", 2));
    const first = await quantizeCheckpoint({ source, out, compression: "q8" });
    const before = identities(out);
    // As a kill just after the manifest leaves it.
    fs.writeFileSync(join(out, "quantize-journal.json"), "whatever");
    const again = await quantizeCheckpoint({ source, out, compression: "q8" });
    assert(again.alreadyComplete && !first.alreadyComplete);
    assert(!fs.existsSync(join(out, "quantize-journal.json")));
    assert.deepEqual({ ...again, seconds: 0, alreadyComplete: false }, { ...first, seconds: 0 });
    await assert.rejects(
      quantizeCheckpoint({ source, out, compression: "none" }),
      /it holds tiny \(.*\) as q8, asked for tiny \(.*\) as none/,
    );
    await assert.rejects(quantizeCheckpoint({ source: other, out, compression: "q8" }), UsageError);
    assert.deepEqual(identities(out), before);
  }));

Deno.test("two runs into one directory: the second waits and finds all done", () =>
  withTemporaryDirectory(async (directory) => {
    const source = join(directory, "tiny"), out = join(directory, "out");
    writeCheckpoint(source, tinyTensors(TINY_CONFIG, "F16"));
    const phases: string[] = [];
    const reports = await Promise.all(
      [0, 1].map(() => quantizeCheckpoint({ source, out, compression: "q8", onProgress: ({ phase }) => phases.push(phase) })),
    );
    assert.deepEqual(reports.map(({ alreadyComplete }) => alreadyComplete).sort(), [false, true]);
    assert(phases.includes("wait"));
  }));

Deno.test("deleteOriginal removes the source's weights only when the output was reread whole and the source is what it was", () =>
  withTemporaryDirectory(async (directory) => {
    const source = join(directory, "tiny"), out = join(directory, "out");
    writeCheckpoint(source, tinyTensors(TINY_CONFIG, "F16"), TINY_CONFIG, 3);
    const sources = fs.readdirSync(source).filter((name) => name.endsWith(".safetensors"));
    const options: QuantizeOptions = { source, out, compression: "q8", deleteOriginal: true };
    await quantizeCheckpoint({ ...options, deleteOriginal: false });
    const file = join(out, "layer-0002.safetensors");
    const bytes = fs.readFileSync(file);
    bytes[bytes.length - 5000] ^= 4;
    fs.writeFileSync(file, bytes);
    await assert.rejects(
      quantizeCheckpoint(options),
      /the output is damaged, the source is kept: model.layers.2.mlp.down_proj.weight, extent 0/,
    );
    bytes[bytes.length - 5000] ^= 4;
    fs.writeFileSync(file, bytes);
    const path = join(source, sources[1]), { mtime } = fs.statSync(path);
    fs.utimesSync(path, new Date(Date.now() + 5000), new Date(Date.now() + 5000));
    await assert.rejects(quantizeCheckpoint(options), /it was changed after it was quantized, so it is kept/);
    assert(sources.every((name) => fs.existsSync(join(source, name))));
    fs.utimesSync(path, mtime, mtime);
    const report = await quantizeCheckpoint(options);
    assert.deepEqual(report.deletedFiles, sources.map((name) => join(source, name)));
    assert(sources.every((name) => !fs.existsSync(join(source, name))));
    assert(fs.existsSync(join(source, "config.json")));
    assert.deepEqual((await verifyShards(out)).damages, []);
  }));

Deno.test("progress never goes back and ends at the total", () =>
  withTemporaryDirectory(async (directory) => {
    const source = join(directory, "tiny"), out = join(directory, "out");
    writeCheckpoint(source, tinyTensors(TINY_CONFIG, "F16"));
    await abortedAfter(14, { source, out, compression: "q8" });
    const done: number[] = [];
    let total = 0;
    await quantizeCheckpoint({
      source,
      out,
      compression: "q8",
      onProgress: ({ doneBytes, totalBytes }) => {
        done.push(doneBytes);
        total = totalBytes;
      },
    });
    assert(done[0] > 0, "what an earlier run did counts");
    assert(done.every((bytes, i) => i === 0 || bytes > done[i - 1]));
    assert.equal(done.at(-1), total);
  }));

/** Mounts a small file system, or returns why it cannot. */
function mountTmpfs(path: string, bytes: number): string | undefined {
  fs.mkdirSync(path);
  const { success, stderr } = new Deno.Command("mount", { args: ["-t", "tmpfs", "-o", `size=${bytes}`, "tmpfs", path] })
    .outputSync();
  return success ? undefined : new TextDecoder().decode(stderr);
}

Deno.test({
  name: "a disk too small is found before the start; a disk that gets full in the middle loses no finished layer" +
    (Deno.uid() === 0 ? "" : " (skipped: only root can mount a small file system)"),
  ignore: Deno.uid() !== 0,
  fn: () =>
    withTemporaryDirectory(async (directory) => {
      const source = join(directory, "tiny"), disk = join(directory, "disk"), out = join(disk, "out");
      writeCheckpoint(source, tinyTensors(TINY_CONFIG, "F16"));
      const failure = mountTmpfs(disk, 9 * 2 ** 20);
      if (failure !== undefined) return console.log(`skipped: cannot mount a small file system: ${failure}`);
      try {
        const filler = join(disk, "filler");
        fs.writeFileSync(filler, new Uint8Array(4 * 2 ** 20));
        await assert.rejects(quantizeCheckpoint({ source, out, compression: "none" }), (error: Error) => {
          assert(error instanceof BudgetError, error.stack);
          assert.match(error.message, /5.00 MiB are free on its disk, required \d+\.\d+ MiB/);
          return true;
        });
        assert(!fs.existsSync(out));
        fs.rmSync(filler);
        let events = 0;
        const fill = () => {
          if (++events !== 14) return;
          // Within layer 1, after two files are whole.
          try {
            fs.writeFileSync(filler, new Uint8Array(16 * 2 ** 20));
          } catch {
            // Full, as intended.
          }
        };
        await assert.rejects(quantizeCheckpoint({ source, out, compression: "none", onProgress: fill }), (error: Error) => {
          assert(error instanceof BudgetError, error.stack);
          assert.match(
            error.message,
            /^Cannot write .*: the disk is full; finished layers are kept, so free some space and run it again$/,
          );
          return true;
        });
        assert(!fs.existsSync(join(out, "airkern.json")));
        const before = identities(out);
        assert.equal(before.length, 2);
        fs.rmSync(filler);
        const report = await quantizeCheckpoint({ source, out, compression: "none" });
        assert.equal(report.resumedFiles, 2);
        assert(before.every((identity) => identities(out).includes(identity)));
        assert.deepEqual((await verifyShards(out)).damages, []);
      } finally {
        new Deno.Command("umount", { args: [disk] }).outputSync();
      }
    }),
});
