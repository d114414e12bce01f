import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import fs from "node:fs";
import { join } from "node:path";
import { QUANTIZATION_FILES } from "../../lib/checkpoint/model_files.ts";
import { CancelledError, HubError, type HubFault, UsageError } from "../../lib/errors.ts";
import { locateModel } from "../../lib/hub/locate.ts";
import { openSnapshot } from "../../lib/hub/snapshot.ts";
import { ID, noise, withHub } from "./models.ts";
import { TOKEN } from "./server.ts";

/** Returns a check that an error is of a fault, in one line that matches. */
function isFault(fault: HubFault, message: RegExp): (error: Error) => boolean {
  return (error) => {
    assert(error instanceof HubError, error.stack);
    assert.equal(error.fault, fault, error.message);
    assert.match(error.message, message);
    assert(!error.message.includes("\n"), error.message);
    return true;
  };
}

/** Returns every file below a directory, links with their targets. */
function tree(directory: string): string[] {
  return (fs.readdirSync(directory, { recursive: true }) as string[]).sort().flatMap((name) => {
    const path = join(directory, name);
    const stat = fs.lstatSync(path);
    return stat.isDirectory() ? [] : [stat.isSymbolicLink() ? `${name} -> ${fs.readlinkSync(path)}` : name];
  });
}

Deno.test(
  "openSnapshot() and pull() lay the cache out as huggingface_hub, with the files that are needed and no others",
  withHub(async ({ server, files, commit, cache, pull, source }) => {
    const needed = new Map(files);
    for (
      const path of [
        "original/consolidated.00.pth",
        "pytorch_model.bin",
        "consolidated.safetensors",
        "README.md",
        "onnx/model.onnx",
      ]
    ) {
      files.set(path, noise(1000));
    }
    const path = await pull();
    const hash = (content: Uint8Array, name: string) =>
      name.endsWith(".safetensors")
        ? createHash("sha256").update(content).digest("hex")
        : createHash("sha1").update(`blob ${content.length}\0`).update(content).digest("hex");
    const blobs = [...needed].map(([name, content]) => ({ name, blob: hash(content, name) }));
    const folder = "models--tiny--llama";
    assert.deepEqual(
      tree(cache),
      [
        "CACHEDIR.TAG",
        ...blobs.map(({ blob }) => `.locks/${folder}/${blob}.lock`),
        ...blobs.map(({ blob }) => `${folder}/blobs/${blob}`),
        `${folder}/refs/main`,
        ...blobs.map(({ name, blob }) => `${folder}/snapshots/${commit()}/${name} -> ../../blobs/${blob}`),
      ].sort(),
    );
    assert.equal(fs.readFileSync(join(cache, folder, "refs", "main"), "utf8"), commit());
    assert.equal(path, join(cache, folder, "snapshots", commit()));
    for (const name of needed.keys()) assert.deepEqual(fs.readFileSync(join(path, name)), fs.readFileSync(join(source, name)));
    const before = server.downloads.length;
    assert.equal(await pull(), path);
    assert.equal(server.downloads.length, before, "nothing is downloaded twice");
  }),
);

Deno.test(
  "pull() brings the files beside config.json that say how weights are quantized",
  withHub(async ({ files, pull }) => {
    const names = Object.keys(QUANTIZATION_FILES);
    for (const name of names) files.set(name, new TextEncoder().encode(`{"bits": 4}`));
    const path = await pull();
    for (const name of names) assert.equal(fs.readFileSync(join(path, name), "utf8"), `{"bits": 4}`);
  }),
);

Deno.test(
  "openSnapshot() takes a branch, a tag or a commit, and asks nothing for a commit that is cached whole",
  withHub(async ({ server, files, commit, cache, pull, options }) => {
    const first = commit();
    assert.equal(await pull({ revision: "v1.0" }), await pull({ revision: "refs/pr/1" }));
    assert.deepEqual(fs.readdirSync(join(cache, "models--tiny--llama/refs")).sort(), ["refs", "v1.0"]);
    assert.equal(fs.readFileSync(join(cache, "models--tiny--llama/refs/refs/pr/1"), "utf8"), first);
    const before = server.requests.length;
    await pull({ revision: first });
    assert.equal(server.requests.length, before);
    files.set("config.json", new TextEncoder().encode(`{"model_type":"llama","changed":true}`));
    const downloads = server.downloads.length;
    const snapshot = await openSnapshot(ID, options());
    assert.equal(snapshot.commit, commit());
    assert.notEqual(snapshot.commit, first);
    // What did not change is linked, not downloaded.
    assert.deepEqual(server.downloads.slice(downloads).map(({ url }) => url), [`/${ID}/resolve/${commit()}/config.json`]);
    await snapshot.weights.pull();
    assert.equal(server.downloads.length, downloads + 1);
    await assert.rejects(
      openSnapshot(ID, options({ revision: "v9" })),
      isFault("revision", /at revision v9: the repository has no such revision/),
    );
    for (const revision of ["../main", "", "a b", "/x", "a/../b", ".hidden", "a//b"]) {
      await assert.rejects(openSnapshot(ID, options({ revision })), UsageError);
    }
  }),
);

