/**
 * Quantizes the tensors of one file, extent by extent: while one extent is quantized on all cores, the rows of the next are read and the
 * bytes of the last are hashed and written. Memory is two chunks of the source and two extents, whatever the size of a tensor.
 * @module
 */
import type { Checkpoint } from "../checkpoint/checkpoint.ts";
import { CancelledError, FormatError, NativeError } from "../errors.ts";
import { AIRK_CANCELLED, AIRK_NOT_FINITE } from "../ffi/abi.ts";
import type { Context } from "../ffi/context.ts";
import { type QuantizedExtent, quantizeRows, trainQuantizer } from "../ffi/quantize.ts";
import type { FinishedGroup } from "./journal.ts";
import { type ExtentEntry, paddedBytes } from "./manifest.ts";
import { type GroupJob, MAX_SOURCE_CHUNK_BYTES, type TensorJob } from "./quantize_plan.ts";
import type { GroupUnderWay } from "./source_removal.ts";
import { ShardFileWriter } from "./writer.ts";

/** Most bytes of a tensor that its shared parameters are trained on. */
const TRAINING_BYTES = 32 * 1024 * 1024;

/** Reads of single rows in flight while a training sample is gathered. */
const SAMPLE_READS = 16;

/** Part of a tensor that becomes one extent. */
interface Chunk {
  tensor: TensorJob;
  index: number;
  firstRow: number;
  rows: number;
}

/** Returns how many rows of a tensor its parameters are trained on; 0 for formats that have none. */
function sampleRows({ format, rows, sourceRowBytes }: TensorJob): number {
  if (format !== "q4o") return 0;
  return Math.min(rows, Math.max(1, Math.floor(TRAINING_BYTES / sourceRowBytes)));
}

/** Marks a promise's failure as handled: whoever awaits it later still gets it. */
function handled<T>(promise: Promise<T>): Promise<T> {
  promise.catch(() => {});
  return promise;
}

/** Returns the error to throw for a signal. */
export function cancelledError(): CancelledError {
  return new CancelledError("Quantizing was cancelled; finished layers are kept, run it again to go on");
}

/** Quantizes files one after the other, with buffers and a device context that all of them share. */
export class GroupQuantizer {
  readonly #context: Context;
  readonly #checkpoint: Checkpoint;
  readonly #directory: string;
  readonly #signal: AbortSignal | undefined;
  readonly #onChunk: (tensor: string, sourceBytes: number) => void;
  readonly #sources: Uint8Array<ArrayBuffer>[];
  readonly #extents: Uint8Array<ArrayBuffer>[];
  readonly #sample: Uint8Array<ArrayBuffer>;

  /**
   * @param groups All files to come; their largest extent decides the buffers.
   * @param onChunk Is told of each extent that was quantized.
   */
  constructor(
    context: Context,
    checkpoint: Checkpoint,
    directory: string,
    groups: readonly GroupJob[],
    onChunk: (tensor: string, sourceBytes: number) => void,
    signal: AbortSignal | undefined,
  ) {
    this.#context = context;
    this.#checkpoint = checkpoint;
    this.#directory = directory;
    this.#signal = signal;
    this.#onChunk = onChunk;
    let sourceBytes = 0, extentBytes = 0, sampleBytes = 0;
    for (const { tensors } of groups) {
      for (const tensor of tensors) {
        sourceBytes = Math.max(sourceBytes, tensor.sourceRowBytes * Math.max(...tensor.extentRows));
        extentBytes = Math.max(extentBytes, paddedBytes(tensor.maxExtentBytes));
        sampleBytes = Math.max(sampleBytes, sampleRows(tensor) * tensor.sourceRowBytes);
      }
    }
    if (sourceBytes > MAX_SOURCE_CHUNK_BYTES) throw new RangeError(`Cannot buffer a chunk of ${sourceBytes} bytes`);
    this.#sources = [new Uint8Array(sourceBytes), new Uint8Array(sourceBytes)];
    this.#extents = [new Uint8Array(extentBytes), new Uint8Array(extentBytes)];
    this.#sample = new Uint8Array(sampleBytes);
  }

