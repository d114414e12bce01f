import assert from "node:assert/strict";
import fs from "node:fs";
import { join } from "node:path";
import { writeAt } from "../../lib/checkpoint/positional_io.ts";
import { BudgetError } from "../../lib/errors.ts";
import { lockFile } from "../../lib/hub/lock.ts";
import { ID, noise, withHub } from "./models.ts";

const MIB = 1024 * 1024;
const LARGE = "model-1-of-3.safetensors";

/** Returns the path and length of the only file that is not whole. */
function incomplete(cache: string): { path: string; bytes: number } {
  const blobs = join(cache, "models--tiny--llama", "blobs");
  const names = fs.readdirSync(blobs).filter((name) => name.endsWith(".incomplete"));
  assert.equal(names.length, 1, names.join());
  return { path: join(blobs, names[0]), bytes: fs.statSync(join(blobs, names[0])).size };
}

Deno.test(
  "pull() killed in the middle of a file goes on there, and the file is right",
  withHub(async ({ server, files, cache, pull }) => {
    files.set(LARGE, noise(24 * MIB));
    server.delayMs = 30;
    const child = new Deno.Command(Deno.execPath(), {
      args: ["run", "-A", "--no-check", new URL("pull_child.ts", import.meta.url).pathname, "pull", ID],
      stdout: "piped",
    }).spawn();
    for await (const text of child.stdout.pipeThrough(new TextDecoderStream())) {
      if (text.split("\n").some((line) => Number(line.split(" ")[1]) >= 8 * MIB)) {
        child.kill("SIGKILL");
        break;
      }
    }
    assert.equal((await child.status).signal, "SIGKILL");
    const { path, bytes } = incomplete(cache);
    assert(bytes >= 4 * MIB && bytes < 24 * MIB, `${bytes}`);
    // What Python versions that resume rely on: nothing but the beginning of the file.
    assert.deepEqual(new Uint8Array(fs.readFileSync(path)), files.get(LARGE)!.subarray(0, bytes));
    server.requests.length = 0;
    const snapshot = await pull();
    assert.deepEqual(new Uint8Array(fs.readFileSync(join(snapshot, LARGE))), files.get(LARGE));
    const starts = server.downloads.flatMap(({ range }) => range === undefined ? [] : [Number(/=(\d+)-/.exec(range)![1])]);
    assert.equal(Math.min(...starts), bytes);
  }),
);

Deno.test(
  "pull() starts over where what was left is of another file, or longer than it",
  withHub(async ({ files, cache, pull }) => {
    const blobs = join(cache, "models--tiny--llama", "blobs");
    for (const left of [noise(1000, 7), noise(files.get(LARGE)!.length + 1, 8)]) {
      const path = await pull();
      const blob = fs.realpathSync(join(path, LARGE));
      fs.rmSync(join(path, LARGE));
      fs.rmSync(blob);
      fs.writeFileSync(`${blob}.incomplete`, left);
      await pull();
      assert.deepEqual(new Uint8Array(fs.readFileSync(blob)), files.get(LARGE));
      assert(!fs.readdirSync(blobs).some((name) => name.endsWith(".incomplete")));
    }
  }),
);

Deno.test(
  "pull() checks the disk before it begins, counting only what is missing",
  withHub(async ({ server, files, pull }) => {
    files.set(LARGE, noise(8 * MIB));
    await assert.rejects(
      pull({ disk: { freeBytes: () => 20 * MIB } }),
      (error: Error) =>
        error instanceof BudgetError &&
        /^Cannot download model tiny\/llama: 20.0 MiB are free on the disk of .*, required 24.\d MiB$/.test(error.message),
    );
    assert(!server.requests.some(({ host }) => host === "content"));
    await pull({ disk: { freeBytes: () => 25 * MIB } });
    await pull({ disk: { freeBytes: () => 0 } });
  }),
);

Deno.test(
  "pull() on a disk that fills up says so in one line, keeps what was written, and goes on from there",
  withHub(async ({ server, files, cache, pull }) => {
    files.set(LARGE, noise(24 * MIB));
    let room = 9 * MIB;
    const full = async (descriptor: number, from: Uint8Array, position: number) => {
      if (position + from.length > room) {
        throw Object.assign(new Error("ENOSPC: no space left on device, write"), { code: "ENOSPC" });
      }
      await writeAt(descriptor, from, position);
    };
    await assert.rejects(
      pull({ disk: { writeAt: full } }),
      (error: Error) =>
        error instanceof BudgetError && /^Cannot write .*: the disk is full; what was downloaded is kept/.test(error.message),
    );
    assert.equal(incomplete(cache).bytes, 8 * MIB);
    server.requests.length = 0;
    room = Infinity;
    const path = await pull({ disk: { writeAt: full } });
    assert.deepEqual(new Uint8Array(fs.readFileSync(join(path, LARGE))), files.get(LARGE));
    assert(!server.downloads.some(({ range }) => /=[0-7]\d{0,6}-/.test(range ?? "")), "the first 8 MiB are not fetched again");
  }),
);

Deno.test(
  "pull() waits while another process holds a file's lock, and takes the file that it brought",
  withHub(async ({ server, files, cache, pull }) => {
    const other = await pull();
    const blob = fs.realpathSync(join(other, LARGE));
    fs.rmSync(join(other, LARGE));
    fs.renameSync(blob, `${blob}.moved`);
    const lock = join(cache, ".locks", "models--tiny--llama", `${blob.split("/").at(-1)}.lock`);
    const held = await lockFile(lock, undefined, () => {});
    let waits = 0;
    server.requests.length = 0;
    const pulling = pull({
      onProgress: ({ phase, file }) => {
        if (phase !== "wait" || ++waits > 1) return;
        assert.equal(file, LARGE);
        fs.renameSync(`${blob}.moved`, blob);
        held[Symbol.dispose]();
      },
    });
    const path = await pulling;
    assert.equal(waits, 1);
    assert.deepEqual(new Uint8Array(fs.readFileSync(join(path, LARGE))), files.get(LARGE));
    assert.equal(server.downloads.length, 0);
  }),
);

Deno.test(
  "pull() reports bytes that are there of all that there will be, and never more",
  withHub(async ({ files, pull }) => {
    const events: { doneBytes: number; totalBytes: number; file: string }[] = [];
    await pull({ onProgress: (progress) => void events.push(progress) });
    const weights = events.filter(({ file }) => file.endsWith(".safetensors"));
    const total = [...files].reduce((sum, [name, content]) => sum + (name.endsWith(".safetensors") ? content.length : 0), 0);
    assert.equal(weights.at(-1)!.doneBytes, total);
    for (const [i, { doneBytes, totalBytes }] of weights.entries()) {
      assert.equal(totalBytes, total);
      assert(doneBytes <= total && (i === 0 || doneBytes >= weights[i - 1].doneBytes));
    }
  }),
);
