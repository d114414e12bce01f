/**
 * The native libraries that were released with this version, by platform and kind. Empty in the repository, so that a copy of it never asks
 * a registry: `scripts/release/assemble.ts` fills it in the copy that is published.
 * @module
 */

/** A released library: the npm package that holds it, at one exact version, and what its file must be. */
export interface Prebuilt {
  /** Such as `@airkern/linux-x64@0.1.0`. */
  packageName: string;
  file: string;
  sha256: string;
}

/** Keyed `OS-ARCHITECTURE/KIND`, such as `linux-x64/cpu`. */
export const PREBUILT: Record<string, Prebuilt> = {};
