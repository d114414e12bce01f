/**
 * GPTQ, by AutoGPTQ and GPTQModel: matrices of 2, 3, 4 or 8 bits. Zero points are stored less one but in checkpoint_format `gptq_v2`. Layers that
 * `dynamic` gives other bits or groups are told by their tensors. Source: GPTQModel's quantization/config.py and
 * convert_gptq_v1_to_v2_format_module in its utils/model.py.
 * @module
 */
import type { Checkpoint } from "../checkpoint/checkpoint.ts";
import { isJsonObject } from "../checkpoint/json_file.ts";
import { UnsupportedError } from "../errors.ts";
import type { Encoding } from "./encoding.ts";
import { gptqMatrices, type GptqSettings, type ZeroPoints } from "./gptq_matrices.ts";
import { groupSizeOf } from "./scaled_integers.ts";

const BITS = [2, 3, 4, 8];

/** What a rule of `dynamic` may not change: how all tensors are stored. */
const STORAGE_KEYS = ["format", "checkpoint_format", "method", "quant_method", "pack_dtype"];

/** Zero points of the first format. GPTQModel adds 1 to words at once, but for 3 bits, which words do not hold a whole number of. */
function zeroPoints(bits: number): ZeroPoints {
  const word = { 2: 0x55555555, 4: 0x11111111, 8: 0x01010101 }[bits];
  return word === undefined ? { word: 0, own: 1, wraps: true } : { word, own: 0, wraps: true };
}

function parseSettings(checkpoint: Checkpoint, config: Record<string, unknown>): GptqSettings {
  const { bits, dynamic, is_marlin_format: isMarlin = false } = config;
  const format = config.checkpoint_format ?? config.format ?? "gptq";
  const refuse = (key: string, value: unknown, supported: string) =>
    new UnsupportedError(
      `Cannot use model ${checkpoint.path}: quantization_config has ${key} ${JSON.stringify(value)}, supported: ${supported}`,
    );
  if (format !== "gptq" && format !== "gptq_v2") throw refuse("checkpoint_format", format, `"gptq", "gptq_v2"`);
  if (isMarlin !== false) throw refuse("is_marlin_format", isMarlin, "false");
  const sizes = [config], own = [bits];
  for (const [rule, changes] of Object.entries(dynamic ?? {})) {
    // These say what is not quantized.
    if (rule.startsWith("-:")) continue;
    const storage = isJsonObject(changes) ? STORAGE_KEYS.find((key) => changes[key] !== undefined) : rule;
    if (!isJsonObject(changes) || storage !== undefined) {
      throw refuse(`dynamic ${JSON.stringify(rule)}`, changes, `settings other than ${STORAGE_KEYS.join(", ")}`);
    }
    if (changes.bits !== undefined) own.push(changes.bits);
    if (changes.group_size !== undefined) sizes.push(changes);
  }
  for (const one of own) if (!BITS.includes(one as number)) throw refuse("bits", one, BITS.join(", "));
  return {
    label: "GPTQ",
    bits: [...new Set(own as number[])],
    groupSizes: sizes.map((one) => groupSizeOf(checkpoint, one)),
    zeroPoints: format === "gptq_v2" ? () => ({ word: 0, own: 0, wraps: true }) : zeroPoints,
  };
}

/** GPTQ. */
export const GPTQ: Encoding = {
  methods: ["gptq"],
  find: (checkpoint, config) =>
    Promise.resolve(parseSettings(checkpoint, config)).then((settings) => gptqMatrices(checkpoint, settings)),
};
