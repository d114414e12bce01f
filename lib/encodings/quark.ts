/**
 * Checkpoints of AMD's Quark whose weights are floats: FP8 with a scale for the tensor or each row, and FP4 with a power of two for 32 columns
 * (MXFP4). Their tensors are laid out as ModelOpt's are; what Quark does to activations and to the KV cache is not done here. Source:
 * quark/torch/utils/pack.py and export/nn/modules/realquantizer.py.
 * @module
 */
import type { Checkpoint } from "../checkpoint/checkpoint.ts";
import { isJsonObject } from "../checkpoint/json_file.ts";
import { UnsupportedError } from "../errors.ts";
import { cacheScaleReason, type Encoding } from "./encoding.ts";
import { scaledFloats } from "./modelopt.ts";

/** Settings that the tensors' types and shapes do not say. */
function checkWeights(checkpoint: Checkpoint, where: string, settings: unknown): void {
  const weight = isJsonObject(settings) ? settings.weight : undefined;
  if (weight === undefined || weight === null) return;
  const refuse = (key: string, value: unknown, supported: string) =>
    new UnsupportedError(
      `Cannot use model ${checkpoint.path}: quantization_config has ${where}.weight.${key} ${
        JSON.stringify(value)
      }, supported: ${supported}`,
    );
  if (!isJsonObject(weight)) throw refuse("dtype", weight, "one scheme");
  const { dtype, qscheme: scheme, group_size: group, scale_format: format } = weight;
  if (dtype === "fp8_e4m3") {
    if (scheme !== "per_tensor" && scheme !== "per_channel") throw refuse("qscheme", scheme, "per_tensor, per_channel");
  } else if (dtype === "fp4") {
    if (scheme !== "per_group" || group !== 32) throw refuse("group_size", group, "32, per_group");
    if (format !== "e8m0") throw refuse("scale_format", format, `"e8m0"`);
  } else throw refuse("dtype", dtype, "fp8_e4m3, fp4");
}

/** Checkpoints of Quark. */
export const QUARK: Encoding = {
  methods: ["quark"],
  find(checkpoint, config) {
    const { algo_config: algorithms = null } = config;
    const changing = [algorithms].flat().find((one) => isJsonObject(one) && one.name === "rotation");
    if (changing) {
      throw new UnsupportedError(
        `Cannot use model ${checkpoint.path}: quantization_config has algo_config "rotation", which may turn activations; supported is none`,
      );
    }
    checkWeights(checkpoint, "global_quant_config", config.global_quant_config);
    for (const key of ["layer_quant_config", "layer_type_quant_config"]) {
      const layers = config[key] ?? {};
      if (isJsonObject(layers)) {
        for (const [layer, own] of Object.entries(layers)) checkWeights(checkpoint, `${key} ${layer}`, own);
      }
    }
    return Promise.resolve(scaledFloats(checkpoint, "Quark"));
  },
  // Outputs of the projections that a cache keeps.
  needlessTensorReason: (name) => cacheScaleReason(name.replace(/\.([kv])_proj\.output_scale$/, ".$1_scale")),
};
