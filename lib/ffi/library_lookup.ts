/**
 * Where native libraries are looked for: AIRKERN_LIBRARY_PATH, then `build/` beside mod.ts, then the package that was released for this platform.
 * @module
 */
import { createHash } from "node:crypto";
import { readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { PREBUILT, type Prebuilt } from "./prebuilt.ts";

/** Which of the libraries that implement cuda/airkern.h. */
export type LibraryKind = "cpu" | "cuda";

/** File names of the libraries, in `build/`, in folders of AIRKERN_LIBRARY_PATH and in packages. */
export const LIBRARY_FILES: Record<LibraryKind, string> = {
  cpu: "libairkern_cpu.so",
  cuda: "libairkern.so",
};

/** One place where a library was looked for. */
export interface LibraryPlace {
  from: "AIRKERN_LIBRARY_PATH" | "build" | "package";
  /** Path of the library, or the name of the package that would hold it; undefined where this place can hold none. */
  path?: string;
  /** Why this place cannot be used; undefined where the library is there. */
  missing?: string;
}

/** The platform that packages are named for, such as `linux-x64`. */
export const PLATFORM: string = `${Deno.build.os}-${
  { x86_64: "x64", aarch64: "arm64" }[Deno.build.arch as string] ?? Deno.build.arch
}`;

/** Paths of libraries in imported packages, or why they cannot be used. */
const imported = new Map<LibraryKind, { path?: string; missing?: string }>();

/** Returns a place with what is at its path. */
function fileAt(from: LibraryPlace["from"], path: string): LibraryPlace {
  return statSync(path, { throwIfNoEntry: false })?.isFile() ? { from, path } : { from, path, missing: `${path} is not there` };
}

/** A file of AIRKERN_LIBRARY_PATH is the CPU library where its name says so, else the CUDA library; a folder may hold both. */
function overridePlaces(kind: LibraryKind): LibraryPlace[] {
  return (Deno.env.get("AIRKERN_LIBRARY_PATH") ?? "").split(":").filter(Boolean).flatMap((entry) => {
    if (!entry.endsWith(".so")) return [fileAt("AIRKERN_LIBRARY_PATH", join(entry, LIBRARY_FILES[kind]))];
    const isCpu = entry.split("/").at(-1)!.startsWith("libairkern_cpu");
    return isCpu === (kind === "cpu") ? [fileAt("AIRKERN_LIBRARY_PATH", entry)] : [];
  });
}

function buildPlace(kind: LibraryKind): LibraryPlace {
  const beside = new URL(`../../build/${LIBRARY_FILES[kind]}`, import.meta.url);
  return beside.protocol === "file:"
    ? fileAt("build", fileURLToPath(beside))
    : { from: "build", missing: `AirKern was imported from ${beside.host}, where none is built` };
}

function packagePlace(kind: LibraryKind): LibraryPlace {
  const prebuilt = PREBUILT[`${PLATFORM}/${kind}`];
  if (!prebuilt) return { from: "package", missing: `none was released for ${PLATFORM} with this version` };
  const path = `npm:${prebuilt.packageName}`;
  return { from: "package", ...imported.get(kind) ?? { path, missing: `${path} is not imported yet` } };
}

/**
 * Returns the places where a library is looked for, in their order; the first without `missing` is used. Where AIRKERN_LIBRARY_PATH
 * names one, the others are not looked at, so that what was asked for is what runs.
 */
export function libraryPlaces(kind: LibraryKind): LibraryPlace[] {
  const override = overridePlaces(kind);
  return override.length > 0 ? override : [buildPlace(kind), packagePlace(kind)];
}

/**
 * Imports the package that holds a library, once, where no earlier place has one. Without it {@linkcode libraryPlaces} knows no package,
 * since importing takes a promise. What fails is kept as the place's `missing`.
 */
export async function importLibraryPackage(kind: LibraryKind): Promise<void> {
  const prebuilt = PREBUILT[`${PLATFORM}/${kind}`];
  const places = libraryPlaces(kind);
  if (!prebuilt || imported.has(kind) || places.some(({ from, missing }) => !missing || from === "AIRKERN_LIBRARY_PATH")) return;
  try {
    // In a variable: `deno publish` and `deno install` would otherwise fetch every platform's package.
    const specifier = `npm:${prebuilt.packageName}`;
    const { directory } = await import(specifier) as { directory: string };
    imported.set(kind, checkedFile(prebuilt, join(directory, prebuilt.file)));
  } catch (error) {
    imported.set(kind, { missing: `npm:${prebuilt.packageName} cannot be imported: ${(error as Error).message}` });
  }
}

/** A library is code: only the file that this version was released with is loaded. */
function checkedFile(prebuilt: Prebuilt, path: string): { path?: string; missing?: string } {
  const found = createHash("sha256").update(readFileSync(path)).digest("hex");
  return found === prebuilt.sha256
    ? { path }
    : { missing: `${path} has sha256 ${found}, required ${prebuilt.sha256}: remove it, so that it is fetched again` };
}
