/**
 * Assembles a release: `deno run -A scripts/release/assemble.ts [--build build] [--out release]`, once on each platform over the same
 * folder `--out`, after `make` and `make cuda`.
 *
 *   OUT/npm/PLATFORM/        @airkern/PLATFORM: the CPU library          publish with `npm publish`, before:
 *   OUT/npm/PLATFORM-cuda/   @airkern/PLATFORM-cuda: the CUDA library
 *   OUT/jsr/                 what `deno publish` uploads, with the packages' names and hashes in lib/ffi/prebuilt.ts
 *
 * Fails where a library has another ABI version than airkern.h, or where JSR would refuse the package.
 */
import { Command } from "commander";
import { copyFileSync, existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { AIRK_ABI_VERSION } from "../../lib/ffi/abi.ts";
import { libraryAbiVersion } from "../../lib/ffi/library.ts";
import { LIBRARY_FILES, type LibraryKind, PLATFORM } from "../../lib/ffi/library_lookup.ts";
import type { Prebuilt } from "../../lib/ffi/prebuilt.ts";
import { prebuiltEntries, writeNativePackage } from "./native_package.ts";
import { checkPublishedBytes, publishedFiles } from "./published_files.ts";

const REPOSITORY = fileURLToPath(new URL("../..", import.meta.url));
const PREBUILT_FILE = "lib/ffi/prebuilt.ts";

/** Writes the packages of the libraries that are in `build`. The CPU library must be there; without nvcc the CUDA library is not. */
function writePackages(build: string, npm: string, version: string, license: string): void {
  for (const kind of ["cpu", "cuda"] as LibraryKind[]) {
    const library = join(build, LIBRARY_FILES[kind]);
    if (!existsSync(library)) {
      if (kind === "cpu") throw new Error(`Cannot release: ${library} is not there; build it with \`make\``);
      console.error(`skipped the ${kind} library: ${library} is not there`);
      continue;
    }
    const abi = libraryAbiVersion(kind, library);
    if (abi !== AIRK_ABI_VERSION) {
      throw new Error(`Cannot release ${library}: its ABI version is ${abi}, required ${AIRK_ABI_VERSION}`);
    }
    console.log(writeNativePackage(npm, { kind, platform: PLATFORM, version, library, license, repository: REPOSITORY }));
  }
}

/** Returns lib/ffi/prebuilt.ts with its table filled. */
function prebuiltSource(entries: Record<string, Prebuilt>): string {
  const source = readFileSync(join(REPOSITORY, PREBUILT_FILE), "utf8");
  const filled = source.replace(
    "Record<string, Prebuilt> = {}",
    `Record<string, Prebuilt> = ${JSON.stringify(entries, null, 2)}`,
  );
  if (filled === source) throw new Error(`Cannot fill ${PREBUILT_FILE}: it has no empty table`);
  return filled;
}

/** Copies what would be published, with the table of released libraries. */
function writeJsrPackage(out: string, entries: Record<string, Prebuilt>): void {
  rmSync(out, { recursive: true, force: true });
  for (const { path } of publishedFiles(REPOSITORY)) {
    mkdirSync(dirname(join(out, path)), { recursive: true });
    copyFileSync(join(REPOSITORY, path), join(out, path));
  }
  writeFileSync(join(out, PREBUILT_FILE), prebuiltSource(entries));
}

if (import.meta.main) {
  const program = new Command("assemble")
    .description("Assemble the npm packages of the native libraries and the JSR package that names them.")
    .option("--build <dir>", "where the libraries were built", "build")
    .option("--out <dir>", "where the packages go", "release")
    .parse(["deno", "assemble", ...Deno.args]);
  const { build, out } = program.opts<{ build: string; out: string }>();
  const { version, license } = JSON.parse(readFileSync(join(REPOSITORY, "deno.json"), "utf8"));
  const npm = join(out, "npm"), jsr = resolve(out, "jsr");
  try {
    writePackages(build, npm, version, license);
    writeJsrPackage(jsr, prebuiltEntries(npm, version));
    const bytes = checkPublishedBytes(jsr, publishedFiles(jsr));
    console.log(`${jsr} (${(bytes / 1e6).toFixed(2)} MB of JSR's 20)`);
  } catch (error) {
    console.error((error as Error).message);
    Deno.exit(1);
  }
}
