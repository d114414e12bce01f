/**
 * Matrices of four-bit floats (e2m1), two a byte, the even column low: NVFP4, whose 16 columns share an e4m3 scale and all a float32, and MXFP4,
 * whose 32 columns share a power of two.
 * @module
 */
import type { Checkpoint, CheckpointTensor } from "../checkpoint/checkpoint.ts";
import { readByteRows, spreadRows } from "./byte_rows.ts";
import type { Companions, EncodedTensor } from "./encoding.ts";
import { codeRowBytes, fromLowFirst } from "./nibbles.ts";

/** The tensors of a matrix or of a stack of them, whose shapes were checked. */
export interface Fp4Tensors {
  /** Of bytes: [n, rows, cols / 2], or turned [n, cols / 2, rows]. */
  codes: CheckpointTensor;
  /** [n, rows, groups], or turned [n, groups, rows]. */
  scale: CheckpointTensor;
  /** Whether both lie turned. */
  turned?: boolean;
}

/** Returns the shape of a matrix or a stack of them whose bytes hold two codes each. */
export function fp4Shape({ codes, turned = false }: Fp4Tensors): number[] {
  return codes.shape.map((n, i) => i === codes.shape.length - (turned ? 2 : 1) ? 2 * n : n);
}

/** Fills the codes of rows, from one row of a section on. */
async function readCodes(
  checkpoint: Checkpoint,
  { codes, turned = false }: Fp4Tensors,
  cols: number,
  firstRow: number,
  count: number,
  section: Uint8Array<ArrayBuffer>,
  atRow: number,
): Promise<void> {
  const packed = await readByteRows(checkpoint, codes, turned, firstRow, count), rowBytes = codeRowBytes(cols);
  for (let row = 0; row < count; row++) {
    const into = section.subarray((atRow + row) * rowBytes, (atRow + row + 1) * rowBytes);
    fromLowFirst(packed.subarray(row * cols / 2, (row + 1) * cols / 2), cols, into);
  }
}

/**
 * Returns a matrix of NVFP4, or a stack of them.
 * @param global One number for all, or one a matrix.
 * @param format Whether scales are divided by it, or multiplied.
 */
export function nvfp4Tensor(
  checkpoint: Checkpoint,
  name: string,
  encoding: string,
  tensors: Fp4Tensors,
  global: CheckpointTensor,
  format: "nvfp4" | "nvfp4-product",
  companions: Companions,
): EncodedTensor {
  const shape = fp4Shape(tensors), { scale, turned = false } = tensors;
  const [rows, cols] = turned ? [shape.at(-1)!, shape.at(-2)!] : shape.slice(-2);
  const groups = cols / 16, rowScales = Math.ceil(cols / 32) * 2;
  return {
    ...{ name, encoding, shape, turned, parts: companions.parts },
    cut: () => ({
      format,
      async read(firstRow, count, [globalSection, scales, codes], atRow) {
        const matrix = global.bytes === 4 ? 0 : Math.floor(firstRow / rows);
        const [packed] = await Promise.all([
          readByteRows(checkpoint, scale, turned, firstRow, count),
          checkpoint.read(global, matrix * 4, globalSection),
          readCodes(checkpoint, tensors, cols, firstRow, count, codes, atRow),
        ]);
        spreadRows(packed, groups, scales, rowScales, atRow);
      },
    }),
  };
}

/** Returns a matrix of MXFP4. */
export function mxfp4Tensor(
  checkpoint: Checkpoint,
  name: string,
  encoding: string,
  tensors: Fp4Tensors,
  companions: Companions,
): EncodedTensor {
  const shape = fp4Shape(tensors), [, cols] = shape, groups = cols / 32;
  return {
    ...{ name, encoding, shape, parts: companions.parts },
    cut: () => ({
      format: "mxfp4",
      async read(firstRow, count, [scales, codes], atRow) {
        await Promise.all([
          checkpoint.read(tensors.scale, firstRow * groups, scales.subarray(atRow * groups, (atRow + count) * groups)),
          readCodes(checkpoint, tensors, cols, firstRow, count, codes, atRow),
        ]);
      },
    }),
  };
}
