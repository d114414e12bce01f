/**
 * Opens the emulated CUDA runtime and the emulator's fixtures, as built by `make emulator`.
 * @module
 */
import { fileURLToPath } from "node:url";

/** The builds of the same sources; each one is loaded by a process of its own. */
export type Tier = "plain" | "race" | "sanitize" | "ptx";

const FOLDERS: Record<Tier, string> = { plain: "build", race: "build/race", sanitize: "build/sanitize", ptx: "build" };

/** Whether nvcc is there: without it `make emulator` skips the PTX tier, and its tests say so. */
export const hasNvcc: boolean = (Deno.env.get("PATH") ?? "").split(":").some((folder) => {
  try {
    return Deno.statSync(`${folder}/nvcc`).isFile;
  } catch {
    return false;
  }
});

/** Returns the path of a file that `make emulator` built, and throws where it is missing. */
export function builtPath(tier: Tier, name: string): string {
  const file = tier === "ptx" && name.startsWith("emulator/") ? name.replace(/(\.so)?$/, "_ptx$1") : name;
  const path = fileURLToPath(new URL(`../../${FOLDERS[tier]}/${file}`, import.meta.url));
  try {
    Deno.statSync(path);
  } catch {
    throw new Error(`Cannot test the CUDA emulator: ${path} is not there; build it with \`make emulator\``);
  }
  return path;
}

const address = "u64", handle = "u64", bytes = "u64", status = "i32", buffer = "buffer";

const RUNTIME = {
  cudaGetDeviceCount: { parameters: [buffer], result: status },
  cudaSetDevice: { parameters: ["i32"], result: status },
  cudaDriverGetVersion: { parameters: [buffer], result: status },
  cudaDeviceGetAttribute: { parameters: [buffer, "i32", "i32"], result: status },
  cudaGetLastError: { parameters: [], result: status },
  cudaMalloc: { parameters: [buffer, bytes], result: status },
  cudaFree: { parameters: [address], result: status },
  cudaMallocHost: { parameters: [buffer, bytes], result: status },
  cudaFreeHost: { parameters: [address], result: status },
  cudaMemGetInfo: { parameters: [buffer, buffer], result: status },
  cudaMemcpy: { parameters: [buffer, address, bytes, "i32"], result: status },
  cudaMemset: { parameters: [address, "i32", bytes], result: status },
  cudaStreamCreateWithFlags: { parameters: [buffer, "u32"], result: status },
  cudaStreamDestroy: { parameters: [handle], result: status },
  cudaStreamSynchronize: { parameters: [handle], result: status },
  cudaStreamQuery: { parameters: [handle], result: status },
  cudaStreamWaitEvent: { parameters: [handle, handle, "u32"], result: status },
  cudaDeviceSynchronize: { parameters: [], result: status },
  cudaEventCreate: { parameters: [buffer], result: status },
  cudaEventDestroy: { parameters: [handle], result: status },
  cudaEventRecord: { parameters: [handle, handle], result: status },
  cudaEventQuery: { parameters: [handle], result: status },
  cudaEventElapsedTime: { parameters: [buffer, handle, handle], result: status },
  emu_configure: { parameters: [buffer], result: status },
  emu_reset: { parameters: [], result: "void" },
  emu_counts: { parameters: [buffer], result: "void" },
  emu_report: { parameters: [buffer, bytes], result: "u64" },
} as const;

const FIXTURES = {
  fixture_rmsnorm: { parameters: [address, address, address, "u64", "u64", "f32", handle], result: status },
  fixture_matmul: { parameters: [address, address, address, "i32", "i32", "i32", "i32", handle], result: status },
  fixture_transpose: { parameters: [address, address, handle], result: status },
  fixture_convert: { parameters: [address, address, address, address, address, "i32", handle], result: status },
  fixture_integers: { parameters: [address, address, address, address, "i32", handle], result: status },
  fixture_half_pairs: { parameters: [address, address, address, address, "i32", handle], result: status },
  fixture_warp_operations: { parameters: [address, address, handle], result: status },
  fixture_atomics: { parameters: [address, address, address, address, "i32", "i32", handle], result: status },
} as const;

// A second view of one C function, whose host side is an address here and a buffer there.
const UPLOAD = { cudaMemcpy: { parameters: [address, buffer, bytes, "i32"], result: status } } as const;

