import assert from "node:assert/strict";
import type { LibraryKind, LibraryPlace } from "../../lib/ffi/library_lookup.ts";
import { ROOT } from "../shipped_model.ts";
import { withTemporaryDirectory } from "../temporary_directory.ts";

/** Returns where a library is looked for under a value of AIRKERN_LIBRARY_PATH, in a process of its own. */
async function placesWith(override: string | undefined, kind: LibraryKind): Promise<LibraryPlace[]> {
  const program = `
    import { libraryPlaces } from ${JSON.stringify(import.meta.resolve("../../lib/ffi/library_lookup.ts"))};
    console.log(JSON.stringify(libraryPlaces(${JSON.stringify(kind)})));`;
  const env = { ...Deno.env.toObject(), AIRKERN_LIBRARY_PATH: override ?? "" };
  const { stdout, stderr } = await new Deno.Command(Deno.execPath(), { args: ["eval", program], env }).output();
  assert.equal(new TextDecoder().decode(stderr), "");
  return JSON.parse(new TextDecoder().decode(stdout));
}

Deno.test("libraryPlaces() are build/ and the package, in this order, without AIRKERN_LIBRARY_PATH", async () => {
  const places = await placesWith(undefined, "cpu");
  assert.deepEqual(places.map(({ from }) => from), ["build", "package"]);
  assert.deepEqual(places[0], { from: "build", path: `${ROOT}build/libairkern_cpu.so` });
});

Deno.test("libraryPlaces() of a folder in AIRKERN_LIBRARY_PATH are that folder alone, even where it is empty", async () => {
  await withTemporaryDirectory(async (directory) => {
    Deno.writeTextFileSync(`${directory}/libairkern.so`, "");
    assert.deepEqual(await placesWith(directory, "cuda"), [{ from: "AIRKERN_LIBRARY_PATH", path: `${directory}/libairkern.so` }]);
    const missing = `${directory}/libairkern_cpu.so is not there`;
    assert.deepEqual(await placesWith(directory, "cpu"), [
      { from: "AIRKERN_LIBRARY_PATH", path: `${directory}/libairkern_cpu.so`, missing },
    ]);
  });
});

Deno.test("libraryPlaces() of a file in AIRKERN_LIBRARY_PATH count for the kind that its name says; the other is looked for as ever", async () => {
  await withTemporaryDirectory(async (directory) => {
    const cuda = `${directory}/libairkern_emu.so`, cpu = `${directory}/libairkern_cpu.so`;
    for (const file of [cuda, cpu]) Deno.writeTextFileSync(file, "");
    assert.deepEqual(await placesWith(cuda, "cuda"), [{ from: "AIRKERN_LIBRARY_PATH", path: cuda }]);
    assert.deepEqual((await placesWith(cuda, "cpu")).map(({ from }) => from), ["build", "package"]);
    const both = `${cuda}:${cpu}`;
    assert.deepEqual(await placesWith(both, "cpu"), [{ from: "AIRKERN_LIBRARY_PATH", path: cpu }]);
    assert.deepEqual(await placesWith(both, "cuda"), [{ from: "AIRKERN_LIBRARY_PATH", path: cuda }]);
  });
});
