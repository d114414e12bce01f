/**
 * One reservation of device memory for everything that a model keeps there.
 * @module
 */
import type { Context, DeviceAllocator, DeviceBuffer, DeviceSpan } from "./context.ts";

const ALIGNMENT = 4096;

/** Returns the bytes that a part takes of an arena. */
export function arenaBytes(bytes: number): number {
  return Math.ceil(bytes / ALIGNMENT) * ALIGNMENT;
}

/** Device memory that is reserved once and cut into parts, which live as long as it does. */
export class DeviceArena implements DeviceAllocator, Disposable {
  readonly #buffer: DeviceBuffer;
  #usedBytes = 0;

  /**
   * Reserves `bytes`, rounded up to whole pages.
   * @throws {NativeError} where the device has not so much.
   */
  constructor(context: Context, bytes: number) {
    this.#buffer = context.deviceBuffer(arenaBytes(bytes));
  }

  /** Bytes reserved. */
  get bytes(): number {
    return this.#buffer.bytes;
  }

  /** Returns the next part, 4096-aligned. */
  deviceBuffer(bytes: number): DeviceSpan {
    const offset = this.#usedBytes;
    if (offset + bytes > this.bytes) {
      throw new Error(`Cannot cut ${bytes} bytes from an arena: ${this.bytes - offset} of ${this.bytes} are left`);
    }
    this.#usedBytes += arenaBytes(bytes);
    return { address: this.#buffer.address + BigInt(offset), bytes, [Symbol.dispose]: () => {} };
  }

  [Symbol.dispose](): void {
    this.#buffer[Symbol.dispose]();
  }
}
