/**
 * Measures the kernels and copies of a device with memory of its own, each against a ceiling taken just before it.
 * @module
 */
import { Context, type DeviceBuffer, type Event, type Stream } from "../../lib/ffi/context.ts";
import { measurePeakFlops } from "../../lib/ffi/measure.ts";
import { Ops, type WeightExtent } from "../../lib/ffi/ops.ts";
import { extentBytes } from "../../lib/shard/formats.ts";
import type { WeightFormatName } from "../../lib/shard/manifest.ts";
import { fillExtent, outliersPerRow, RandomBytes } from "../synthesize/extent.ts";

/** Sizes that a run is made with. */
export interface GpuSizes {
  /** Rows and columns of the matrices that one token is multiplied by. */
  gemv: [number, number][];
  /** Rows and columns of the matrices that many tokens are multiplied by. */
  matmul: [number, number][];
  matmulTokens: number;
  /** Distinct weights that one pass walks through: more than a device's caches hold. */
  workingSetBytes: number;
  /** Bytes of the copies that are ceilings. */
  copyBytes: number;
  /** Bytes of an extent as it streams, and how many slots it streams into. */
  extentBytes: number;
  slots: number;
}

/** Measured passes; the fastest counts. One before them warms up. */
const PASSES = 5;

/** A device under measurement: streams, events and memory, freed together. */
export class GpuBench implements Disposable {
  readonly context: Context;
  readonly #resources: DisposableStack;
  readonly #stream: Stream;
  readonly #start: Event;
  readonly #stop: Event;
  readonly #random = new RandomBytes(1);

  constructor(readonly sizes: GpuSizes, device = 0) {
    using resources = new DisposableStack();
    this.context = resources.use(Context.open({ kind: "cuda", device }));
    this.#stream = resources.use(this.context.stream());
    this.#start = resources.use(this.context.event());
    this.#stop = resources.use(this.context.event());
    this.#resources = resources.move();
  }

  /** Returns the seconds of the fastest pass, by the device's own clock. */
  async #seconds(enqueue: (ops: Ops) => void): Promise<number> {
    const ops = new Ops(this.#stream);
    let fastest = Infinity;
    for (let pass = 0; pass <= PASSES; pass++) {
      this.#start.record(this.#stream);
      enqueue(ops);
      this.#stop.record(this.#stream);
      await this.#stream.synchronize();
      if (pass > 0) fastest = Math.min(fastest, this.#start.elapsedMs(this.#stop) / 1000);
    }
    return fastest;
  }

  /** Returns bytes a second that copies within the device move, read and written bytes together. */
  async deviceCopyBytesPerSecond(): Promise<number> {
    const { copyBytes } = this.sizes;
    using from = this.context.deviceBuffer(copyBytes);
    using to = this.context.deviceBuffer(copyBytes);
    return 2 * copyBytes / await this.#seconds((ops) => ops.copyOnDevice(to.address, from.address, copyBytes));
  }

  /** Returns bytes a second of one plain copy from page-locked memory. */
  async hostCopyBytesPerSecond(): Promise<number> {
    const { copyBytes } = this.sizes;
    using from = await this.context.hostBuffer(copyBytes);
    using to = this.context.deviceBuffer(copyBytes);
    return copyBytes / await this.#seconds((ops) => ops.copyToDevice(to.address, from.address, copyBytes));
  }

  /**
   * Returns bytes a second of a copy stream that brings extents into a ring of slots, while a second stream waits for each and gives its slot
   * back: what streaming a model does, without disk and products.
   */
  async extentCopyBytesPerSecond(): Promise<number> {
    const { copyBytes, extentBytes, slots } = this.sizes;
    using resources = new DisposableStack();
    const host = resources.use(await this.context.hostBuffer(slots * extentBytes));
    const device = resources.use(this.context.deviceBuffer(slots * extentBytes));
    const compute = resources.use(this.context.stream());
    const ring = Array.from({ length: slots }, (_, slot) => ({
      offset: BigInt(slot * extentBytes),
      loaded: resources.use(this.context.event()),
      used: resources.use(this.context.event()),
    }));
    const computeOps = new Ops(compute);
    const count = Math.ceil(copyBytes / extentBytes);
    const seconds = await this.#seconds((ops) => {
      for (let i = 0; i < count; i++) {
        const { offset, loaded, used } = ring[i % slots];
        this.#stream.wait(used);
        ops.copyToDevice(device.address + offset, host.address + offset, extentBytes);
        loaded.record(this.#stream);
        compute.wait(loaded);
        computeOps.fill(device.address + offset, 0, 1);
        used.record(compute);
      }
    });
    return count * extentBytes / seconds;
  }

