/**
 * The memory that extents are read into and computed from. This is the one place that knows how the two are related: where a device
 * has memory of its own, the copy between them belongs here.
 * @module
 */
import { UnsupportedError } from "../errors.ts";
import type { Context, HostBuffer } from "../ffi/context.ts";

/** A run of slots in host memory that the device reads in place. */
export class SlotMemory implements Disposable {
  readonly bytes: number;
  readonly #buffer: HostBuffer | undefined;

  /**
   * Reserves `bytes` of aligned memory; none for 0.
   * @throws {UnsupportedError} for a device that cannot compute from host memory.
   */
  constructor(context: Context, bytes: number) {
    if (!context.description.unifiedMemory) {
      throw new UnsupportedError(
        `Cannot stream to ${context.description.name}: only devices that share the host's memory are supported`,
      );
    }
    this.bytes = bytes;
    this.#buffer = bytes > 0 ? context.hostBuffer(bytes) : undefined;
  }

  /** Returns the part that a read fills. */
  target(offset: number, bytes: number): Uint8Array<ArrayBuffer> {
    return this.#buffer!.view(offset, bytes);
  }

  /** Returns the address that operations take. */
  deviceAddress(offset: number): bigint {
    return this.#buffer!.address + BigInt(offset);
  }

  [Symbol.dispose](): void {
    this.#buffer?.[Symbol.dispose]();
  }
}
