/**
 * What `doctor` finds out about the native libraries and the devices that they open.
 * @module
 */
import { AIRK_ABI_VERSION } from "../../ffi/abi.ts";
import { Context, type DeviceDescription } from "../../ffi/context.ts";
import { libraryAbiVersion, openLibrary } from "../../ffi/library.ts";
import { importLibraryPackage, type LibraryKind, type LibraryPlace, libraryPlaces } from "../../ffi/library_lookup.ts";

/** A place where a library was looked for, and what was found there. */
export interface FoundLibrary extends LibraryPlace {
  /** ABI version that it was built with; undefined where it is missing or cannot be loaded. */
  abiVersion?: number;
  /** Why a file that is there cannot be used. */
  problem?: string;
}

/** A device that a library opened. */
export interface FoundDevice extends DeviceDescription {
  device: number;
  freeBytes: number;
  totalBytes: number;
}

/** A library: everywhere it was looked for, what is used, and its devices. */
export interface LibraryReport {
  kind: LibraryKind;
  places: FoundLibrary[];
  /** Path of the library that is used. */
  used?: string;
  devices: FoundDevice[];
  /** Why there is no device: the library cannot be used, or it opens none. */
  problem?: string;
}

/** Looks a library up, loads it and opens every device it has. */
export async function inspectLibrary(kind: LibraryKind): Promise<LibraryReport> {
  await importLibraryPackage(kind);
  const report: LibraryReport = { kind, places: libraryPlaces(kind).map((place) => inspectPlace(kind, place)), devices: [] };
  try {
    openLibrary(kind);
    report.used = report.places.find(({ missing }) => missing === undefined)!.path;
    openDevices(report);
  } catch (error) {
    report.problem = (error as Error).message;
  }
  return report;
}

function inspectPlace(kind: LibraryKind, place: LibraryPlace): FoundLibrary {
  if (place.missing !== undefined) return place;
  try {
    const abiVersion = libraryAbiVersion(kind, place.path!);
    return abiVersion === AIRK_ABI_VERSION
      ? { ...place, abiVersion }
      : { ...place, abiVersion, problem: `${place.path} has ABI version ${abiVersion}, required ${AIRK_ABI_VERSION}` };
  } catch (error) {
    return { ...place, problem: (error as Error).message };
  }
}

/** Opens device after device; one that cannot be opened is the report's problem, the others are still listed. */
function openDevices(report: LibraryReport): void {
  const count = Math.max(1, Context.deviceCount(report.kind));
  for (let device = 0; device < count; device++) {
    try {
      using context = Context.open({ kind: report.kind, device });
      report.devices.push({ device, ...context.description, ...context.memoryInfo() });
    } catch (error) {
      report.problem = (error as Error).message;
    }
  }
}
