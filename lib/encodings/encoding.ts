/**
 * How checkpoints encode matrices: what every encoding says of itself.
 *
 * An encoding finds its tensors in a checkpoint, checks all of their companions, and names the packed format (cuda/airkern.h) that keeps the
 * same values bit for bit. Nothing is decoded here: the native library dequantizes that format, for computing as for quantizing anew.
 * @module
 */
import type { Checkpoint, CheckpointTensor } from "../checkpoint/checkpoint.ts";
import type { Dtype } from "../checkpoint/safetensors.ts";
import { FormatError, UnsupportedError } from "../errors.ts";
import type { PackedFormatName } from "../shard/packed_formats.ts";

/** An encoded matrix, or a stack of them, under the name that its plain values would have. */
export interface EncodedTensor {
  name: string;
  /** Name of the encoding, for people: `bitsandbytes nf4`. */
  encoding: string;
  /** Shape of the plain values: [rows, cols] or [n, rows, cols]. */
  shape: number[];
  /** Whether rows are stored as the matrix is used although `shape` has it turned, [cols, rows]. */
  turned?: boolean;
  /** The checkpoint's tensors that it is made of. */
  parts: readonly CheckpointTensor[];
  /**
   * Returns the matrix in the format that keeps it.
   * @param unitRows Rows are read in runs that start on a multiple of this and, but for the last, hold a multiple of it, counted through the
   * stack; 0 where the tensor is read whole, in order.
   * @throws {UnsupportedError} where the encoding's blocks cannot be cut there.
   */
  cut(unitRows: number): EncodedMatrix;
}

/** An encoded matrix in the format that keeps it. */
export interface EncodedMatrix {
  format: PackedFormatName;
  /**
   * Fills rows of an extent's sections.
   * @param firstRow Row of the tensor, counted through the stack.
   * @param sections All sections of the extent, in the order of cuda/airkern.h, zero-filled.
   * @param atRow Row of the extent that the first one becomes. It is followed by no others where it is not a multiple of the format's unit.
   */
  read(firstRow: number, rows: number, sections: readonly Uint8Array<ArrayBuffer>[], atRow: number): Promise<void>;
}

/** Finds the tensors of one encoding. */
export interface Encoding {
  /** Names that `quantization_config.quant_method` has for it. */
  methods: readonly string[];
  /**
   * Returns its tensors in the checkpoint.
   * @param config The `quantization_config`.
   * @throws {FormatError} for a companion tensor that is missing or not as it must be.
   * @throws {UnsupportedError} for a setting that is not known.
   */
  find(checkpoint: Checkpoint, config: Record<string, unknown>): Promise<EncodedTensor[]>;
  /** Returns why a tensor that belongs to none of those is not needed; undefined where it is not one of the encoding's. */
  needlessTensorReason?(name: string): string | undefined;
}

/** Returns why what some tools add for a quantized KV cache is not needed; undefined for other tensors. */
export function cacheScaleReason(name: string): string | undefined {
  const isOne = /\.(k|v|kv)_(scale|bias|zero_point|global_scale)$/.test(name);
  return isOne ? "belongs to a quantized KV cache, whose type is chosen when a model is opened" : undefined;
}

/** Reads companions of one tensor, each checked. */
export class Companions {
  readonly #checkpoint: Checkpoint;
  readonly #subject: string;
  readonly parts: CheckpointTensor[] = [];

  /** @param subject Name of the tensor that they belong to, for messages. */
  constructor(checkpoint: Checkpoint, subject: string) {
    this.#checkpoint = checkpoint;
    this.#subject = subject;
  }

  /** All of the checkpoint's tensors. */
  get tensors(): ReadonlyMap<string, CheckpointTensor> {
    return this.#checkpoint.tensors;
  }

  /** Returns the error for a checkpoint that contradicts itself. */
  refuse(reason: string): FormatError {
    return new FormatError(`Cannot use model ${this.#checkpoint.path}: tensor ${JSON.stringify(this.#subject)} ${reason}`);
  }

  /** Returns the error for what this program does not know. */
  unsupported(reason: string): UnsupportedError {
    return new UnsupportedError(`Cannot use model ${this.#checkpoint.path}: tensor ${JSON.stringify(this.#subject)} ${reason}`);
  }

  /** Takes a companion where it is there. */
  take(name: string): CheckpointTensor | undefined {
    const tensor = this.#checkpoint.tensors.get(name);
    if (tensor !== undefined) this.parts.push(tensor);
    return tensor;
  }

  /**
   * Takes a companion that must be there, of one of some types and shapes.
   * @param shapes What it may have; none where any will do.
   */
  required(name: string, dtypes: readonly Dtype[], ...shapes: number[][]): CheckpointTensor {
    const tensor = this.take(name);
    if (tensor === undefined) throw this.refuse(`lacks its companion ${JSON.stringify(name)}`);
    return this.checked(tensor, dtypes, ...shapes);
  }

  /** Returns a tensor whose type and shape are as they must be. */
  checked(tensor: CheckpointTensor, dtypes: readonly Dtype[], ...shapes: number[][]): CheckpointTensor {
    const fits = shapes.length === 0 ||
      shapes.some((shape) => shape.length === tensor.shape.length && shape.every((n, i) => n === tensor.shape[i]));
    if (fits && dtypes.includes(tensor.dtype)) return tensor;
    const required = shapes.length === 0 ? "" : ` ${shapes.map((shape) => `[${shape.join(", ")}]`).join(" or ")}`;
    throw this.refuse(
      `has a companion ${JSON.stringify(tensor.name)} of ${tensor.dtype} [${tensor.shape.join(", ")}], required ${
        dtypes.join(" or ")
      }${required}`,
    );
  }

  /** Reads a whole companion; of a checkpoint on the hub no more than it, since a plan needs no weights. */
  async read(tensor: CheckpointTensor): Promise<Uint8Array<ArrayBuffer>> {
    const bytes = new Uint8Array(tensor.bytes);
    await this.#checkpoint.peek(tensor, 0, bytes);
    return bytes;
  }
}

/** Returns the elements of a tensor of a floating-point type as float32; the conversions are exact. */
export function floatsOf(bytes: Uint8Array<ArrayBuffer>, dtype: Dtype): Float32Array<ArrayBuffer> {
  const { buffer, byteOffset, byteLength } = bytes;
  if (dtype === "F32") return new Float32Array(buffer, byteOffset, byteLength / 4);
  if (dtype === "F16") return Float32Array.from(new Float16Array(buffer, byteOffset, byteLength / 2));
  if (dtype === "BF16") {
    const halves = new Uint16Array(buffer, byteOffset, byteLength / 2), bits = new Uint32Array(halves.length);
    for (let i = 0; i < halves.length; i++) bits[i] = halves[i] << 16;
    return new Float32Array(bits.buffer);
  }
  if (dtype === "F8_E8M0" || dtype === "U8") {
    return Float32Array.from(bytes, (exponent) => exponent === 255 ? NaN : 2 ** (exponent - 127));
  }
  throw new RangeError(`Cannot read ${dtype} as numbers`);
}

/** Returns the largest power of two that divides both; 0 counts as divisible by all. */
export function commonPower(a: number, b: number): number {
  const power = (n: number) => {
    let two = 1;
    while (n % (two * 2) === 0) two *= 2;
    return two;
  };
  if (a === 0) return power(b);
  return b === 0 ? power(a) : Math.min(power(a), power(b));
}
