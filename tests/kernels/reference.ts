/**
 * What the kernel tests share: seeded random numbers, 16-bit float conversions, error measures, tensors with sentinels around
 * them, and the registration of one test an instruction set. AIRKERN_TEST_KIND names the library under test (default "cpu").
 * @module
 */
import assert from "node:assert/strict";
import { SYMBOLS } from "../../lib/ffi/abi.ts";
import { Context, type ContextOptions, type DeviceBuffer, HostBuffer, type Stream } from "../../lib/ffi/context.ts";
import { type LibraryKind, libraryPath } from "../../lib/ffi/library.ts";
import { Ops } from "../../lib/ffi/ops.ts";

/** The library under test. */
export const TEST_KIND: LibraryKind = (Deno.env.get("AIRKERN_TEST_KIND") ?? "cpu") as LibraryKind;

const WORK = Number(Deno.env.get("AIRKERN_TEST_WORK") ?? 1);

/** Scales the large sizes of a test, for a library that runs slowly: AIRKERN_TEST_WORK (default 1) of the size, odd where it was. */
export function scaled(size: number): number {
  const smaller = Math.floor(size * WORK);
  return smaller % 2 === size % 2 ? smaller : smaller + 1;
}

/**
 * True where every tensor gets memory of its own that ends where the tensor ends, so that a build under AddressSanitizer catches
 * reads and writes past it. Otherwise tensors lie in one buffer between sentinels.
 */
const OWN_MEMORY = Deno.env.get("AIRKERN_TEST_OWN_MEMORY") === "1";

/** A seeded stream of random numbers. */
export interface Random {
  /** Uniform in [0, 1). */
  uniform(): number;
  /** Standard normal. */
  normal(): number;
  /** Uniform integer in [0, below). */
  integer(below: number): number;
  /** count normal numbers times `scale`, rounded to float32. */
  floats(count: number, scale?: number): Float32Array<ArrayBuffer>;
  /** The integers 0 .. count - 1 in random order. */
  permutation(count: number): number[];
}

/** Returns a generator (mulberry32) that repeats for the same seed. */
export function random(seed: number): Random {
  let state = seed >>> 0;
  const uniform = () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
  const normal = () => Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform());
  const integer = (below: number) => Math.floor(uniform() * below);
  return {
    uniform,
    normal,
    integer,
    floats: (count, scale = 1) => Float32Array.from({ length: count }, () => normal() * scale),
    permutation(count) {
      const order = Array.from({ length: count }, (_, i) => i);
      for (let i = count - 1; i > 0; i--) {
        const j = integer(i + 1);
        [order[i], order[j]] = [order[j], order[i]];
      }
      return order;
    },
  };
}

const f32 = new Float32Array(1);
const u32 = new Uint32Array(f32.buffer);

/** Rounds to float16, to nearest even, and returns its bits. */
export function toF16(value: number): number {
  f32[0] = value;
  const sign = (u32[0] >>> 16) & 0x8000;
  const magnitude = Math.abs(f32[0]);
  if (Number.isNaN(magnitude)) return sign | 0x7e00;
  if (magnitude >= 65520) return sign | 0x7c00;
  // Below 2^-14 the spacing is constant; above, it follows the exponent. Both are exact in float64.
  const exponent = magnitude < 2 ** -14 ? -14 : Math.floor(Math.log2(magnitude));
  const scaled = magnitude / 2 ** (exponent - 10);
  let rounded = Math.floor(scaled);
  const rest = scaled - rounded;
  if (rest > 0.5 || (rest === 0.5 && rounded % 2 === 1)) rounded++;
  // A carry out of the mantissa runs into the exponent field, as it must.
  return sign | (magnitude < 2 ** -14 ? rounded : ((exponent + 14) << 10) + rounded);
}

/** Returns the value of float16 bits. */
export function fromF16(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 31;
  const mantissa = bits & 1023;
  if (exponent === 31) return mantissa ? NaN : sign * Infinity;
  return sign * (exponent ? (1024 + mantissa) * 2 ** (exponent - 25) : mantissa * 2 ** -24);
}

/** Rounds to bfloat16, to nearest even, and returns its bits. */
export function toBf16(value: number): number {
  f32[0] = value;
  if (Number.isNaN(value)) return 0x7fc0;
  return ((u32[0] + 0x7fff + ((u32[0] >>> 16) & 1)) >>> 16) & 0xffff;
}

/** Returns the value of bfloat16 bits. */
export function fromBf16(bits: number): number {
  u32[0] = bits << 16;
  return f32[0];
}

/** Returns the squared error over the squared expectation: 0 is exact. NaN where an element is NaN or infinite. */
export function nmse(actual: ArrayLike<number>, expected: ArrayLike<number>): number {
  assert.equal(actual.length, expected.length);
  let error = 0, power = 0;
  for (let i = 0; i < actual.length; i++) {
    error += (actual[i] - expected[i]) ** 2;
    power += expected[i] ** 2;
  }
  return error === 0 ? 0 : error / power;
}

