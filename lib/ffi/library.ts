/**
 * Finds, loads and checks a native library.
 * @module
 */
import { fileURLToPath } from "node:url";
import { NativeError } from "../errors.ts";
import { AIRK_ABI_VERSION, SYMBOLS } from "./abi.ts";

/** A native library opened by {@linkcode openLibrary}. */
export type Library = Deno.DynamicLibrary<typeof SYMBOLS>;

/** Which of the libraries that implement cuda/airkern.h. */
export type LibraryKind = "cpu" | "cuda";

const FILE_NAMES: Record<LibraryKind, string> = {
  cpu: "libairkern_cpu.so",
  cuda: "libairkern.so",
};

const BUILD_COMMANDS: Record<LibraryKind, string> = { cpu: "make", cuda: "make cuda" };

const loaded = new Map<string, Library>();

/**
 * Returns the path of a native library: AIRKERN_LIBRARY_PATH (a file, or a folder of them), else `build/` beside mod.ts.
 */
export function libraryPath(kind: LibraryKind): string {
  const override = Deno.env.get("AIRKERN_LIBRARY_PATH");
  if (override) return override.endsWith(".so") ? override : `${override}/${FILE_NAMES[kind]}`;
  const beside = new URL(`../../build/${FILE_NAMES[kind]}`, import.meta.url);
  if (beside.protocol !== "file:") {
    throw new NativeError(
      `Cannot find the ${kind} library: AirKern was imported from ${beside.host}, where none is built; ` +
        `build one with \`${BUILD_COMMANDS[kind]}\` in a copy of the repository and set AIRKERN_LIBRARY_PATH to it`,
    );
  }
  return fileURLToPath(beside);
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
  const remedy = `build it with \`${BUILD_COMMANDS[kind]}\` or set AIRKERN_LIBRARY_PATH`;
  try {
    Deno.statSync(path);
  } catch {
    throw new NativeError(`Cannot load the ${kind} library: ${path} is not there; ${remedy}`);
  }
  let library: Library;
  try {
    library = Deno.dlopen(path, SYMBOLS);
  } catch (error) {
    throw new NativeError(`Cannot load the ${kind} library ${path}: ${(error as Error).message}; ${remedy}`);
  }
  const version = library.symbols.airk_abi_version();
  if (version !== AIRK_ABI_VERSION) {
    library.close();
    throw new NativeError(
      `Cannot use the ${kind} library ${path}: its ABI version is ${version}, required ${AIRK_ABI_VERSION}; ${remedy}`,
    );
  }
  loaded.set(path, library);
  return library;
}