  /**
   * Writes one file.
   *
   * Where the source's files are supplied, tensors are written in the order of the files that they are in, so that only one source file has to be
   * on disk at a time; their order of use matters little, since an extent is a read of its own anyway.
   *
   * @param onSourceDone Is told when all of the group's tensors of one source file are written and another file follows.
   * @throws {FormatError} where a weight is NaN or infinite, or the source cannot be read.
   * @throws {BudgetError} where the disk is full.
   * @throws {CancelledError} after the signal.
   */
  async quantize(
    group: GroupJob,
    onSourceDone: (file: number, current: GroupUnderWay) => Promise<void> = () => Promise.resolve(),
  ): Promise<FinishedGroup> {
    const chunks: Chunk[] = [];
    const supplied = this.#checkpoint.supply !== undefined;
    const ordered = supplied ? [...group.tensors].sort((a, b) => a.source.file - b.source.file) : group.tensors;
    for (const tensor of ordered) {
      let firstRow = 0;
      tensor.extentRows.forEach((rows, index) => {
        chunks.push({ tensor, index, firstRow, rows });
        firstRow += rows;
      });
    }
    const name = ({ tensor, index }: Chunk) => `${tensor.relativeName}#${index}`;
    using writer = new ShardFileWriter(
      this.#directory,
      group.file,
      chunks.map((chunk) => ({ name: name(chunk), maxBytes: chunk.tensor.maxExtentBytes })),
    );
    const results = new Map(group.tensors.map((tensor) => [tensor, new TensorResult(tensor)]));
    const entries = (tensors: readonly TensorJob[]) => tensors.map((tensor) => results.get(tensor)!.entry());
    const read = (i: number) => handled(this.#read(chunks[i], this.#sources[i % 2]));
    /** Whether a chunk is the last one of its source file. */
    const endsSource = (i: number) =>
      supplied && i + 1 < chunks.length && chunks[i + 1].tensor.source.file !== chunks[i].tensor.source.file;
    let reading = read(0);
    let writing: Promise<unknown> = Promise.resolve();
    let parameters = new Uint8Array(0);
    try {
      for (const [i, chunk] of chunks.entries()) {
        if (this.#signal?.aborted) throw cancelledError();
        const { tensor, rows } = chunk;
        if (chunk.index === 0) parameters = await this.#train(tensor);
        await reading;
        if (i + 1 < chunks.length && !endsSource(i)) reading = read(i + 1);
        const source = this.#sources[i % 2].subarray(0, rows * tensor.sourceRowBytes), extent = this.#extents[i % 2];
        // Gaps between sections are not the quantizer's to write; equal weights shall give equal files.
        extent.fill(0, 0, paddedBytes(tensor.maxExtentBytes));
        const quantized = await this.#run(
          chunk,
          (format) => quantizeRows(this.#context, format, source, tensor.sourceType, rows, tensor.cols, parameters, extent),
        );
        await writing;
        const padded = extent.subarray(0, paddedBytes(quantized.bytes));
        writing = handled(
          writer.append(name(chunk), padded).then((written) => {
            const { bytes, outliers } = quantized;
            results.get(tensor)!.add({ ...written, bytes, rows, outliers }, quantized);
          }),
        );
        this.#onChunk(tensor.name, source.length);
        if (endsSource(i)) {
          await writing;
          const { file } = tensor.source;
          const written = ordered.filter(({ source }) => source.file <= file);
          await onSourceDone(file, { group, path: writer.partialPath, tensors: entries(written) });
          reading = read(i + 1);
        }
      }
      await writing;
    } finally {
      // Neither buffers nor files may go away under a read or write.
      await Promise.allSettled([reading, writing]);
    }
    const file = await writer.finish();
    return { file, tensors: entries(group.tensors) };
  }

  async #read(chunk: Chunk, into: Uint8Array): Promise<void> {
    await this.#checkpoint.readRows(chunk.tensor.source, chunk.firstRow, chunk.rows, into);
  }

  /** Trains what the tensor's extents share on rows at even distances. */
  async #train(tensor: TensorJob): Promise<Uint8Array<ArrayBuffer>> {
    const count = sampleRows(tensor);
    if (count === 0) return new Uint8Array(0);
    const { rows, cols, sourceRowBytes } = tensor;
    const sample = this.#sample.subarray(0, count * sourceRowBytes);
    const readRow = (i: number, rowCount: number) =>
      this.#checkpoint.readRows(
        tensor.source,
        Math.floor((i + 0.5) * rows / count),
        rowCount,
        sample.subarray(i * sourceRowBytes, (i + rowCount) * sourceRowBytes),
      );
    if (count === rows) await readRow(0, rows);
    else {
      for (let first = 0; first < count; first += SAMPLE_READS) {
        if (this.#signal?.aborted) throw cancelledError();
        const some = Math.min(SAMPLE_READS, count - first);
        await Promise.all(Array.from({ length: some }, (_, i) => readRow(first + i, 1)));
      }
    }
    return await this.#run(
      { tensor, index: 0, firstRow: 0, rows },
      (format) => trainQuantizer(this.#context, format, sample, tensor.sourceType, count, cols),
    );
  }

  /** Calls the native quantizer and says what its failures mean here. */
  async #run<T>(chunk: Chunk, call: (format: number) => Promise<T>): Promise<T> {
    const { tensor, firstRow, rows } = chunk;
    try {
      return await call(this.#context.formatId(tensor.format));
    } catch (error) {
      if (!(error instanceof NativeError)) throw error;
      if (error.status === AIRK_CANCELLED) throw cancelledError();
      if (error.status !== AIRK_NOT_FINITE) throw error;
      throw new FormatError(
        `Cannot quantize model ${this.#checkpoint.path}: tensor ${JSON.stringify(tensor.name)} holds NaN or infinity ` +
          `in rows ${firstRow} to ${firstRow + rows - 1}, required: finite weights`,
      );
    }
  }
}

/** Gathers what becomes a tensor's entry of the manifest. */
class TensorResult {
  readonly #tensor: TensorJob;
  readonly #extents: ExtentEntry[] = [];
  #squaredWeights = 0;
  #squaredErrors = 0;
  constructor(tensor: TensorJob) {
    this.#tensor = tensor;
  }

  add(extent: ExtentEntry, { squaredWeights, squaredErrors }: QuantizedExtent): void {
    this.#extents.push(extent);
    this.#squaredWeights += squaredWeights;
    this.#squaredErrors += squaredErrors;
  }

  entry(): FinishedGroup["tensors"][number] {
    const { name, format, rows, cols } = this.#tensor;
    const snrDb = this.#squaredErrors > 0 && this.#squaredWeights > 0
      ? Math.round(1e4 * Math.log10(this.#squaredWeights / this.#squaredErrors)) / 1e3
      : null;
    return { name, format, rows, cols, extents: this.#extents, snrDb };
  }
}