/** Fails unless nmse < tolerance; NaN fails too. */
export function assertClose(
  actual: ArrayLike<number>,
  expected: ArrayLike<number>,
  tolerance: number,
  subject = "result",
): void {
  const error = nmse(actual, expected);
  if (error < tolerance || error === 0) return;
  let worst = 0;
  for (let i = 0; i < actual.length; i++) {
    if (!(Math.abs(actual[i] - expected[i]) <= Math.abs(actual[worst] - expected[worst]))) worst = i;
  }
  assert.fail(
    `${subject}: nmse ${error}, required < ${tolerance}; worst at ${worst}: ${actual[worst]}, expected ${expected[worst]}`,
  );
}

/** Fails unless both hold the same bits. */
export function assertSameBits(actual: Float32Array, expected: Float32Array, subject = "result"): void {
  const a = new Uint32Array(actual.buffer, actual.byteOffset, actual.length);
  const b = new Uint32Array(expected.buffer, expected.byteOffset, expected.length);
  assert.equal(a.length, b.length);
  for (let i = 0; i < a.length; i++) {
    if (a[i] !== b[i]) assert.fail(`${subject}: bits differ at ${i}: ${actual[i]}, expected ${expected[i]}`);
  }
}

type View = Float32Array<ArrayBuffer> | Int32Array<ArrayBuffer> | Uint8Array<ArrayBuffer> | Uint16Array<ArrayBuffer>;

/** A tensor on the device and its image on the host, which {@linkcode Arena.run} keeps in step. */
export interface Tensor<T extends View = View> {
  readonly name: string;
  /** Device address. */
  readonly address: bigint;
  readonly data: T;
}

/**
 * The words 0xffa5: NaN as f32, f16 and bf16, negative as i32, so that a stray read shows in the result. As f32 it is a
 * signalling NaN, which no arithmetic gives back as it was, so that a stray write shows even where it depends on a stray read.
 */
const sentinelByte = (offset: number) => offset & 1 ? 0xff : 0xa5;
const SENTINEL_BYTES = 192;

const HOST_ALLOC = { airk_host_alloc: { ...SYMBOLS.airk_host_alloc, nonblocking: false } } as const;
const blocking = new Map<string, Deno.DynamicLibrary<typeof HOST_ALLOC>>();

/** Reserves host memory while the caller waits, so that a test can name its tensors one after another. */
function hostBufferNow(context: Context, bytes: number): HostBuffer {
  const kind = context.description.kind as LibraryKind;
  let library = blocking.get(kind);
  if (!library) blocking.set(kind, library = Deno.dlopen(libraryPath(kind), HOST_ALLOC));
  const out = new BigUint64Array(1);
  context.check(library.symbols.airk_host_alloc(context.handle, BigInt(bytes), out), `reserve ${bytes} bytes of host memory`);
  return new HostBuffer(context, out[0], bytes);
}

/** Tensors with sentinel bytes around each. */
export class Arena implements Disposable {
  readonly context: Context;
  readonly stream: Stream;
  readonly #capacity: number;
  readonly #blocks: { host: HostBuffer; device?: DeviceBuffer }[] = [];
  readonly #sentinels: { block: number; begin: number; end: number; near: string }[] = [];
  #used = 0;

  /** `capacityBytes` bounds all tensors and their sentinels together. */
  constructor(context: Context, capacityBytes = 16 << 20) {
    this.context = context;
    this.stream = context.stream();
    this.#capacity = capacityBytes;
    if (!OWN_MEMORY) this.#add(capacityBytes);
  }

