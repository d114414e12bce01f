import assert from "node:assert/strict";
import { join } from "node:path";
import { PLATFORM } from "../../lib/ffi/library_lookup.ts";
import { PREBUILT } from "../../lib/ffi/prebuilt.ts";
import { prebuiltEntries, writeNativePackage } from "../../scripts/release/native_package.ts";
import { checkPublishedBytes, publishedFiles } from "../../scripts/release/published_files.ts";
import { run } from "../cli/airkern.ts";
import { linkShippedModel, ROOT } from "../shipped_model.ts";
import { withTemporaryDirectory } from "../temporary_directory.ts";
import { NpmRegistry } from "./npm_registry.ts";

/** Runs the command line of an assembled package as someone who installed it. */
async function installed(jsr: string, args: string[]) {
  const child = new Deno.Command(Deno.execPath(), { args: ["run", "--quiet", "-A", "mod.ts", ...args], cwd: jsr });
  const { code, stdout, stderr } = await child.output();
  return { code, stdout: new TextDecoder().decode(stdout), stderr: new TextDecoder().decode(stderr) };
}

Deno.test("a release assembled from build/ runs a model with the library of its npm package, and refuses a changed one", async () => {
  await withTemporaryDirectory(async (directory) => {
    const made = await run(["scripts/release/assemble.ts", "--out", directory]);
    assert.equal(made.code, 0, made.stderr);
    const npm = join(directory, "npm"), jsr = join(directory, "jsr");
    assert.throws(() => Deno.statSync(join(jsr, "build")), Deno.errors.NotFound);
    await using registry = new NpmRegistry(npm);
    registry.prepare(jsr);

    const model = linkShippedModel(`${directory}/model`);
    const text = await installed(jsr, ["run", model, "In the beginning", "--max-tokens", "3"]);
    assert.equal(text.code, 0, text.stderr);
    assert.ok(text.stdout.trim().length > 0);
    assert.ok(registry.requested.includes(`@airkern/${PLATFORM}`), registry.requested.join());

    const doctor = await installed(jsr, ["doctor", "--json"]);
    const { cpu } = JSON.parse(doctor.stdout);
    assert.deepEqual(cpu.places.map(({ from }: { from: string }) => from), ["build", "package"]);
    assert.match(cpu.used, new RegExp(`/@airkern/${PLATFORM}/0\\.1\\.0/libairkern_cpu\\.so$`));

    // A library is code: one byte more and it is another.
    Deno.writeTextFileSync(cpu.used, "\n", { append: true });
    const changed = await installed(jsr, ["run", model, "In the beginning", "--max-tokens", "3"]);
    assert.equal(changed.code, 1);
    assert.match(
      changed.stderr,
      /^airkern: Cannot load the cpu library: .*libairkern_cpu\.so has sha256 [0-9a-f]{64}, required [0-9a-f]{64}/,
    );
  });
});

Deno.test("a package that the registry does not have is named, with what to do instead", async () => {
  await withTemporaryDirectory(async (directory) => {
    const made = await run(["scripts/release/assemble.ts", "--out", directory]);
    assert.equal(made.code, 0, made.stderr);
    Deno.mkdirSync(`${directory}/empty`);
    await using registry = new NpmRegistry(`${directory}/empty`);
    const jsr = join(directory, "jsr");
    registry.prepare(jsr);
    const { code, stdout } = await installed(jsr, ["doctor"]);
    assert.equal(code, 1);
    assert.match(stdout, new RegExp(`package: npm:@airkern/${PLATFORM}@0\\.1\\.0 cannot be imported: `));
    assert.match(stdout, /build it with `make` or set AIRKERN_LIBRARY_PATH/);
  });
});

Deno.test("the repository itself names no package, so that a copy of it asks no registry", () => {
  assert.deepEqual(PREBUILT, {});
});

Deno.test("assemble.ts fails without a library, and with one of another ABI version", async () => {
  await withTemporaryDirectory(async (directory) => {
    const none = await run(["scripts/release/assemble.ts", "--out", directory, "--build", directory]);
    assert.equal(none.code, 1);
    assert.match(none.stderr, /libairkern_cpu\.so is not there; build it with `make`\n$/);
    Deno.writeTextFileSync(`${directory}/old.c`, "unsigned airk_abi_version(void) { return 0; }\n");
    const compiled = new Deno.Command("gcc", { args: ["-shared", "-fPIC", "-o", "libairkern_cpu.so", "old.c"], cwd: directory })
      .outputSync();
    assert.ok(compiled.success);
    const old = await run(["scripts/release/assemble.ts", "--out", directory, "--build", directory]);
    assert.equal(old.code, 1);
    assert.match(old.stderr, /^Cannot release .*libairkern_cpu\.so: its ABI version is 0, required \d+\n$/);
  });
});

Deno.test("prebuiltEntries() lists the packages of all platforms and refuses one of another version", async () => {
  await withTemporaryDirectory((directory) => {
    const library = `${directory}/lib.so`;
    Deno.writeTextFileSync(library, "abc");
    const shared = { version: "1.2.3", library, license: "Apache-2.0", repository: ROOT };
    for (const [platform, kind] of [["linux-x64", "cpu"], ["linux-x64", "cuda"], ["linux-arm64", "cpu"]] as const) {
      writeNativePackage(`${directory}/npm`, { ...shared, kind, platform });
    }
    const sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    assert.deepEqual(prebuiltEntries(`${directory}/npm`, "1.2.3"), {
      "linux-arm64/cpu": { packageName: "@airkern/linux-arm64@1.2.3", file: "libairkern_cpu.so", sha256 },
      "linux-x64/cpu": { packageName: "@airkern/linux-x64@1.2.3", file: "libairkern_cpu.so", sha256 },
      "linux-x64/cuda": { packageName: "@airkern/linux-x64-cuda@1.2.3", file: "libairkern.so", sha256 },
    });
    const manifest = JSON.parse(Deno.readTextFileSync(`${directory}/npm/linux-arm64/package.json`));
    assert.deepEqual([manifest.os, manifest.cpu, manifest.libc], [["linux"], ["arm64"], ["glibc"]]);
    assert.throws(
      () => prebuiltEntries(`${directory}/npm`, "1.2.4"),
      /its version is 1\.2\.3, required 1\.2\.4; remove linux-arm64/,
    );
    return Promise.resolve();
  });
});

Deno.test("checkPublishedBytes() counts what deno publish lists and names the largest files above the limit", () => {
  const files = publishedFiles(ROOT);
  const paths = files.map(({ path }) => path);
  assert.ok(paths.includes("mod.ts") && paths.includes("cuda/airkern.h"));
  assert.ok(!paths.some((path) => /^(tests|scripts|build|models)\//.test(path)));
  const total = files.reduce((sum, { path }) => sum + Deno.statSync(join(ROOT, path)).size, 0);
  assert.equal(checkPublishedBytes(ROOT, files), total);
  const large = [...files, { path: "native/large.so", bytes: 20e6 }];
  assert.throws(() => checkPublishedBytes(ROOT, large), /bytes, JSR takes 20000000; largest are native\/large\.so 20000000, /);
});