Deno.test(
  "pull() goes on where a connection was cut, after a status that passes, and when an address was refused",
  withHub(async ({ server, files, pull, source }) => {
    const name = "model-1-of-3.safetensors";
    const seen = new Map<string, number>();
    server.fault = ({ host, url }) => {
      const key = `${host} ${url.split("?")[0]}`;
      const count = (seen.get(key) ?? 0) + 1;
      seen.set(key, count);
      if (count === 1) return { status: [500, 502, 503, 429, 408][seen.size % 5] };
      if (host === "content" && count === 2) return { cutAfter: 100 };
      if (host === "content" && count === 3) return { status: 403 };
      return undefined;
    };
    const path = await pull();
    for (const name of files.keys()) assert.deepEqual(fs.readFileSync(join(path, name)), fs.readFileSync(join(source, name)));
    const length = files.get(name)!.length;
    assert(server.downloads.some(({ range }) => range === `bytes=100-${length - 1}`), "what came before the cut is kept");
  }),
);

Deno.test(
  "pull() has several ranges of a large file in flight, each once",
  withHub(async ({ server, files, pull }) => {
    const piece = 4 * 1024 * 1024;
    const name = "model-2-of-3.safetensors";
    files.set(name, noise(6 * piece + 12345));
    server.delayMs = 20;
    await pull();
    const ranges = server.requests.filter(({ host, range }) => host === "content" && range !== undefined).map(({ range }) =>
      range
    );
    assert.deepEqual(
      ranges.sort(),
      Array.from({ length: 7 }, (_, i) => `bytes=${i * piece}-${Math.min((i + 1) * piece, 6 * piece + 12345) - 1}`).sort(),
    );
    assert(server.mostInFlight >= 5, `${server.mostInFlight} in flight`);
  }),
);

Deno.test(
  "pull() fetches a file of a wrong hash once more and keeps nothing of it if it is wrong again, LFS or not",
  withHub(async ({ server, commit, cache, pull }) => {
    let corrupt = 1;
    server.fault = ({ url }) => /\/config\.json$/.test(url) && corrupt-- > 0 ? { corrupt: true } : undefined;
    await pull();
    for (const [file, pattern] of [["generation_config.json", /git hash/], ["model-3-of-3.safetensors", /SHA-256/]] as const) {
      fs.rmSync(cache, { recursive: true });
      server.fault = ({ host, url }) =>
        (host === "content") === file.endsWith("safetensors") && (host === "content" || url.endsWith(`/${file}`))
          ? { corrupt: true }
          : undefined;
      await assert.rejects(pull(), isFault("content", pattern));
      const left = tree(cache).filter((name) => name.includes(".incomplete") || name.includes(`${commit()}/${file} `));
      assert.deepEqual(left, []);
    }
  }),
);

Deno.test(
  "openSnapshot() says what is wrong with 401, 403, 404, 429 and 5xx, and gives up after its attempts",
  withHub(async ({ server, options }) => {
    const { endpoint, repositories } = server;
    const open = (id = ID, extra = {}) => openSnapshot(id, options(extra));
    await assert.rejects(
      open("tiny/none"),
      isFault(
        "repository",
        /^Cannot find model tiny\/none: http:.* has no such repository; if it is private, set HF_TOKEN or log in/,
      ),
    );
    await assert.rejects(
      open("tiny/none", { token: TOKEN }),
      isFault("repository", /no such repository that the token of .* may see/),
    );
    await assert.rejects(
      open(ID, { token: "hf_wrong" }),
      isFault("token", /does not accept the token of the token that was given|does not accept/),
    );
    repositories.get(ID)!.gated = true;
    await assert.rejects(
      open(),
      isFault(
        "gated",
        new RegExp(
          `^Cannot download config.json of model ${ID}: it is gated; accept its terms on ${endpoint}/${ID}, then set HF_TOKEN`,
        ),
      ),
    );
    assert.equal((await open(ID, { token: TOKEN })).id, ID);
    repositories.get(ID)!.gated = false;
    repositories.get(ID)!.private = true;
    fs.rmSync(join(Deno.env.get("HF_HOME")!), { recursive: true });
    await assert.rejects(open(), isFault("repository", /no such repository; if it is private, set HF_TOKEN/));
    repositories.get(ID)!.private = false;
    const answers = async (status: number, headers: Record<string, string> = {}) => {
      const before = server.requests.length;
      server.fault = () => ({ status, headers });
      await assert.rejects(open(), HubError);
      const error = await open().catch((error) => error as HubError);
      return {
        message: (error as HubError).message,
        fault: (error as HubError).fault,
        tries: (server.requests.length - before) / 2,
      };
    };
    assert.deepEqual(
      await answers(403, { "x-error-message": "Please enable access to public gated repositories" }).then(({ fault }) => fault),
      "gated",
    );
    assert.deepEqual(await answers(403).then(({ fault, tries }) => [fault, tries]), ["token", 1]);
    for (const status of [500, 502, 503, 504]) {
      const { message, fault, tries } = await answers(status);
      assert.match(
        message,
        new RegExp(`Cannot look up model ${ID} on http.*: the server failed \\(${status}\\), after 4 attempts`),
      );
      assert.deepEqual([fault, tries], ["unreachable", 4]);
    }
    assert.match((await answers(429)).message, /the server has had too many requests \(429\), after 4 attempts/);
    assert.match((await answers(429, { "retry-after": "3600" })).message, /asks to wait 60 min/);
    assert.match((await answers(418)).message, /answered 418/);
  }),
);

