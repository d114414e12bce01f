import assert from "node:assert/strict";
import fs from "node:fs";
import { basename, join } from "node:path";
import { fileURLToPath } from "node:url";
import { loadModelTokenizer, openModelShards, predictModelShards, type ShardOptions } from "../../lib/auto_model.ts";
import { FormatError, HubError, UsageError } from "../../lib/errors.ts";
import { parseModelName } from "../../lib/hub/model_id.ts";
import { openSnapshot } from "../../lib/hub/snapshot.ts";
import { quantizeCheckpoint } from "../../lib/shard/quantizer.ts";
import { type HubTest, withHub } from "./models.ts";

const FIXTURES = fileURLToPath(new URL("../fixtures/gguf/", import.meta.url));
const ID = "tiny/qwen-GGUF";

function fixture(name: string): Map<string, Uint8Array> {
  const names = fs.readdirSync(join(FIXTURES, name)).filter((file) => file.endsWith(".gguf")).sort();
  return new Map(names.map((file) => [file, new Uint8Array(fs.readFileSync(join(FIXTURES, name, file)))]));
}

interface GgufHubTest extends HubTest {
  /** The repository's files. */
  files: Map<string, Uint8Array>;
  /** Names of the model's parts that lies in a folder. */
  parts: string[];
  snapshot: () => string;
  quick: ShardOptions;
  /** Files of which content was asked for: by their bytes, since addresses are hashes. */
  fetched: () => string[];
}

/** Runs a test with a repository as those of quantizers are: several files, one in parts in a folder, a projector, a config of which nobody needs anything. */
function withGgufHub(body: (test: GgufHubTest) => Promise<void>): () => Promise<void> {
  return withHub(async (test) => {
    const text = (value: string) => new TextEncoder().encode(value);
    const single = [...fixture("qwen3").values()][0], split = fixture("qwen2");
    const files = new Map<string, Uint8Array>([
      ["README.md", text("quantized")],
      ["config.json", text("{}")],
      ["qwen-Q8_0.gguf", single],
      ["qwen-IQ2_M.gguf", text("never read")],
      ["mmproj-qwen-F16.gguf", text("a projector")],
      ...[...split].map((
        [name, content],
      ): [string, Uint8Array] => [`UD-Q4_K_XL/${name.replace("model", "qwen-UD-Q4_K_XL")}`, content]),
    ]);
    const repository = { files };
    test.server.repositories.set(ID, repository);
    const { commitOf } = await import("./server.ts");
    const root = join(test.cache, "models--tiny--qwen-GGUF");
    await body({
      ...test,
      files,
      parts: [...files.keys()].filter((name) => name.startsWith("UD-")),
      snapshot: () => join(root, "snapshots", commitOf(repository)),
      quick: test.options() as ShardOptions,
      fetched: () => {
        const snapshots = join(root, "snapshots");
        if (!fs.existsSync(snapshots)) return [];
        return fs.readdirSync(snapshots, { recursive: true }).map(String).filter((path) =>
          fs.lstatSync(join(snapshots, path)).isSymbolicLink()
        ).map((path) => path.slice(path.indexOf("/") + 1)).sort();
      },
    });
  });
}

Deno.test("parseModelName() knows names on the hub, with a quantization or a file behind a colon", () => {
  const parsed = (text: string) => Object.values(parseModelName(text) ?? {});
  assert.deepEqual(parsed("a/b"), ["a/b", undefined]);
  assert.deepEqual(parsed("a/b:Q4_K_M"), ["a/b", "Q4_K_M"]);
  assert.deepEqual(parsed("a/b:UD-Q4_K_XL/x-00001-of-00003.gguf"), ["a/b", "UD-Q4_K_XL/x-00001-of-00003.gguf"]);
  for (const text of ["a/b:", "a:b/c", "a/b:/x.gguf", "a/b:../x.gguf", "a/b:x//y", "a/b:.x", "./a/b:Q8_0", "a/b:c:d"]) {
    assert.equal(parseModelName(text), undefined, text);
  }
});

