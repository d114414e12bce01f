/**
 * Measures the ceiling that streaming is compared with: how fast the files can be read by a bare loop.
 * @module
 */
import { AirkernError, UsageError } from "../errors.ts";
import type { Context } from "../ffi/context.ts";
import { DIRECT_ALIGNMENT, DirectFiles } from "./direct_file.ts";
import type { Piece } from "./piece.ts";
import { READ_DEPTH, READ_PIECE_BYTES, ReadPump } from "./read_pump.ts";

/** Options of {@linkcode measureDiskReadBytesPerSecond}. */
export interface DiskMeasureOptions {
  /** Bytes to read. */
  bytes: number;
  depth?: number;
  pieceBytes?: number;
  signal?: AbortSignal;
}

/**
 * Reads files from their beginning in their order, starting over at the end, past the page cache where the file system allows it, and does nothing
 * with what it reads. Returns bytes a second.
 *
 * @throws {UsageError} where no file has as much as one aligned block, {AirkernError} where one cannot be read.
 */
export async function measureDiskReadBytesPerSecond(
  context: Context,
  files: readonly { path: string; bytes: number }[],
  options: DiskMeasureOptions,
): Promise<number> {
  const { bytes, depth = READ_DEPTH, pieceBytes = READ_PIECE_BYTES, signal } = options;
  const usable = files.map((file) => file.bytes - file.bytes % DIRECT_ALIGNMENT);
  if (!usable.some((fileBytes) => fileBytes > 0)) {
    throw new UsageError(`Cannot measure the disk: none of ${files.length} files has ${DIRECT_ALIGNMENT} bytes`);
  }
  using memory = await context.hostBuffer(depth * pieceBytes);
  using reader = new DirectFiles(files.map(({ path }) => path));
  const free = Array.from({ length: depth }, (_, slot) => slot * pieceBytes);
  let file = 0, position = 0, begunBytes = 0;
  let failure: { error: unknown } | undefined;
  const next = (): Piece | undefined => {
    if (begunBytes >= bytes || failure || signal?.aborted) return undefined;
    while (position >= usable[file]) {
      file = (file + 1) % files.length;
      position = 0;
    }
    const length = Math.min(pieceBytes, usable[file] - position);
    const offset = free.pop()!;
    begunBytes += length;
    position += length;
    return { file, position: position - length, target: memory.view(offset, length), done: () => free.push(offset) };
  };
  const pump = new ReadPump(reader, depth, next, (error) => failure ??= { error });
  const started = performance.now();
  pump.start();
  await pump.idle();
  if (failure) throw failure.error;
  if (pump.bytesRead === 0) throw new AirkernError("Cannot measure the disk: it was cancelled");
  return pump.bytesRead / (performance.now() - started) * 1000;
}
