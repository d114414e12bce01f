/**
 * Owned native objects: a device context, its memory, streams and events. Each is disposed of explicitly (`using`).
 * @module
 */
import { NativeError } from "../errors.ts";
import { AIRK_NOT_READY, AIRK_OK } from "./abi.ts";
import { type Library, type LibraryKind, openLibrary } from "./library.ts";
import { importLibraryPackage } from "./library_lookup.ts";

/** What airk_device_description says of a device. */
export interface DeviceDescription {
  /** The library that opened it. */
  kind: LibraryKind;
  /** Name of the processor or GPU. */
  name: string;
  /** Instruction set or compute capability in use. */
  isa: string;
  /** Threads of the CPU twin, multiprocessors of a GPU. */
  threads: number;
  /** True where a host buffer's address is a device address too, so that nothing has to be copied. */
  unifiedMemory: boolean;
  /** CUDA version that the driver is for, such as "13.0"; undefined for the CPU twin. */
  driver?: string;
}

/** Options of {@linkcode Context.open}. */
export interface ContextOptions {
  kind?: LibraryKind;
  device?: number;
  /** Worker threads of the CPU twin; 0 for one a core. */
  threads?: number;
  /** Best instruction set the CPU twin may use; for tests and comparisons. */
  isa?: "portable" | "avx2" | "avx512" | "amx";
}

/** A run of device memory. */
export interface DeviceSpan extends Disposable {
  readonly address: bigint;
  readonly bytes: number;
}

/** What gives out device memory: a {@linkcode Context}, or a {@linkcode DeviceArena}. */
export interface DeviceAllocator {
  deviceBuffer(bytes: number): DeviceSpan;
}

const decoder = new TextDecoder();

/** Decodes a NUL-terminated text. */
function text(bytes: Uint8Array): string {
  const end = bytes.indexOf(0);
  return decoder.decode(bytes.subarray(0, end < 0 ? bytes.length : end));
}

/** Encodes a NUL-terminated text. */
function cString(value: string): Uint8Array<ArrayBuffer> {
  return new TextEncoder().encode(value + "\0");
}

/** One device: the funnel from native status to exception, and the maker of memory, streams and events. */
export class Context implements Disposable, DeviceAllocator {
  readonly library: Library;
  readonly description: DeviceDescription;
  #handle: Deno.PointerValue;
  readonly #out = new BigUint64Array(2);
  readonly #formats = new Map<string, number>();

  private constructor(library: Library, handle: Deno.PointerValue) {
    this.library = library;
    this.#handle = handle;
    const json = new Uint8Array(4096);
    this.check(library.symbols.airk_device_description(handle, json, BigInt(json.length)), "describe the device");
    this.description = JSON.parse(text(json));
  }

  /**
   * Opens a device as {@linkcode Context.open} does, and imports the package of its library first where no other place has one.
   * @throws {NativeError} where the library or the device cannot be used.
   */
  static async load(options: ContextOptions = {}): Promise<Context> {
    await importLibraryPackage(options.kind ?? "cpu");
    return Context.open(options);
  }

  /**
   * Opens a device.
   * @throws {NativeError} where the library or the device cannot be used.
   */
  static open(options: ContextOptions = {}): Context {
    const library = openLibrary(options.kind ?? "cpu");
    const out = new BigUint64Array(1);
    const message = new Uint8Array(1024);
    const status = library.symbols.airk_context_create(
      options.device ?? 0,
      options.threads ?? 0,
      cString(options.isa ? `isa=${options.isa}` : ""),
      out,
      message,
      BigInt(message.length),
    );
    if (status !== AIRK_OK) throw new NativeError(text(message), status);
    return new Context(library, Deno.UnsafePointer.create(out[0]));
  }

  /** Returns how many devices a library has; 0 where there is no driver or no device. @throws {NativeError} where the library cannot be used. */
  static deviceCount(kind: LibraryKind): number {
    const count = new Int32Array(1);
    openLibrary(kind).symbols.airk_device_count(count);
    return count[0];
  }

