/**
 * Checks a manifest field by field. A shard directory may come from anyone, and everything later trusts its sizes and offsets.
 * @module
 */
import { isJsonObject, isPlainFileName, type JsonObject } from "../checkpoint/json_file.ts";
import { isNamedTemplate } from "../checkpoint/tokenizer_files.ts";
import { FormatError } from "../errors.ts";
import { columnUnit, extentBytes, isWeightFormat, PLAIN_FORMATS, rowGranularity } from "./formats.ts";
import {
  EXTENT_ALIGNMENT,
  type ExtentEntry,
  type Manifest,
  MAX_EXTENT_BYTES,
  paddedBytes,
  type ShardFile,
  type TensorEntry,
  type WeightFormatName,
} from "./manifest.ts";

/** Largest dimension: indices are 32-bit in places (outlier columns are 16-bit, which q4o checks for itself). */
const MAX_DIMENSION = 2 ** 31 - 1;

/** q4o keeps an outlier's column in 16 bits. */
const MAX_Q4O_COLS = 65_536;

/** Reads fields of one object, each checked; {@linkcode Fields.end} refuses those that nobody asked for. */
class Fields {
  readonly #known = new Set<string>();
  constructor(readonly object: JsonObject, readonly where: string) {}

  refuse(key: string, required: string): FormatError {
    const value = JSON.stringify(this.object[key]) ?? "missing";
    return new FormatError(`Cannot read ${this.where}: ${key} is ${value.slice(0, 80)}, required ${required}`);
  }
  raw(key: string): unknown {
    this.#known.add(key);
    return Object.hasOwn(this.object, key) ? this.object[key] : undefined;
  }
  text(key: string): string {
    const value = this.raw(key);
    if (typeof value !== "string") throw this.refuse(key, "text");
    return value;
  }
  fileName(key: string): string {
    const value = this.raw(key);
    if (!isPlainFileName(value)) throw this.refuse(key, "a plain file name");
    return value;
  }
  sha256(key: string): string {
    const value = this.raw(key);
    if (typeof value !== "string" || !/^[0-9a-f]{64}$/.test(value)) throw this.refuse(key, "64 hex digits");
    return value;
  }
  integer(key: string, least: number, most: number): number {
    const value = this.raw(key);
    if (!Number.isSafeInteger(value) || (value as number) < least || (value as number) > most) {
      throw this.refuse(key, `an integer from ${least} to ${most}`);
    }
    return value as number;
  }
  oneOf<T extends string | number>(key: string, values: readonly T[]): T {
    const value = this.raw(key) as T;
    if (!values.includes(value)) throw this.refuse(key, values.map((v) => JSON.stringify(v)).join(" or "));
    return value;
  }
  json(key: string): JsonObject {
    const value = this.raw(key);
    if (!isJsonObject(value)) throw this.refuse(key, "an object");
    return value;
  }
  fields(key: string): Fields {
    return new Fields(this.json(key), `${this.where}, ${key}`);
  }
  list(key: string): Fields[] {
    const value = this.raw(key);
    if (!Array.isArray(value)) throw this.refuse(key, "a list");
    return value.map((item, i) => {
      if (!isJsonObject(item)) throw new FormatError(`Cannot read ${this.where}: ${key}[${i}] is no object`);
      return new Fields(item, `${this.where}, ${key}[${i}]`);
    });
  }
  end(): void {
    const unknown = Object.keys(this.object).find((key) => !this.#known.has(key));
    if (unknown !== undefined) throw new FormatError(`Cannot read ${this.where}: unknown field ${JSON.stringify(unknown)}`);
  }
}

function parseFile(fields: Fields): ShardFile {
  const file = {
    name: fields.fileName("name"),
    bytes: fields.integer("bytes", EXTENT_ALIGNMENT, Number.MAX_SAFE_INTEGER),
    headerBytes: fields.integer("headerBytes", EXTENT_ALIGNMENT, Number.MAX_SAFE_INTEGER),
    headerSha256: fields.sha256("headerSha256"),
  };
  if (file.headerBytes % EXTENT_ALIGNMENT !== 0) throw fields.refuse("headerBytes", `a multiple of ${EXTENT_ALIGNMENT}`);
  if (file.bytes < file.headerBytes) throw fields.refuse("bytes", `at least headerBytes (${file.headerBytes})`);
  fields.end();
  return file;
}

function parseExtent(fields: Fields, format: WeightFormatName, cols: number): ExtentEntry {
  const extent = {
    offset: fields.integer("offset", EXTENT_ALIGNMENT, Number.MAX_SAFE_INTEGER),
    bytes: fields.integer("bytes", 1, MAX_EXTENT_BYTES),
    rows: fields.integer("rows", 1, MAX_DIMENSION),
    outliers: fields.integer("outliers", 0, format === "q4o" ? MAX_DIMENSION : 0),
    sha256: fields.sha256("sha256"),
  };
  if (extent.offset % EXTENT_ALIGNMENT !== 0) throw fields.refuse("offset", `a multiple of ${EXTENT_ALIGNMENT}`);
  const required = extentBytes(format, extent.rows, cols, extent.outliers);
  if (extent.bytes !== required) throw fields.refuse("bytes", `${required} for ${format} [${extent.rows}, ${cols}]`);
  fields.end();
  return extent;
}

function parseTensor(fields: Fields, fileCount: number): TensorEntry {
  const name = fields.text("name");
  const file = fields.integer("file", 0, fileCount - 1);
  const format = fields.text("format");
  if (!isWeightFormat(format)) {
    throw fields.refuse("format", `${PLAIN_FORMATS.map((known) => JSON.stringify(known)).join(" or ")} or a packed format`);
  }
  const rows = fields.integer("rows", 1, MAX_DIMENSION);
  const cols = fields.integer("cols", 1, format === "q4o" ? MAX_Q4O_COLS : MAX_DIMENSION);
  if (cols % columnUnit(format) !== 0) throw fields.refuse("cols", `a multiple of ${columnUnit(format)} for ${format}`);
  const snrDb = fields.raw("snrDb");
  if (snrDb !== null && typeof snrDb !== "number") throw fields.refuse("snrDb", "a number or null");
  const extents = fields.list("extents").map((extent) => parseExtent(extent, format, cols));
  const extentRows = extents.reduce((sum, extent) => sum + extent.rows, 0);
  if (extentRows !== rows) throw fields.refuse("rows", `${extentRows}, the sum of its extents' rows`);
  const granularity = rowGranularity(format, cols);
  if (extents.slice(0, -1).some((extent) => extent.rows % granularity !== 0)) {
    throw new FormatError(`Cannot read ${fields.where}: ${format} extents must start on a multiple of ${granularity} rows`);
  }
  fields.end();
  return { name, file, format, rows, cols, extents, snrDb };
}

/** Checks that the extents of each file follow each other without gaps from its header to its end. */
function checkPlacement(manifest: Manifest, where: string): void {
  const placed = manifest.files.map((): { offset: number; end: number; name: string }[] => []);
  for (const { name, file, extents } of manifest.tensors) {
    for (const { offset, bytes } of extents) placed[file].push({ offset, end: offset + paddedBytes(bytes), name });
  }
  manifest.files.forEach((file, i) => {
    let end = file.headerBytes;
    for (const extent of placed[i].sort((a, b) => a.offset - b.offset)) {
      if (extent.offset !== end) {
        const fault = extent.offset < end ? "overlaps what is before it" : "leaves a gap before it";
        throw new FormatError(
          `Cannot read ${where}: an extent of ${extent.name} at byte ${extent.offset} of ${file.name} ${fault}; required offset ${end}`,
        );
      }
      end = extent.end;
    }
    if (end !== file.bytes) {
      throw new FormatError(`Cannot read ${where}: extents of ${file.name} end at byte ${end}, but its size is ${file.bytes}`);
    }
  });
}

function refuseTwice(names: string[], kind: string, where: string): void {
  const seen = new Set<string>();
  for (const name of names) {
    if (seen.has(name)) throw new FormatError(`Cannot read ${where}: ${kind} ${JSON.stringify(name)} is listed twice`);
    seen.add(name);
  }
}

/**
 * Returns the manifest that a parsed JSON object is.
 * @param where Path of the file, for messages.
 * @throws {FormatError} where a field is missing, unknown, of another type or out of range, or where extents do not fit their file.
 */
export function validateManifest(body: JsonObject, where: string): Manifest {
  const fields = new Fields(body, where);
  const format = fields.oneOf("format", ["airkern-shards"] as const);
  const formatVersion = fields.oneOf("formatVersion", [1] as const);
  const source = fields.fields("source");
  const files = fields.list("files").map(parseFile);
  const manifest: Manifest = {
    format,
    formatVersion,
    generator: fields.text("generator"),
    config: fields.json("config"),
    generationConfig: fields.raw("generationConfig") === null ? null : fields.json("generationConfig"),
    tokenizerFiles: fields.list("tokenizerFiles").map((file) => {
      const entry = {
        name: isNamedTemplate(file.raw("name")) ? file.text("name") : file.fileName("name"),
        bytes: file.integer("bytes", 0, Number.MAX_SAFE_INTEGER),
        sha256: file.sha256("sha256"),
      };
      file.end();
      return entry;
    }),
    source: { name: source.text("name"), revision: source.text("revision") },
    compression: fields.oneOf("compression", ["q4o", "nf4", "q8", "none"] as const),
    files,
    tensors: fields.list("tensors").map((tensor) => parseTensor(tensor, files.length)),
    ignoredTensors: fields.list("ignoredTensors").map((ignored) => {
      const entry = { name: ignored.text("name"), reason: ignored.text("reason") };
      ignored.end();
      return entry;
    }),
  };
  source.end();
  fields.end();
  refuseTwice([...files, ...manifest.tokenizerFiles].map((file) => file.name), "file", where);
  refuseTwice(manifest.tensors.map((tensor) => tensor.name), "tensor", where);
  checkPlacement(manifest, where);
  return manifest;
}
