/**
 * Quantizes the tensors of one file, extent by extent: while one extent is quantized on all cores, the rows of the next are read and the
 * bytes of the last are hashed and written. Memory is two chunks of the source and two extents, whatever the size of a tensor.
 * @module
 */
import type { Checkpoint } from "../checkpoint/checkpoint.ts";
import { CancelledError, FormatError, NativeError } from "../errors.ts";
import { AIRK_CANCELLED, AIRK_F16, AIRK_F32, AIRK_NOT_FINITE } from "../ffi/abi.ts";
import type { Context } from "../ffi/context.ts";
import { type QuantizedExtent, quantizeRows, trainQuantizer } from "../ffi/quantize.ts";
import { Dequantizer, dequantizerBytes, EncodedRows } from "./encoded_rows.ts";
import { TurnedEncoded } from "./turned_encoded.ts";
import type { FinishedGroup } from "./journal.ts";
import { type ExtentEntry, paddedBytes } from "./manifest.ts";
import { type GroupJob, isKept, MAX_SOURCE_CHUNK_BYTES, sourceBytes, type TensorJob } from "./quantize_plan.ts";
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

/** Adds to each element of an extent of format f32. */
function addOffset({ buffer, byteOffset }: Uint8Array<ArrayBuffer>, count: number, offset: number): void {
  const values = new Float32Array(buffer, byteOffset, count);
  for (let i = 0; i < count; i++) values[i] += offset;
}

/** Returns rows of one of the 16-bit or 32-bit element types as float32, each scaled to unit length. */
function unitRows(
  { buffer, byteOffset }: Uint8Array<ArrayBuffer>,
  type: number,
  rows: number,
  cols: number,
): Uint8Array<ArrayBuffer> {
  const count = rows * cols;
  const values = type === AIRK_F32
    ? new Float32Array(buffer, byteOffset, count).slice()
    : type === AIRK_F16
    ? Float32Array.from(new Float16Array(buffer, byteOffset, count))
    : new Float32Array(Uint32Array.from(new Uint16Array(buffer, byteOffset, count), (bits) => bits << 16).buffer);
  for (let row = 0; row < rows; row++) {
    const elements = values.subarray(row * cols, (row + 1) * cols);
    let squares = 0;
    for (const value of elements) squares += value * value;
    // As torch's normalize() does, which keeps a row of zeros one of zeros.
    const length = Math.max(Math.sqrt(squares), 1e-12);
    for (let i = 0; i < cols; i++) elements[i] /= length;
  }
  return new Uint8Array(values.buffer);
}