/** Numbers that the CUDA API gives a name to. */
export const Cuda = {
  success: 0,
  invalidValue: 1,
  memoryAllocation: 2,
  insufficientDriver: 35,
  noDevice: 100,
  invalidDevice: 101,
  invalidResourceHandle: 400,
  notReady: 600,
  launchFailure: 719,
  streamNonBlocking: 1,
} as const;

const HOST_TO_DEVICE = 1, DEVICE_TO_HOST = 2;
const text = new TextEncoder();

type HostArray =
  | Float32Array<ArrayBuffer>
  | Uint16Array<ArrayBuffer>
  | Int32Array<ArrayBuffer>
  | Uint32Array<ArrayBuffer>
  | BigUint64Array<ArrayBuffer>;

/** What exists in the emulator, by emu_counts. */
export interface Counts {
  deviceAllocations: number;
  deviceBytes: number;
  devicePeakBytes: number;
  hostAllocations: number;
  hostBytes: number;
  streams: number;
  events: number;
  pendingOperations: number;
  unpinnedCopies: number;
  reportLines: number;
}

/** The emulated runtime with helpers that throw on an error; `symbols` are the bare functions. */
export class Emulator implements Disposable {
  readonly #runtime: Deno.DynamicLibrary<typeof RUNTIME>;
  readonly #upload: Deno.DynamicLibrary<typeof UPLOAD>;
  readonly #fixtures: Deno.DynamicLibrary<typeof FIXTURES>;

  constructor(tier: Tier = "plain", settings = "") {
    const path = builtPath(tier, "libcudart_emu.so");
    this.#runtime = Deno.dlopen(path, RUNTIME);
    this.#upload = Deno.dlopen(path, UPLOAD);
    this.#fixtures = Deno.dlopen(builtPath(tier, "emulator/libfixtures.so"), FIXTURES);
    this.symbols.emu_reset();
    this.configure(`quiet=1${settings && ","}${settings}`);
  }

  get symbols(): Deno.DynamicLibrary<typeof RUNTIME>["symbols"] {
    return this.#runtime.symbols;
  }
  get fixtures(): Deno.DynamicLibrary<typeof FIXTURES>["symbols"] {
    return this.#fixtures.symbols;
  }

  configure(settings: string): void {
    if (this.symbols.emu_configure(text.encode(settings + "\0")) !== 0) throw new Error(this.report());
  }

  /** Calls a function that writes a 64-bit handle or address, and returns both status and value. */
  create(call: (out: BigUint64Array<ArrayBuffer>) => number): { status: number; value: bigint } {
    const out = new BigUint64Array(1);
    const status = call(out);
    return { status, value: out[0] };
  }

  malloc(bytes: number): bigint {
    const { status, value } = this.create((out) => this.symbols.cudaMalloc(out, BigInt(bytes)));
    if (status !== 0) throw new Error(`cudaMalloc of ${bytes} bytes: error ${status}`);
    return value;
  }

  upload(data: HostArray): bigint {
    const to = this.malloc(data.byteLength);
    const status = this.#upload.symbols.cudaMemcpy(to, data, BigInt(data.byteLength), HOST_TO_DEVICE);
    if (status !== 0) throw new Error(`cudaMemcpy to the device: error ${status}\n${this.report()}`);
    return to;
  }

  download<T extends HostArray>(from: bigint, to: T): T {
    const status = this.symbols.cudaMemcpy(to, from, BigInt(to.byteLength), DEVICE_TO_HOST);
    if (status !== 0) throw new Error(`cudaMemcpy to the host: error ${status}\n${this.report()}`);
    return to;
  }

  counts(): Counts {
    const out = new BigUint64Array(10);
    this.symbols.emu_counts(out);
    const [
      deviceAllocations,
      deviceBytes,
      devicePeakBytes,
      hostAllocations,
      hostBytes,
      streams,
      events,
      pendingOperations,
      unpinnedCopies,
      reportLines,
    ] = Array.from(out, Number);
    return {
      deviceAllocations,
      deviceBytes,
      devicePeakBytes,
      hostAllocations,
      hostBytes,
      streams,
      events,
      pendingOperations,
      unpinnedCopies,
      reportLines,
    };
  }

  report(): string {
    const out = new Uint8Array(1 << 16);
    const length = Number(this.symbols.emu_report(out, BigInt(out.length)));
    return new TextDecoder().decode(out.subarray(0, Math.min(length, out.length - 1)));
  }

  [Symbol.dispose](): void {
    this.symbols.emu_reset();
    this.#fixtures.close();
    this.#upload.close();
    this.#runtime.close();
  }
}