Deno.test(
  "openSnapshot() takes the GGUF model that is asked for, else Q4_K_M or Q8_0, and nothing else",
  withGgufHub(async ({ files, parts, options, snapshot, fetched }) => {
    const open = async (gguf?: string) => (await openSnapshot(ID, options({ gguf }))).weights.names;
    assert.deepEqual(await open(), ["qwen-Q8_0.gguf"]);
    assert.deepEqual(await open("ud-q4_k_xl"), parts);
    assert.deepEqual(await open(parts[1]), parts);
    assert.deepEqual(await open("qwen-Q8_0.gguf"), ["qwen-Q8_0.gguf"]);
    await assert.rejects(
      open("Q5_K_M"),
      (error) =>
        error instanceof UsageError &&
        /^Cannot choose a GGUF model of model tiny\/qwen-GGUF: none is Q5_K_M, there are: UD-Q4_K_XL\/qwen-UD-Q4_K_XL \(\d\.\d MiB\), qwen-IQ2_M \(0\.0 MiB\), qwen-Q8_0 \(0\.\d MiB\)$/
          .test(error.message),
    );
    assert.deepEqual(fetched(), []);
    const { weights, path } = await openSnapshot(ID, options({ gguf: "UD-Q4_K_XL" }));
    await weights.pull();
    assert.deepEqual([path, fetched()], [snapshot(), parts]);
    files.delete(parts[1]);
    await assert.rejects(
      open("UD-Q4_K_XL"),
      (error) => error instanceof FormatError && /part 2 of \d is not beside it/.test(error.message),
    );
  }),
);

Deno.test(
  "openSnapshot() refuses a GGUF model of a repository that has none, and takes safetensors first where nothing is named",
  withHub(async ({ files, options }) => {
    await assert.rejects(
      openSnapshot("tiny/llama", options({ gguf: "Q4_0" })),
      (error) => error instanceof HubError && /no GGUF model/.test(error.message),
    );
    files.set("tiny-Q4_0.gguf", [...fixture("qwen3").values()][0]);
    assert.equal((await openSnapshot("tiny/llama", options())).gguf, undefined);
    assert.equal((await openSnapshot("tiny/llama", options({ gguf: "q4_0" }))).gguf, "tiny-Q4_0");
  }),
);

Deno.test(
  "predictModelShards() plans a GGUF model of the hub, its tokenizer included, from ranges of its headers",
  withGgufHub(async ({ server, snapshot, quick, fetched }) => {
    const { shards, filesExist, directory } = await predictModelShards(`${ID}:UD-Q4_K_XL`, quick);
    assert.deepEqual([filesExist, directory], [false, join(snapshot(), "UD-Q4_K_XL/airkern-none-qwen-UD-Q4_K_XL")]);
    assert.equal(shards.manifest.config.model_type, "qwen2");
    assert.ok((await loadModelTokenizer(shards)).encode("In the beginning").length > 0);
    assert.deepEqual([fetched(), shards.fileBytes > 50_000], [[], true]);
    assert.ok(
      server.requests.filter(({ host }) => host === "content").every(({ range }) =>
        range === undefined || /^bytes=0-/.test(range)
      ),
    );
  }),
);

Deno.test(
  "a GGUF header that is longer than one read is read by ranges that grow, each byte once",
  withGgufHub(async ({ server, files, quick }) => {
    // The header moved behind what a tokenizer of a real model takes.
    const padded = new Uint8Array(3_000_000 + files.get("qwen-Q8_0.gguf")!.length), original = files.get("qwen-Q8_0.gguf")!;
    const view = new DataView(padded.buffer),
      key = new TextEncoder().encode("general.padding"),
      pad = 3_000_000 - 8 - key.length - 4 - 8;
    padded.set(original.subarray(0, 24));
    view.setBigUint64(16, new DataView(original.buffer, original.byteOffset).getBigUint64(16, true) + 1n, true);
    view.setBigUint64(24, BigInt(key.length), true);
    padded.set(key, 32);
    view.setUint32(32 + key.length, 8, true);
    view.setBigUint64(36 + key.length, BigInt(pad), true);
    padded.fill(97, 44 + key.length, 44 + key.length + pad);
    padded.set(original.subarray(24), 44 + key.length + pad);
    assert.equal(44 + key.length + pad, 24 + 3_000_000);
    files.set("qwen-Q8_0.gguf", padded);
    assert.equal((await predictModelShards(ID, quick)).shards.manifest.config.model_type, "qwen3");
    const end = padded.length - 1;
    assert.deepEqual(
      server.requests.filter(({ host }) => host === "content").map(({ range }) => range),
      ["bytes=0-262143", "bytes=262144-1048575", `bytes=1048576-${end}`],
    );
  }),
);