/** Takes an extent that was read as it is: nothing is lost. */
function keep(source: Uint8Array, extent: Uint8Array): QuantizedExtent {
  extent.set(source);
  return { bytes: source.length, outliers: 0, squaredWeights: 0, squaredErrors: 0 };
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

/** Bytes of the buffers that files are quantized in. */
interface BufferBytes {
  source: number;
  extent: number;
  sample: number;
  /** Of encoded rows on their way to float32: both sides. */
  packed: number;
  plain: number;
}

function bufferBytes(groups: readonly GroupJob[]): BufferBytes {
  const bytes: BufferBytes = { source: 0, extent: 0, sample: 0, packed: 0, plain: 0 };
  for (const tensor of groups.flatMap(({ tensors }) => tensors)) {
    if (tensor.source instanceof EncodedRows) {
      const { packed, plain } = dequantizerBytes(tensor.source), kept = isKept(tensor);
      // Putting rows in the extent's order takes them once more beside it.
      bytes.packed = Math.max(bytes.packed, 2 * (kept ? tensor.source.bytes(Math.max(...tensor.extentRows)) : packed));
      bytes.plain = Math.max(bytes.plain, kept ? 0 : plain);
    }
    if (tensor.source instanceof TurnedEncoded) {
      bytes.packed = Math.max(bytes.packed, 2 * tensor.source.bufferBytes.packed);
      bytes.plain = Math.max(bytes.plain, tensor.source.bufferBytes.plain);
    }
    bytes.source = Math.max(bytes.source, sourceBytes(tensor, Math.max(...tensor.extentRows)));
    bytes.extent = Math.max(bytes.extent, paddedBytes(tensor.maxExtentBytes));
    bytes.sample = Math.max(bytes.sample, sampleRows(tensor) * tensor.sourceRowBytes);
  }
  return bytes;
}

/**
 * Returns most of the memory that the native quantizer takes for a tensor beside what it is given: to train, sums of 64 runs of rows
 * (cpu/train_q4o.cpp); for an extent, two floats a block (cpu/quantize_q4o.cpp); and some rows of float32 a thread.
 */
function scratchBytes(tensor: TensorJob): number {
  const { cols, extentRows } = tensor;
  const training = sampleRows(tensor) > 0 ? 64 * 4 * cols : 0;
  return Math.max(training, Math.max(...extentRows) * Math.ceil(cols / 32) * 8) + 256 * cols;
}

/** Returns the bytes that quantizing these files takes beside what the process has already. */
export function quantizingBytes(groups: readonly GroupJob[]): number {
  const { source, extent, sample, packed, plain } = bufferBytes(groups);
  const scratch = groups.flatMap(({ tensors }) => tensors).reduce((most, tensor) => Math.max(most, scratchBytes(tensor)), 0);
  return 2 * source + 2 * extent + sample + packed + plain + scratch;
}

/** Returns things in the order in which the source files that they need follow each other, so that each file is needed for a while only. */
export function inSourceOrder<T>(things: readonly T[], filesOf: (thing: T) => readonly number[]): T[] {
  return things.map((thing) => ({ thing, last: Math.max(-1, ...filesOf(thing)), first: Math.min(...filesOf(thing)) }))
    .sort((a, b) => a.last - b.last || a.first - b.first).map(({ thing }) => thing);
}

/** Quantizes files one after the other, with buffers and a device context that all of them share. */
export class GroupQuantizer implements Disposable {
  readonly #context: Context;
  readonly #checkpoint: Checkpoint;
  readonly #directory: string;
  readonly #signal: AbortSignal | undefined;
  readonly #onChunk: (tensor: string, sourceBytes: number) => void;
  readonly #sources: Uint8Array<ArrayBuffer>[];
  readonly #extents: Uint8Array<ArrayBuffer>[];
  readonly #sample: Uint8Array<ArrayBuffer>;
  readonly #dequantizer: Dequantizer;

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
    const { source, extent, sample } = bufferBytes(groups);
    if (source > MAX_SOURCE_CHUNK_BYTES) throw new RangeError(`Cannot buffer a chunk of ${source} bytes`);
    this.#sources = [new Uint8Array(source), new Uint8Array(source)];
    this.#extents = [new Uint8Array(extent), new Uint8Array(extent)];
    this.#sample = new Uint8Array(sample);
    this.#dequantizer = new Dequantizer(context);
  }

  /** Gives the buffers back at once, not when they are collected: whoever loads the model next counts what the process takes. */
  [Symbol.dispose](): void {
    this.#dequantizer[Symbol.dispose]();
    for (const { buffer } of [...this.#sources, ...this.#extents, this.#sample]) buffer.transfer(0);
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
    const ordered = supplied ? inSourceOrder(group.tensors, ({ source }) => source.files) : group.tensors;
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
    const lastUse = new Map(chunks.flatMap(({ tensor }, i) => tensor.source.files.map((file) => [file, i] as const)));
    /** Source files that no chunk after this one needs. */
    const ended = (i: number) => chunks[i].tensor.source.files.filter((file) => lastUse.get(file) === i);
    const endsSource = (i: number) => supplied && i + 1 < chunks.length && ended(i).length > 0;
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
        const stored = this.#sources[i % 2].subarray(0, sourceBytes(tensor, rows)), extent = this.#extents[i % 2];
        const source = tensor.unitRows ? unitRows(stored, tensor.sourceType, rows, tensor.cols) : stored;
        const sourceType = tensor.unitRows ? AIRK_F32 : tensor.sourceType;
        // Gaps between sections are not the quantizer's to write; equal weights shall give equal files.
        extent.fill(0, 0, paddedBytes(tensor.maxExtentBytes));
        const quantized = isKept(tensor) ? keep(source, extent) : await this.#run(
          chunk,
          (format) => quantizeRows(this.#context, format, source, sourceType, rows, tensor.cols, parameters, extent),
        );
        if (tensor.offset !== 0) addOffset(extent, rows * tensor.cols, tensor.offset);
        await writing;
        const padded = extent.subarray(0, paddedBytes(quantized.bytes));
        writing = handled(
          writer.append(name(chunk), padded).then((written) => {
            const { bytes, outliers } = quantized;
            results.get(tensor)!.add({ ...written, bytes, rows, outliers }, quantized);
          }),
        );
        this.#onChunk(tensor.name, stored.length);
        if (endsSource(i)) {
          await writing;
          for (const file of ended(i)) {
            const tensors = entries(ordered.filter(({ source }) => source.files.includes(file)));
            await onSourceDone(file, { group, path: writer.partialPath, tensors });
          }
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

  /** Reads what the chunk is made from: an extent to keep, or values to quantize. */
  async #read({ tensor, firstRow, rows }: Chunk, into: Uint8Array<ArrayBuffer>): Promise<void> {
    into = into.subarray(0, sourceBytes(tensor, rows));
    if (tensor.source instanceof EncodedRows && isKept(tensor)) await tensor.source.read(firstRow, rows, into);
    else await this.#readValues(tensor, firstRow, rows, into);
  }

  async #readValues({ source }: TensorJob, firstRow: number, rows: number, into: Uint8Array<ArrayBuffer>): Promise<void> {
    if (source instanceof EncodedRows) await this.#dequantizer.read(source, firstRow, rows, into);
    else if (source instanceof TurnedEncoded) await source.read(this.#dequantizer, firstRow, rows, into);
    else await source.read(firstRow, rows, into);
  }

  /** Trains what the tensor's extents share on rows at even distances. */
  async #train(tensor: TensorJob): Promise<Uint8Array<ArrayBuffer>> {
    const wanted = sampleRows(tensor);
    if (wanted === 0) return new Uint8Array(0);
    const { rows, cols, sourceRowBytes } = tensor;
    // Runs of rows that are worth a read, each in the middle of its share of the tensor.
    const { source } = tensor;
    const worthReading = source instanceof EncodedRows
      ? source.granularity
      : source instanceof TurnedEncoded
      ? source.blockRows
      : source.readRows;
    const run = Math.min(wanted, worthReading), runs = Math.floor(wanted / run);
    const count = wanted === rows ? rows : runs * run;
    const sample = this.#sample.subarray(0, count * sourceRowBytes);
    const read = (sampleRow: number, row: number, rowCount: number) =>
      this.#readValues(
        tensor,
        row,
        rowCount,
        sample.subarray(sampleRow * sourceRowBytes, (sampleRow + rowCount) * sourceRowBytes),
      );
    if (count === rows) await read(0, 0, rows);
    else {
      for (let first = 0; first < runs; first += SAMPLE_READS) {
        if (this.#signal?.aborted) throw cancelledError();
        const some = Math.min(SAMPLE_READS, runs - first);
        await Promise.all(Array.from({ length: some }, (_, i) => {
          const middle = Math.floor((first + i + 0.5) * rows / runs);
          return read((first + i) * run, Math.min(rows - run, middle), run);
        }));
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