  /** The native handle, for calls made within `lib/ffi`. */
  get handle(): Deno.PointerValue {
    if (this.#handle === null) throw new NativeError("Cannot use the device: its context is closed");
    return this.#handle;
  }

  /**
   * Turns a status into an exception with the native error's text.
   * @throws {NativeError} for every status but AIRK_OK.
   */
  check(status: number, action: string): void {
    if (status === AIRK_OK) return;
    const message = new Uint8Array(1024);
    this.library.symbols.airk_error_message(this.#handle, message, BigInt(message.length));
    const reason = text(message) || `native status ${status}`;
    // The library's own words mostly are the whole sentence.
    throw new NativeError(reason.startsWith("Cannot ") ? reason : `Cannot ${action}: ${reason}`, status);
  }

  /** Returns the id of a weight format, for this library alone. */
  formatId(name: string): number {
    let id = this.#formats.get(name);
    if (id === undefined) {
      const out = new Int32Array(1);
      const status = this.library.symbols.airk_format_id(cString(name), out);
      if (status !== AIRK_OK) throw new NativeError(`Cannot use weight format "${name}": this library does not know it`, status);
      this.#formats.set(name, id = out[0]);
    }
    return id;
  }

  /** Returns free and total device memory in bytes. */
  memoryInfo(): { freeBytes: number; totalBytes: number } {
    const free = new BigUint64Array(1), total = new BigUint64Array(1);
    this.check(this.library.symbols.airk_memory_info(this.handle, free, total), "read the device's memory");
    return { freeBytes: Number(free[0]), totalBytes: Number(total[0]) };
  }

  /** Sets or clears the cancel flag that stops queued work and quantizers early. */
  cancel(cancelled: boolean): void {
    this.check(this.library.symbols.airk_context_cancel(this.handle, cancelled ? 1 : 0), "cancel");
  }

  /** Reserves memory that files are read into and devices copy from: zero-filled, 4096-aligned. Other work goes on while it is touched. */
  async hostBuffer(bytes: number): Promise<HostBuffer> {
    // Its own, since other calls may come before this one ends.
    const out = new BigUint64Array(1);
    this.check(
      await this.library.symbols.airk_host_alloc(this.handle, BigInt(bytes), out),
      `reserve ${bytes} bytes of host memory`,
    );
    return new HostBuffer(this, out[0], bytes);
  }

  /** Reserves device memory, 4096-aligned. */
  deviceBuffer(bytes: number): DeviceBuffer {
    this.check(
      this.library.symbols.airk_device_alloc(this.handle, BigInt(bytes), this.#out),
      `reserve ${bytes} bytes of device memory`,
    );
    return new DeviceBuffer(this, this.#out[0], bytes);
  }

  /** Creates an in-order queue of operations. */
  stream(): Stream {
    this.check(this.library.symbols.airk_stream_create(this.handle, this.#out), "create a stream");
    return new Stream(this, Deno.UnsafePointer.create(this.#out[0]));
  }

  /** Creates an event. */
  event(): Event {
    this.check(this.library.symbols.airk_event_create(this.handle, this.#out), "create an event");
    return new Event(this, Deno.UnsafePointer.create(this.#out[0]));
  }

  [Symbol.dispose](): void {
    if (this.#handle === null) return;
    this.library.symbols.airk_context_destroy(this.#handle);
    this.#handle = null;
  }
}

/** Host memory that JavaScript sees as one ArrayBuffer and the device can copy from. */
export class HostBuffer implements Disposable {
  readonly #context: Context;
  #buffer: ArrayBuffer;
  #freed = false;
  constructor(context: Context, readonly address: bigint, readonly bytes: number) {
    this.#context = context;
    const pointer = Deno.UnsafePointer.create(address);
    if (pointer === null) throw new NativeError("Cannot view host memory: its address is null");
    this.#buffer = Deno.UnsafePointerView.getArrayBuffer(pointer, bytes) as ArrayBuffer;
  }

  /** The memory as an ArrayBuffer, made once; detached when the memory is freed. */
  get buffer(): ArrayBuffer {
    return this.#buffer;
  }

  /** Returns a byte view of a part. */
  view(offset = 0, bytes: number = this.bytes - offset): Uint8Array<ArrayBuffer> {
    return new Uint8Array(this.#buffer, offset, bytes);
  }

  [Symbol.dispose](): void {
    if (this.#freed) return;
    this.#freed = true;
    // A view used after the free would kill the process; detaching turns that into an exception.
    this.#buffer = this.#buffer.transfer(0);
    this.#context.library.symbols.airk_host_free(this.#context.handle, Deno.UnsafePointer.create(this.address));
  }
}

/** Device memory, known by its address. */
export class DeviceBuffer implements DeviceSpan {
  readonly #context: Context;
  #freed = false;
  constructor(context: Context, readonly address: bigint, readonly bytes: number) {
    this.#context = context;
  }

  [Symbol.dispose](): void {
    if (this.#freed) return;
    this.#freed = true;
    this.#context.library.symbols.airk_device_free(this.#context.handle, this.address);
  }
}

/** An in-order queue of operations. */
export class Stream implements Disposable {
  #handle: Deno.PointerValue;
  constructor(readonly context: Context, handle: Deno.PointerValue) {
    this.#handle = handle;
  }

  /** The native handle, for calls made within `lib/ffi`. */
  get handle(): Deno.PointerValue {
    if (this.#handle === null) throw new NativeError("Cannot use the stream: it is closed");
    return this.#handle;
  }

  /** Waits for all work enqueued so far. */
  async synchronize(): Promise<void> {
    this.context.check(await this.context.library.symbols.airk_stream_synchronize(this.handle), "finish the stream's work");
  }

  /**
   * Gives the stream, on which nothing was enqueued yet, memory for what operations of the CUDA library keep between their kernels: they take no
   * other from then on.
   */
  setScratch({ address, bytes }: DeviceSpan): void {
    this.context.check(
      this.context.library.symbols.airk_stream_set_scratch(this.handle, address, BigInt(bytes)),
      "give a stream scratch memory",
    );
  }

  /** Makes later work of this stream wait for an event. */
  wait(event: Event): void {
    this.context.check(this.context.library.symbols.airk_stream_wait_event(this.handle, event.handle), "wait for an event");
  }

  [Symbol.dispose](): void {
    if (this.#handle === null) return;
    this.context.library.symbols.airk_stream_destroy(this.#handle);
    this.#handle = null;
  }
}

/** A point in a stream that can be waited for. */
export class Event implements Disposable {
  #handle: Deno.PointerValue;
  constructor(readonly context: Context, handle: Deno.PointerValue) {
    this.#handle = handle;
  }

  /** The native handle, for calls made within `lib/ffi`. */
  get handle(): Deno.PointerValue {
    if (this.#handle === null) throw new NativeError("Cannot use the event: it is closed");
    return this.#handle;
  }

  /** Marks the work enqueued on a stream so far. */
  record(stream: Stream): void {
    this.context.check(this.context.library.symbols.airk_event_record(this.handle, stream.handle), "record an event");
  }

  /** Returns whether the marked work is done, without waiting. */
  query(): boolean {
    const status = this.context.library.symbols.airk_event_query(this.handle);
    if (status === AIRK_NOT_READY) return false;
    this.context.check(status, "run queued operations");
    return true;
  }

  /** Waits for the marked work. Holds a thread of Deno's pool meanwhile, so keep few of these under way. */
  async synchronize(): Promise<void> {
    this.context.check(await this.context.library.symbols.airk_event_synchronize(this.handle), "run queued operations");
  }

  /** Returns the milliseconds from this event to a later one; both must have been reached. */
  elapsedMs(stop: Event): number {
    const ms = new Float32Array(1);
    this.context.check(this.context.library.symbols.airk_event_elapsed(this.handle, stop.handle, ms), "time events");
    return ms[0];
  }

  [Symbol.dispose](): void {
    if (this.#handle === null) return;
    this.context.library.symbols.airk_event_destroy(this.#handle);
    this.#handle = null;
  }
}
