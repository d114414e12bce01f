/**
 * Loads and checks a native library.
 * @module
 */
import { NativeError } from "../errors.ts";
import { AIRK_ABI_VERSION, SYMBOLS } from "./abi.ts";
import { type LibraryKind, libraryPlaces } from "./library_lookup.ts";

export type { LibraryKind } from "./library_lookup.ts";

/** A native library opened by {@linkcode openLibrary}. */
export type Library = Deno.DynamicLibrary<typeof SYMBOLS>;

const BUILD_COMMANDS: Record<LibraryKind, string> = { cpu: "make", cuda: "make cuda" };

const loaded = new Map<string, Library>();

/** Says how to get a library of this kind, as the end of a sentence. */
export function libraryRemedy(kind: LibraryKind): string {
  return `build it with \`${BUILD_COMMANDS[kind]}\` or set AIRKERN_LIBRARY_PATH`;
}

/**
 * Returns the path of a native library.
 *
 * @throws {NativeError} where none of {@linkcode libraryPlaces} has it.
 */
export function libraryPath(kind: LibraryKind): string {
  const places = libraryPlaces(kind);
  const found = places.find(({ missing }) => missing === undefined)?.path;
  if (found !== undefined) return found;
  const missing = places.map(({ missing }) => missing).join(", ");
  throw new NativeError(`Cannot load the ${kind} library: ${missing}; ${libraryRemedy(kind)}`);
}

/**
 * Opens a native library, once a process, and checks its ABI version.
 *
 * @throws {NativeError} where the file is missing, cannot be loaded, or has another ABI version.
 */
export function openLibrary(kind: LibraryKind): Library {
  const path = libraryPath(kind);
  const known = loaded.get(path);
  if (known) return known;
  const version = libraryAbiVersion(kind, path);
  if (version !== AIRK_ABI_VERSION) {
    throw new NativeError(
      `Cannot use the ${kind} library ${path}: its ABI version is ${version}, required ${AIRK_ABI_VERSION}; ${
        libraryRemedy(kind)
      }`,
    );
  }
  const library = load(kind, path, SYMBOLS);
  loaded.set(path, library);
  return library;
}

/** Returns the ABI version that a library was built with. @throws {NativeError} where it cannot be loaded. */
export function libraryAbiVersion(kind: LibraryKind, path: string): number {
  // By this symbol alone: a library of another version may lack others.
  const library = load(kind, path, { airk_abi_version: SYMBOLS.airk_abi_version });
  try {
    return library.symbols.airk_abi_version();
  } finally {
    library.close();
  }
}

function load<S extends Deno.ForeignLibraryInterface>(kind: LibraryKind, path: string, symbols: S): Deno.DynamicLibrary<S> {
  try {
    return Deno.dlopen(path, symbols);
  } catch (error) {
    throw new NativeError(`Cannot load the ${kind} library ${path}: ${(error as Error).message}; ${libraryRemedy(kind)}`);
  }
}