Deno.test(
  "openSnapshot() waits as long as Retry-After and RateLimit say",
  withHub(async ({ server, options }) => {
    for (const headers of [{ "retry-after": "1" }, { ratelimit: `"api";r=0;t=1` }] as Record<string, string>[]) {
      let first = true;
      server.fault = () => first ? (first = false, { status: 429, headers }) : undefined;
      const start = performance.now();
      await openSnapshot(ID, options());
      assert(performance.now() - start >= 1000);
    }
  }),
);

Deno.test(
  "the token goes to the hub and never to where it redirects",
  withHub(async ({ server, pull }) => {
    await pull({ token: TOKEN });
    assert(server.requests.some(({ host }) => host === "content"));
    for (const { host, authorization } of server.requests) {
      assert.equal(authorization, host === "hub" ? `Bearer ${TOKEN}` : undefined);
    }
  }),
);

Deno.test(
  "a connection that falls silent is cut and tried again",
  withHub(async ({ server, pull }) => {
    Deno.env.set("HF_HUB_DOWNLOAD_TIMEOUT", "0.3");
    try {
      let stalls = 2;
      server.fault = ({ host }) => host === "content" && stalls-- > 0 ? { stallAfter: 50 } : undefined;
      await pull();
      assert(stalls <= 0);
    } finally {
      Deno.env.delete("HF_HUB_DOWNLOAD_TIMEOUT");
    }
  }),
);

Deno.test(
  "what is cached serves offline: with HF_HUB_OFFLINE without a request, and with a notice where the hub does not answer",
  withHub(async ({ server, pull, options, cache }) => {
    await assert.rejects(
      openSnapshot(ID, options({ localFilesOnly: true })),
      isFault("offline", /^Cannot use model tiny\/llama: it is not in .*hub, and the network may not be used/),
    );
    assert.equal(server.requests.length, 0);
    const path = await pull();
    const before = server.requests.length;
    assert.equal(await pull({ localFilesOnly: true }), path);
    Deno.env.set("HF_HUB_OFFLINE", "1");
    assert.equal(await pull(), path);
    await assert.rejects(openSnapshot(ID, options({ revision: "v1.0" })), isFault("offline", /at revision v1.0/));
    Deno.env.set("HF_HUB_OFFLINE", "");
    assert.equal(server.requests.length, before);
    const notices: string[] = [];
    const onNotice = (message: string) => void notices.push(message);
    server.fault = () => ({ status: 503 });
    assert.equal(await pull({ onNotice }), path);
    assert.match(notices[0], /the server failed \(503\), after 4 attempts; using what is cached, [0-9a-f]{12}$/);
    // Weights that are missing are named, when they are needed.
    fs.unlinkSync(join(path, "model-2-of-3.safetensors"));
    await assert.rejects(
      pull({ localFilesOnly: true }),
      isFault("offline", /: model-2-of-3.safetensors is not in .*, and the network may not be used/),
    );
    await assert.rejects(pull({ onNotice }), isFault("offline", /and the hub could not be asked for it: .*503/));
    fs.rmSync(join(cache, "models--tiny--llama", "blobs"), { recursive: true });
    await assert.rejects(pull({ localFilesOnly: true }), isFault("offline", /it is not in .*hub, and the network/));
  }),
);

Deno.test(
  "an endpoint where nobody listens is named with the cause",
  withHub(async ({ options }) => {
    Deno.env.set("HF_ENDPOINT", "http://127.0.0.1:1024");
    await assert.rejects(
      locateModel(ID, options()),
      isFault(
        "unreachable",
        /^Cannot look up model tiny\/llama on http:\/\/127.0.0.1:1024: the connection failed \(.*refused.*\), after 4 attempts; nor is there a directory tiny\/llama$/,
      ),
    );
    Deno.env.set("HF_ENDPOINT", "huggingface.co");
    await assert.rejects(locateModel(ID), /Cannot use HF_ENDPOINT "huggingface.co"/);
  }),
);

