/**
 * Four-bit floats (e2m1) of compressed-tensors: NVFP4 (`nvfp4-pack-quantized`), an e4m3 scale for 16 columns divided by a float32 for the
 * tensor, and MXFP4 (`mxfp4-pack-quantized`), a power of two for 32 columns. `X.weight_packed` has the even element in the low nibble.
 * Source: compressors/nvfp4 and mxfp4.
 * @module
 */
import type { Checkpoint, CheckpointTensor } from "../checkpoint/checkpoint.ts";
import type { WeightScheme } from "./compressed_tensors.ts";
import { Companions, type EncodedTensor } from "./encoding.ts";
import { mxfp4Tensor, nvfp4Tensor } from "./fp4_matrices.ts";

interface Codes {
  name: string;
  companions: Companions;
  codes: CheckpointTensor;
  /** Rows, and scales of a row. */
  scales: [number, number];
}

function codesOf(checkpoint: Checkpoint, module: string, schemes: readonly WeightScheme[], group: number): Codes {
  const name = `${module}.weight`, companions = new Companions(checkpoint, name);
  const codes = companions.required(`${module}.weight_packed`, ["U8"]);
  if (codes.shape.length !== 2) {
    throw companions.refuse(`has packed shape [${codes.shape.join(", ")}], required [rows, cols / 2]`);
  }
  const rows = codes.shape[0], cols = codes.shape[1] * 2;
  const scheme = schemes.find((one) => one.type === "float" && one.bits === 4 && one.groupSize === group);
  if (scheme === undefined || !scheme.symmetric || cols % group !== 0) {
    throw companions.unsupported(
      `has 4-bit floats of ${cols} columns without a symmetric scheme of groups of ${group} that divide them`,
    );
  }
  companions.take(`${module}.input_global_scale`);
  return { name, companions, codes, scales: [rows, cols / group] };
}

/** Returns a matrix of NVFP4. */
export function compressedFp4(checkpoint: Checkpoint, module: string, schemes: readonly WeightScheme[]): EncodedTensor {
  const { name, companions, codes, scales } = codesOf(checkpoint, module, schemes, 16);
  const scale = companions.required(`${module}.weight_scale`, ["F8_E4M3"], scales);
  const global = companions.required(`${module}.weight_global_scale`, ["F32"], [1], []);
  return nvfp4Tensor(checkpoint, name, "compressed-tensors NVFP4", { codes, scale }, global, "nvfp4", companions);
}

/** Returns a matrix of MXFP4. */
export function compressedMxfp4(checkpoint: Checkpoint, module: string, schemes: readonly WeightScheme[]): EncodedTensor {
  const { name, companions, codes, scales } = codesOf(checkpoint, module, schemes, 32);
  const scale = companions.required(`${module}.weight_scale`, ["U8", "F8_E8M0"], scales);
  return mxfp4Tensor(checkpoint, name, "compressed-tensors MXFP4", { codes, scale }, companions);
}