Deno.test(
  "openModelShards() quantizes GGUF models of one commit apart, one file on disk at a time with deleteOriginal, and finds them offline",
  withGgufHub(async ({ server, cache, parts, snapshot, quick, directory }) => {
    const blobs = join(cache, "models--tiny--qwen-GGUF", "blobs"), most: number[] = [];
    const split = await openModelShards(`${ID}:UD-Q4_K_XL`, {
      ...quick,
      deleteOriginal: true,
      onProgress: () => most.push(fs.existsSync(blobs) ? fs.readdirSync(blobs).length : 0),
    });
    assert.equal(split.path, join(snapshot(), "UD-Q4_K_XL", "airkern-none-qwen-UD-Q4_K_XL"));
    assert.equal(split.manifest.source.name, `${ID}:UD-Q4_K_XL/qwen-UD-Q4_K_XL`);
    assert.deepEqual(split.manifest.source.revision, `${basename(snapshot())}:UD-Q4_K_XL/qwen-UD-Q4_K_XL`);
    assert.ok(parts.length > 2 && Math.max(...most) === 1, `${Math.max(...most)}`);
    assert.deepEqual(fs.readdirSync(blobs), []);
    const single = await openModelShards(ID, quick);
    assert.equal(single.path, join(snapshot(), "airkern-none-qwen-Q8_0"));
    server.requests.length = 0;
    for (const name of [ID, `${ID}:UD-Q4_K_XL`, `${ID}:q8_0`, `${ID}:${parts[0]}`]) {
      const expected = name.includes("UD") ? split.path : single.path;
      assert.equal((await openModelShards(name, { localFilesOnly: true })).path, expected);
      assert.equal((await openModelShards(name, quick)).path, expected);
    }
    assert.equal(server.downloads.length, 0);
    await assert.rejects(
      openModelShards(`${ID}:IQ2_M`, { localFilesOnly: true }),
      /of model tiny\/qwen-GGUF in the cache: none is IQ2_M, there are: qwen-Q8_0, UD-Q4_K_XL\/qwen-UD-Q4_K_XL/,
    );
    await assert.rejects(openModelShards(`${ID}:UD-Q4_K_XL`, { localFilesOnly: true, compression: "q8" }), HubError);
    // A directory of one is not taken for another of the same commit.
    const out = join(directory, "out");
    const quantize = async (gguf: string) => {
      const { path, weights } = await openSnapshot(ID, { ...quick, gguf } as Parameters<typeof openSnapshot>[1]);
      return await quantizeCheckpoint({ source: path, supply: weights, out, compression: "q8" });
    };
    await quantize("Q8_0");
    assert.equal((await quantize("Q8_0")).alreadyComplete, true);
    await assert.rejects(quantize("UD-Q4_K_XL"), /it holds tiny\/qwen-GGUF:qwen-Q8_0/);
    // The file that Python tools would show is the same checkpoint.
    assert.equal((await openModelShards(join(snapshot(), "qwen-Q8_0.gguf"))).path, single.path);
  }),
);

Deno.test(
  "openModelShards() uses the shards of an earlier commit whose GGUF file is the same",
  withGgufHub(async ({ server, files, quick }) => {
    const { path } = await openModelShards(`${ID}:Q8_0`, quick);
    files.set("README.md", new TextEncoder().encode("quantized again"));
    files.set("qwen-IQ2_M.gguf", new TextEncoder().encode("another"));
    server.requests.length = 0;
    assert.equal((await openModelShards(`${ID}:Q8_0`, quick)).path, path);
    assert.equal(server.downloads.length, 0);
    files.set("qwen-Q8_0.gguf", [...fixture("llama").values()][0]);
    assert.notEqual((await openModelShards(`${ID}:Q8_0`, quick)).path, path);
  }),
);
