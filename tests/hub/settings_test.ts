import assert from "node:assert/strict";
import fs from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";
import { UsageError } from "../../lib/errors.ts";
import { isModelId } from "../../lib/hub/model_id.ts";
import { hubSettings } from "../../lib/hub/settings.ts";
import { withTemporaryDirectory } from "../temporary_directory.ts";

/** Returns the settings of an environment in which nothing else is set. */
function settings(environment: Record<string, string>, options = {}) {
  return hubSettings(options, (name) => environment[name]);
}

Deno.test("hubSettings() finds the cache where huggingface_hub does", () => {
  const home = homedir();
  const cache = (environment: Record<string, string>, options = {}) => settings(environment, options).cacheDirectory;
  assert.equal(cache({}), `${home}/.cache/huggingface/hub`);
  assert.equal(cache({ XDG_CACHE_HOME: "/x" }), "/x/huggingface/hub");
  assert.equal(cache({ HF_HOME: "/h", XDG_CACHE_HOME: "/x" }), "/h/hub");
  assert.equal(cache({ HF_HOME: "/h", HUGGINGFACE_HUB_CACHE: "/old" }), "/old");
  assert.equal(cache({ HF_HUB_CACHE: "/c", HF_HOME: "/h", HUGGINGFACE_HUB_CACHE: "/old" }), "/c");
  assert.equal(cache({ HF_HOME: "~/h" }), `${home}/h/hub`);
  assert.equal(cache({ HF_HUB_CACHE: "$DATA/c", DATA: "/d" }), "/d/c");
  assert.equal(cache({ HF_HUB_CACHE: "/c" }, { cacheDir: "/mine" }), "/mine");
});

Deno.test("hubSettings() takes the token that was given, of the environment, then of the token file", () =>
  withTemporaryDirectory((directory) => {
    const file = join(directory, "token");
    fs.writeFileSync(file, "hf_file\n");
    const token = (environment: Record<string, string>, options = {}) => {
      const { token, tokenSource } = settings({ HF_HOME: directory, ...environment }, options);
      return [token, tokenSource];
    };
    assert.deepEqual(token({}), ["hf_file", file]);
    assert.deepEqual(token({ HF_TOKEN: " hf_env\n" }), ["hf_env", "HF_TOKEN"]);
    assert.deepEqual(token({ HUGGING_FACE_HUB_TOKEN: "hf_old" }), ["hf_old", "HUGGING_FACE_HUB_TOKEN"]);
    assert.deepEqual(token({ HF_TOKEN: "hf_env" }, { token: "hf_given" }), ["hf_given", "the token that was given"]);
    assert.deepEqual(token({ HF_TOKEN_PATH: "/nowhere" }), [undefined, undefined]);
    assert.deepEqual(token({ HF_TOKEN: "hf_env", HF_HUB_DISABLE_IMPLICIT_TOKEN: "1" }), [undefined, undefined]);
    assert.throws(() => token({ HF_TOKEN: "hf_a b" }), UsageError);
    assert.throws(() => token({ HF_TOKEN_PATH: directory }), /Cannot read the token file/);
    return Promise.resolve();
  }));

Deno.test("hubSettings() reads endpoint, offline mode and timeout", () => {
  assert.equal(settings({}).endpoint, "https://huggingface.co");
  assert.equal(settings({ HF_ENDPOINT: "https://mirror.example/hub/" }).endpoint, "https://mirror.example/hub");
  assert.throws(() => settings({ HF_ENDPOINT: "ftp://x" }), /required an http or https URL/);
  for (const value of ["1", "true", "YES", "on"]) assert.equal(settings({ HF_HUB_OFFLINE: value }).offline, true);
  for (const value of ["", "0", "false"]) assert.equal(settings({ HF_HUB_OFFLINE: value }).offline, false);
  assert.equal(settings({ TRANSFORMERS_OFFLINE: "1" }).offline, true);
  assert.equal(settings({ HF_HUB_OFFLINE: "1" }, { localFilesOnly: false }).offline, false);
  assert.equal(settings({ HF_HUB_DOWNLOAD_TIMEOUT: "2" }).idleTimeoutMs, 2000);
  assert.equal(settings({ HF_HUB_DOWNLOAD_TIMEOUT: "soon" }).idleTimeoutMs, 30_000);
});

Deno.test("isModelId() knows organisation/name from paths", () => {
  for (const id of ["meta-llama/Llama-3.1-8B", "Qwen/Qwen2.5-7B-Instruct", "01-ai/Yi-6B", "a/b", "_a/b_"]) {
    assert(isModelId(id), id);
  }
  for (
    const path of [
      "",
      "a",
      "/a/b",
      "./a",
      "../a",
      "~/a",
      "a/",
      "a/b/c",
      "a/.b",
      "a/b.git",
      "a--b/c",
      "a/b..c",
      "a b/c",
      "a/" + "b".repeat(96),
    ]
  ) {
    assert(!isModelId(path), path);
  }
});
