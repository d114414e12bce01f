/**
 * Reads files past the page cache, straight into aligned memory.
 *
 * Measured on Deno 2.9 and Linux: positional reads of node:fs are plain `pread`s without a copy, as fast as native threads or io_uring; reads
 * on one descriptor wait for each other, so each read in flight has a descriptor of its own; buffered reads take twice the time and
 * 10 to 50 times the processor.
 * @module
 */
import * as fs from "node:fs";
import { AirkernError, FormatError } from "../errors.ts";

/** Address, offset and length of a direct read are multiples of this many bytes. */
export const DIRECT_ALIGNMENT = 4096;

/**
 * Descriptors kept open. A model may have hundreds of files, a process is often allowed 1024 descriptors, and opening one again costs
 * some 30 us for each file and pass.
 */
const MAX_OPEN = 64;

/** The system calls that reading takes; tests put failures in their place. */
export interface FileIo {
  open(path: string, flags: number): number;
  /** Returns how many bytes were read: fewer than asked at the end of the file. */
  read(fd: number, target: Uint8Array<ArrayBuffer>, position: number): Promise<number>;
  close(fd: number): void;
}

/** The system calls of node:fs. */
export const nodeFileIo: FileIo = {
  open: (path, flags) => fs.openSync(path, flags),
  read: (fd, target, position) =>
    new Promise((resolve, reject) =>
      fs.read(fd, target, 0, target.length, position, (error, count) => error ? reject(error) : resolve(count))
    ),
  close: (fd) => fs.closeSync(fd),
};

/** O_DIRECT where the system has it, else nothing. */
const DIRECT_FLAG: number = (fs.constants as Record<string, number>).O_DIRECT ?? 0;

/** True for the answer of a file system that does not do direct reads, or not with this alignment. */
function refusesDirect(error: unknown): boolean {
  const code = (error as { code?: string }).code;
  return code === "EINVAL" || code === "EOPNOTSUPP" || code === "ENOTSUP";
}

/** An open file, used by one read at a time. */
interface Descriptor {
  file: number;
  fd: number;
  direct: boolean;
}

/** A set of files that are read at any position, several reads at a time. */
export class DirectFiles implements Disposable {
  readonly paths: readonly string[];
  readonly #io: FileIo;
  readonly #maxOpen: number;
  /** Whether a file is read directly; false once its file system refused. */
  readonly #direct: boolean[];
  /** Descriptors not in use, the least recently used first. */
  readonly #idle: Descriptor[] = [];
  #open = 0;
  #closed = false;

  /** Opens nothing yet: files are opened when they are first read. */
  constructor(paths: readonly string[], options: { io?: FileIo; maxOpen?: number } = {}) {
    this.paths = paths;
    this.#io = options.io ?? nodeFileIo;
    this.#maxOpen = options.maxOpen ?? MAX_OPEN;
    this.#direct = paths.map(() => DIRECT_FLAG !== 0);
  }

  /** Descriptors open now. */
  get openDescriptors(): number {
    return this.#open;
  }

  /** Whether a file is read past the page cache, as far as is known before its first read. */
  isDirect(file: number): boolean {
    return this.#direct[file];
  }

  /**
   * Fills `target` with the bytes at `position` of a file. For a direct read address, length and position must be multiples of
   * {@linkcode DIRECT_ALIGNMENT}; where the file system refuses direct reads, the page cache is read instead.
   *
   * @throws {FormatError} where the file ends before `target` is full.
   * @throws {AirkernError} where the file cannot be opened or read.
   */
  async read(file: number, target: Uint8Array<ArrayBuffer>, position: number): Promise<void> {
    let filledBytes = 0;
    while (filledBytes < target.length) {
      const count = await this.#readSome(file, target.subarray(filledBytes), position + filledBytes);
      filledBytes += count;
      // A read that stops within a block has met the end; the next would be refused for its alignment.
      if (count === 0 || (filledBytes < target.length && filledBytes % DIRECT_ALIGNMENT !== 0)) {
        throw new FormatError(
          `Cannot read ${this.paths[file]}: it ends at byte ${position + filledBytes}, required ${position + target.length}`,
        );
      }
    }
  }

  /** Reads once, and where direct reads are refused again through the page cache. Descriptors opened before that was known are closed one by one. */
  async #readSome(file: number, target: Uint8Array<ArrayBuffer>, position: number): Promise<number> {
    for (;;) {
      const descriptor = this.#take(file);
      try {
        const count = await this.#io.read(descriptor.fd, target, position);
        this.#giveBack(descriptor);
        return count;
      } catch (error) {
        this.#close(descriptor);
        if (!descriptor.direct || !refusesDirect(error)) {
          throw new AirkernError(
            `Cannot read ${this.paths[file]}: ${target.length} bytes at byte ${position}: ${(error as Error).message}`,
            { cause: error },
          );
        }
        this.#direct[file] = false;
      }
    }
  }

  /** Returns a descriptor of a file that no other read uses. */
  #take(file: number): Descriptor {
    if (this.#closed) throw new AirkernError(`Cannot read ${this.paths[file]}: it was closed`);
    const index = this.#idle.findIndex((descriptor) => descriptor.file === file);
    if (index >= 0) return this.#idle.splice(index, 1)[0];
    if (this.#open >= this.#maxOpen && this.#idle.length > 0) this.#close(this.#idle.shift()!);
    const fd = this.#openFile(file);
    this.#open++;
    return { file, fd, direct: this.#direct[file] };
  }

  #openFile(file: number): number {
    const path = this.paths[file];
    try {
      if (this.#direct[file]) {
        try {
          return this.#io.open(path, fs.constants.O_RDONLY | DIRECT_FLAG);
        } catch (error) {
          if (!refusesDirect(error)) throw error;
          this.#direct[file] = false;
        }
      }
      return this.#io.open(path, fs.constants.O_RDONLY);
    } catch (error) {
      throw new AirkernError(`Cannot open ${path}: ${(error as Error).message}`, { cause: error });
    }
  }

  #giveBack(descriptor: Descriptor): void {
    if (this.#closed) this.#close(descriptor);
    else this.#idle.push(descriptor);
  }

  #close({ fd }: Descriptor): void {
    this.#open--;
    this.#io.close(fd);
  }

  /** Closes the files; a descriptor in use is closed as its read ends. */
  [Symbol.dispose](): void {
    this.#closed = true;
    for (const descriptor of this.#idle.splice(0)) this.#close(descriptor);
  }
}
