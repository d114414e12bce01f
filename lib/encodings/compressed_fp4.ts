/**
 * Four-bit floats (e2m1) of compressed-tensors: NVFP4 (`nvfp4-pack-quantized`), an e4m3 scale for 16 columns divided by a float32 for the
 * tensor, and MXFP4 (`mxfp4-pack-quantized`), a power of two for 32 columns. `X.weight_packed` has the even element in the low nibble.
 * Source: compressors/nvfp4 and mxfp4.
 * @module
 */
import type { Checkpoint } from "../checkpoint/checkpoint.ts";
import type { WeightScheme } from "./compressed_tensors.ts";
import { Companions, type EncodedTensor } from "./encoding.ts";
import { codeRowBytes, fromLowFirst } from "./nibbles.ts";

interface Parts {
  name: string;
  companions: Companions;
  rows: number;
  cols: number;
  /** Fills the codes of rows, from one row of a section on. */
  readCodes(firstRow: number, rows: number, section: Uint8Array<ArrayBuffer>, atRow: number): Promise<void>;
}

function codesOf(checkpoint: Checkpoint, module: string, schemes: readonly WeightScheme[], group: number): Parts {
  const name = `${module}.weight`, companions = new Companions(checkpoint, name);
  const packed = companions.required(`${module}.weight_packed`, ["U8"]);
  if (packed.shape.length !== 2) {
    throw companions.refuse(`has packed shape [${packed.shape.join(", ")}], required [rows, cols / 2]`);
  }
  const rows = packed.shape[0], cols = packed.shape[1] * 2;
  const scheme = schemes.find((one) => one.type === "float" && one.bits === 4 && one.groupSize === group);
  if (scheme === undefined || !scheme.symmetric || cols % group !== 0) {
    throw companions.unsupported(
      `has 4-bit floats of ${cols} columns without a symmetric scheme of groups of ${group} that divide them`,
    );
  }
  companions.take(`${module}.input_global_scale`);
  const readCodes: Parts["readCodes"] = async (firstRow, count, section, atRow) => {
    const codes = new Uint8Array(count * cols / 2), rowBytes = codeRowBytes(cols);
    await checkpoint.read(packed, firstRow * cols / 2, codes);
    for (let row = 0; row < count; row++) {
      const into = section.subarray((atRow + row) * rowBytes, (atRow + row + 1) * rowBytes);
      fromLowFirst(codes.subarray(row * cols / 2, (row + 1) * cols / 2), cols, into);
    }
  };
  return { name, companions, rows, cols, readCodes };
}

/** Returns a matrix of NVFP4. */
export function compressedFp4(checkpoint: Checkpoint, module: string, schemes: readonly WeightScheme[]): EncodedTensor {
  const { name, companions, rows, cols, readCodes } = codesOf(checkpoint, module, schemes, 16);
  const groups = cols / 16, rowScales = Math.ceil(cols / 32) * 2;
  const scale = companions.required(`${module}.weight_scale`, ["F8_E4M3"], [rows, groups]);
  const global = companions.required(`${module}.weight_global_scale`, ["F32"], [1], []);
  return {
    name,
    encoding: "compressed-tensors NVFP4",
    shape: [rows, cols],
    parts: companions.parts,
    cut: () => ({
      format: "nvfp4",
      async read(firstRow, count, [globalSection, scales, codes], atRow) {
        const packed = new Uint8Array(count * groups);
        await Promise.all([
          checkpoint.read(global, 0, globalSection),
          checkpoint.read(scale, firstRow * groups, packed),
          readCodes(firstRow, count, codes, atRow),
        ]);
        for (let row = 0; row < count; row++) {
          scales.set(packed.subarray(row * groups, (row + 1) * groups), (atRow + row) * rowScales);
        }
      },
    }),
  };
}

/** Returns a matrix of MXFP4. */
export function compressedMxfp4(checkpoint: Checkpoint, module: string, schemes: readonly WeightScheme[]): EncodedTensor {
  const { name, companions, rows, cols, readCodes } = codesOf(checkpoint, module, schemes, 32);
  const groups = cols / 32;
  const scale = companions.required(`${module}.weight_scale`, ["U8", "F8_E8M0"], [rows, groups]);
  return {
    name,
    encoding: "compressed-tensors MXFP4",
    shape: [rows, cols],
    parts: companions.parts,
    cut: () => ({
      format: "mxfp4",
      async read(firstRow, count, [scales, codes], atRow) {
        await Promise.all([
          checkpoint.read(scale, firstRow * groups, scales.subarray(atRow * groups, (atRow + count) * groups)),
          readCodes(firstRow, count, codes, atRow),
        ]);
      },
    }),
  };
}