Deno.test(
  "listings that could write elsewhere, or are no listings, are refused",
  withHub(async ({ server, options, directory }) => {
    const answer = (value: unknown) => {
      server.fault = ({ url }) => url.includes("/tree/") ? { status: 200, body: JSON.stringify(value) } : undefined;
      return openSnapshot(ID, options());
    };
    const file = { type: "file", oid: "0".repeat(40), size: 3, path: "config.json" };
    for (const path of ["../../evil", "/etc/passwd", "a/../../b", "", "a\\b", "a\0b", 5]) {
      await assert.rejects(answer([{ ...file, path }]), isFault("content", /which is no plain relative path/));
    }
    for (const size of [-1, 1.5, "3", 2 ** 60, null]) {
      await assert.rejects(answer([{ ...file, size }]), isFault("content", /has size/));
    }
    for (const oid of ["../../x", "", "0".repeat(39)]) {
      await assert.rejects(answer([{ ...file, oid }]), isFault("content", /has hash/));
    }
    await assert.rejects(answer({}), isFault("content", /gave no list/));
    await assert.rejects(answer([{ ...file, path: "README.md" }]), isFault("file", /has no config.json/));
    server.fault = ({ url }) => url.includes("/revision/") ? { status: 200, body: `{"sha":"../x"}` } : undefined;
    await assert.rejects(openSnapshot(ID, options()), isFault("content", /gave no commit hash/));
    server.fault = () => ({ status: 200, body: "<html>" });
    await assert.rejects(openSnapshot(ID, options()), isFault("content", /gave no JSON/));
    assert(!fs.existsSync(join(directory, "evil")));
  }),
);

Deno.test(
  "a server that ignores ranges is refused where more than one is needed",
  withHub(async ({ server, files, pull }) => {
    server.fault = ({ range }) => range === undefined ? undefined : { ignoreRange: true };
    files.set("model-1-of-3.safetensors", noise(5 * 1024 * 1024));
    await assert.rejects(pull(), isFault("content", /status 200 for a range/));
  }),
);

Deno.test(
  "pull() stops at its signal and keeps what it has",
  withHub(async ({ server, files, pull, cache }) => {
    files.set("model-1-of-3.safetensors", noise(20 * 1024 * 1024));
    server.delayMs = 10;
    const controller = new AbortController();
    const onProgress = ({ doneBytes, file }: { doneBytes: number; file: string }) => {
      // The small files and the first pieces of the large one.
      if (file === "model-1-of-3.safetensors" && doneBytes > 9 * 1024 * 1024) controller.abort();
    };
    await assert.rejects(pull({ signal: controller.signal, onProgress }), CancelledError);
    const partial = tree(cache).find((name) => name.endsWith(".incomplete"))!;
    const { size } = fs.statSync(join(cache, partial));
    assert(size >= 8 * 1024 * 1024 && size < 20 * 1024 * 1024, `${size}`);
    assert.deepEqual(
      new Uint8Array(fs.readFileSync(join(cache, partial))),
      files.get("model-1-of-3.safetensors")!.subarray(0, size),
    );
    server.requests.length = 0;
    await pull();
    assert(server.requests.every(({ range }) => range === undefined || Number(/=(\d+)-/.exec(range)![1]) >= size));
  }),
);

Deno.test(
  "locateModel() takes a path that exists before a hub id, and says which was tried",
  withHub(async ({ server, directory, options }) => {
    const here = Deno.cwd();
    Deno.chdir(directory);
    try {
      fs.mkdirSync("tiny/llama", { recursive: true });
      assert.deepEqual(await locateModel(ID, options()), { path: ID, snapshot: undefined });
      assert.equal(server.requests.length, 0);
      await assert.rejects(
        locateModel(ID, options({ revision: "v1.0" })),
        /Cannot use revision v1.0 of tiny\/llama: it is a directory/,
      );
      fs.rmSync("tiny", { recursive: true });
      assert.equal((await locateModel(ID, options())).snapshot!.id, ID);
      await assert.rejects(
        locateModel("tiny/none", options()),
        isFault("repository", /no such repository.*; nor is there a directory tiny\/none$/),
      );
      for (const path of ["./tiny/none", "/tiny/none", "tiny/none/more", "tiny/..", "a--b/c"]) {
        await assert.rejects(
          locateModel(path, options()),
          new RegExp(`^FormatError: Cannot open model ${path}: no such directory$`),
        );
      }
      await assert.rejects(locateModel("none", options()), /no such directory; models of the hub are named organisation\/name$/);
    } finally {
      Deno.chdir(here);
    }
  }),
);
