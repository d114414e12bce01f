/**
 * Writes the npm package of one native library for one platform, and reads such packages back.
 *
 * A package holds one library, so that a machine fetches the one it uses; `os`, `cpu` and `libc` keep package managers from installing it elsewhere.
 * @module
 */
import { createHash } from "node:crypto";
import { copyFileSync, existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { LIBRARY_FILES, type LibraryKind } from "../../lib/ffi/library_lookup.ts";
import type { Prebuilt } from "../../lib/ffi/prebuilt.ts";

/** What a package is made for. */
export interface NativePackage {
  kind: LibraryKind;
  /** Such as `linux-x64`. */
  platform: string;
  version: string;
  /** Path of the library. */
  library: string;
  license: string;
  repository: string;
}

/** Returns the folder of a package below `npm/`, which is its name without the scope. */
export function packageFolder(platform: string, kind: LibraryKind): string {
  return kind === "cpu" ? platform : `${platform}-${kind}`;
}

/** Writes a package into a folder of `out`, in place of what was there under its name. */
export function writeNativePackage(
  out: string,
  { kind, platform, version, library, license, repository }: NativePackage,
): string {
  const folder = join(out, packageFolder(platform, kind));
  const file = LIBRARY_FILES[kind];
  const [os, cpu] = platform.split("-");
  mkdirSync(folder, { recursive: true });
  copyFileSync(library, join(folder, file));
  copyFileSync(join(repository, "LICENSE"), join(folder, "LICENSE"));
  const description = `The native ${kind === "cpu" ? "CPU" : "CUDA"} library of AirKern for ${platform}`;
  const manifest = {
    name: `@airkern/${packageFolder(platform, kind)}`,
    version,
    description,
    license,
    type: "module",
    exports: { ".": "./index.js", "./package.json": "./package.json" },
    files: [file, "index.js", "LICENSE", "README.md"],
    os: [os],
    cpu: [cpu],
    ...(os === "linux" ? { libc: ["glibc"] } : {}),
    airkern: { kind, platform, file },
  };
  writeFileSync(join(folder, "package.json"), JSON.stringify(manifest, null, 2) + "\n");
  // AirKern asks the package where it lies; only it knows which cache or folder it was installed to.
  writeFileSync(join(folder, "index.js"), "export const directory = import.meta.dirname;\n");
  writeFileSync(join(folder, "README.md"), `# ${manifest.name}\n\n${description}. AirKern imports it where it needs it.\n`);
  return folder;
}

/** Returns the entries of lib/ffi/prebuilt.ts for all packages below `npm/` that have a version. */
export function prebuiltEntries(npm: string, version: string): Record<string, Prebuilt> {
  const entries: Record<string, Prebuilt> = {};
  for (const folder of existsSync(npm) ? readdirSync(npm).sort() : []) {
    const manifest = JSON.parse(readFileSync(join(npm, folder, "package.json"), "utf8"));
    if (manifest.version !== version) {
      throw new Error(
        `Cannot release ${manifest.name}: its version is ${manifest.version}, required ${version}; remove ${folder} or build it again`,
      );
    }
    const { kind, platform, file } = manifest.airkern;
    const sha256 = createHash("sha256").update(readFileSync(join(npm, folder, file))).digest("hex");
    entries[`${platform}/${kind}`] = { packageName: `${manifest.name}@${version}`, file, sha256 };
  }
  return entries;
}