  #add(bytes: number): number {
    const host = hostBufferNow(this.context, bytes);
    const device = this.context.description.unifiedMemory ? undefined : this.context.deviceBuffer(bytes);
    return this.#blocks.push({ host, device }) - 1;
  }

  #place(bytes: number, name: string): { buffer: ArrayBuffer; offset: number; address: bigint } {
    // 64 past a multiple of 128: aligned as the header asks, and not more than that by luck.
    let block = 0, offset = Math.ceil((this.#used + SENTINEL_BYTES) / 128) * 128 + 64;
    if (OWN_MEMORY) {
      offset = 192;
      block = this.#add(offset + bytes);
    } else if (offset + bytes + SENTINEL_BYTES > this.#capacity) {
      throw new RangeError(`Cannot place ${name}: it ends at ${offset + bytes} bytes, the arena has ${this.#capacity}`);
    }
    const { host, device } = this.#blocks[block];
    const sentinel = (begin: number, end: number) => {
      const bytes = host.view(begin, end - begin);
      for (let i = 0; i < bytes.length; i++) bytes[i] = sentinelByte(begin + i);
      this.#sentinels.push({ block, begin, end, near: name });
    };
    sentinel(offset - SENTINEL_BYTES, offset);
    if (!OWN_MEMORY) sentinel(offset + bytes, offset + bytes + SENTINEL_BYTES);
    this.#used = offset + bytes + SENTINEL_BYTES;
    return { buffer: host.buffer, offset, address: (device ?? host).address + BigInt(offset) };
  }

  /** Places f32 values; a count means as many NaN, for an output. */
  f32(values: ArrayLike<number> | number, name = "f32"): Tensor<Float32Array<ArrayBuffer>> {
    const count = typeof values === "number" ? values : values.length;
    const { buffer, offset, address } = this.#place(count * 4, name);
    const data = new Float32Array(buffer, offset, count);
    if (typeof values === "number") data.fill(NaN);
    else data.set(values);
    return { name, address, data };
  }

  /** Places i32 values; a count means as many -1. */
  i32(values: ArrayLike<number> | number, name = "i32"): Tensor<Int32Array<ArrayBuffer>> {
    const count = typeof values === "number" ? values : values.length;
    const { buffer, offset, address } = this.#place(count * 4, name);
    const data = new Int32Array(buffer, offset, count);
    if (typeof values === "number") data.fill(-1);
    else data.set(values);
    return { name, address, data };
  }

  /** Places 16-bit values (f16 or bf16 bits); a count means as many 0xffff. */
  u16(values: ArrayLike<number> | number, name = "u16"): Tensor<Uint16Array<ArrayBuffer>> {
    const count = typeof values === "number" ? values : values.length;
    const { buffer, offset, address } = this.#place(count * 2, name);
    const data = new Uint16Array(buffer, offset, count);
    if (typeof values === "number") data.fill(0xffff);
    else data.set(values);
    return { name, address, data };
  }

  /** Places bytes; a count means as many 0xff. */
  u8(values: ArrayLike<number> | number, name = "u8"): Tensor<Uint8Array<ArrayBuffer>> {
    const count = typeof values === "number" ? values : values.length;
    const { buffer, offset, address } = this.#place(count, name);
    const data = new Uint8Array(buffer, offset, count);
    if (typeof values === "number") data.fill(0xff);
    else data.set(values);
    return { name, address, data };
  }

  /** Brings the host's images to the device, runs what `enqueue` enqueues, brings all back and checks the sentinels. */
  async run(enqueue: (ops: Ops) => void): Promise<void> {
    const ops = new Ops(this.stream);
    for (const { host, device } of this.#blocks) {
      if (device) ops.copyToDevice(device.address, host.address, host.bytes);
    }
    enqueue(ops);
    for (const { host, device } of this.#blocks) {
      if (device) ops.copyToHost(host.address, device.address, host.bytes);
    }
    await this.stream.synchronize();
    this.check();
  }

  /** Fails where a sentinel byte was overwritten. */
  check(): void {
    for (const { block, begin, end, near } of this.#sentinels) {
      const at = this.#blocks[block].host.view(begin, end - begin).findIndex((byte, i) => byte !== sentinelByte(begin + i));
      if (at >= 0) assert.fail(`stray write beside tensor ${near}, at byte ${at} of the sentinel ${begin}..${end}`);
    }
  }

  [Symbol.dispose](): void {
    this.stream[Symbol.dispose]();
    for (const { host, device } of this.#blocks) {
      device?.[Symbol.dispose]();
      host[Symbol.dispose]();
    }
  }
}

/** Opens the device under test. */
export function openContext(options: Omit<ContextOptions, "kind"> = {}): Context {
  return Context.open({ kind: TEST_KIND, ...options });
}

const ISAS = ["portable", "avx2", "avx512", "amx"] as const;

/** Which instruction sets this machine has, asked once. */
const supported: ReadonlyMap<typeof ISAS[number], boolean> = new Map(
  TEST_KIND !== "cpu" ? [] : ISAS.map((isa) => {
    using context = openContext({ isa, threads: 1 });
    return [isa, context.description.isa === isa];
  }),
);

/** Options of {@linkcode eachIsa}. */
export interface EachIsaOptions {
  /** Threads of the CPU twin; 0 for one a core. */
  threads?: number;
}

/**
 * Registers one test an instruction set of the CPU twin, or one test for another library; what this machine lacks is skipped
 * by a test whose name says so.
 */
export function eachIsa(name: string, run: (context: Context) => void | Promise<void>, options: EachIsaOptions = {}): void {
  if (TEST_KIND !== "cpu") {
    Deno.test(`${name} [${TEST_KIND}]`, async () => {
      using context = openContext();
      await run(context);
    });
    return;
  }
  for (const isa of ISAS) {
    const has = supported.get(isa);
    Deno.test({
      name: `${name} [${isa}]${has ? "" : ` skipped: this machine has no ${isa}`}`,
      ignore: !has,
      fn: async () => {
        using context = openContext({ isa, threads: options.threads ?? 0 });
        await run(context);
      },
    });
  }
}