  /** Returns bytes a second of weights while one token is multiplied by matrices that lie in device memory. */
  async gemvBytesPerSecond(format: WeightFormatName, rows: number, cols: number): Promise<number> {
    const count = Math.ceil(this.sizes.workingSetBytes / this.#extentBytes(format, rows, cols));
    using weights = await this.#weights(format, rows, cols, count);
    using x = await this.#activations(cols);
    using y = this.context.deviceBuffer(rows * 4);
    const seconds = await this.#seconds((ops) => {
      for (const weight of weights.extents) ops.matmul(y.address, rows, x.address, cols, 1, weight, 0n, false, "fast");
    });
    return count * this.#extentBytes(format, rows, cols) / seconds;
  }

  /** Returns FLOP/s of a product of many tokens with one matrix. */
  async matmulFlopsPerSecond(format: WeightFormatName, rows: number, cols: number): Promise<number> {
    const tokens = this.sizes.matmulTokens;
    using weights = await this.#weights(format, rows, cols, 1);
    using x = await this.#activations(tokens * cols);
    using y = this.context.deviceBuffer(tokens * rows * 4);
    const [weight] = weights.extents;
    const seconds = await this.#seconds((ops) => ops.matmul(y.address, rows, x.address, cols, tokens, weight, 0n, false, "fast"));
    return 2 * tokens * rows * cols / seconds;
  }

  /** Returns the peak FLOP/s of the tensor cores, as airk_measure_peak finds it. */
  async tensorPeakFlopsPerSecond(): Promise<number> {
    return await measurePeakFlops(this.context, "fast");
  }

  #extentBytes(format: WeightFormatName, rows: number, cols: number): number {
    return extentBytes(format, rows, cols, rows * outliersPerRow(format, cols));
  }

  /** Brings bytes to the device. */
  async #upload(bytes: Uint8Array, to: bigint): Promise<void> {
    const ops = new Ops(this.#stream);
    using staging = await this.context.hostBuffer(Math.min(bytes.length, 64 << 20));
    for (let offset = 0; offset < bytes.length; offset += staging.bytes) {
      const part = bytes.subarray(offset, offset + staging.bytes);
      staging.view(0, part.length).set(part);
      ops.copyToDevice(to + BigInt(offset), staging.address, part.length);
      await this.#stream.synchronize();
    }
  }

  /** Returns f32 activations on the device. */
  async #activations(count: number): Promise<DeviceBuffer> {
    const values = Float32Array.from({ length: count }, (_, i) => Math.sin(i));
    const memory = this.context.deviceBuffer(values.byteLength);
    await this.#upload(new Uint8Array(values.buffer), memory.address);
    return memory;
  }

  /** Makes one matrix of random weights and as many copies of it on the device as are wanted. */
  async #weights(
    format: WeightFormatName,
    rows: number,
    cols: number,
    count: number,
  ): Promise<Disposable & { extents: WeightExtent[] }> {
    const bytes = this.#extentBytes(format, rows, cols);
    const extent = new Uint8Array(bytes);
    if (format === "bf16") fillBf16(extent, this.#random);
    else fillExtent(extent, format, rows, cols, 1 / Math.sqrt(cols), this.#random);
    const stride = Math.ceil(bytes / 4096) * 4096;
    const memory = this.context.deviceBuffer(stride * count);
    await this.#upload(extent, memory.address);
    const ops = new Ops(this.#stream);
    const extents = Array.from({ length: count }, (_, i): WeightExtent => {
      const address = memory.address + BigInt(i * stride);
      if (i > 0) ops.copyOnDevice(address, memory.address, bytes);
      const outliers = BigInt(rows * outliersPerRow(format, cols));
      return {
        format: this.context.formatId(format),
        address,
        bytes: BigInt(bytes),
        rows: BigInt(rows),
        cols: BigInt(cols),
        outliers,
      };
    });
    await this.#stream.synchronize();
    return { extents, [Symbol.dispose]: () => memory[Symbol.dispose]() };
  }

  [Symbol.dispose](): void {
    this.#resources[Symbol.dispose]();
  }
}

/** Fills an extent with bfloat16 numbers of magnitude 2^-7 to 2^-6 and either sign. */
function fillBf16(extent: Uint8Array<ArrayBuffer>, random: RandomBytes): void {
  random.fill(extent);
  const values = new Uint16Array(extent.buffer);
  for (let i = 0; i < values.length; i++) values[i] = values[i] & 0x807f | 0x3c00;
}
