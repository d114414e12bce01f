/**
 * AutoRound (Intel): integers of 2 to 8 bits, packed as GPTQ's, whose zero points are stored less one where `packing_format` says `gptq`, or as AWQ's.
 * Layers that `extra_config` gives other bits or groups are told by their tensors. Source: auto_round/inference/convert_model.py and
 * auto_round_extension/torch.
 * @module
 */
import type { Checkpoint } from "../checkpoint/checkpoint.ts";
import { isJsonObject } from "../checkpoint/json_file.ts";
import { UnsupportedError } from "../errors.ts";
import { AWQ } from "./awq.ts";
import type { Encoding } from "./encoding.ts";
import { gptqMatrices } from "./gptq_matrices.ts";
import { groupSizeOf } from "./scaled_integers.ts";

const BITS = [2, 3, 4, 5, 6, 7, 8];

/** Bits that stand for a layer that is not quantized. */
const PLAIN_BITS = 16;

/** What each `packing_format` is. */
const PACKINGS: Record<string, "gptq" | "gptq_v2" | "awq"> = {
  auto: "gptq",
  "auto_round:gptq": "gptq",
  "auto_round:auto_gptq": "gptq",
  auto_round: "gptq_v2",
  "auto_round:gptqmodel": "gptq_v2",
  "auto_round:awq": "awq",
  "auto_round:auto_awq": "awq",
};

/** Returns the error for a setting that is not known. */
type Refuse = (key: string, value: unknown, supported: string) => UnsupportedError;

/** Checks what a layer's or the model's settings say of anything but bits and groups. */
function checkScheme(scheme: Record<string, unknown>, refuse: Refuse): void {
  const { data_type: type = "int", act_bits: activationBits = PLAIN_BITS, super_bits: superBits = null } = scheme;
  if (type !== "int") throw refuse("data_type", type, `"int"`);
  if (activationBits !== null && !((activationBits as number) >= PLAIN_BITS)) {
    throw refuse("act_bits", activationBits, "16 and more");
  }
  if (superBits !== null) throw refuse("super_bits", superBits, "null");
}

/** Returns the layout of a checkpoint's tensors. */
function packingOf(config: Record<string, unknown>, refuse: Refuse): "gptq" | "gptq_v2" | "awq" {
  // Early releases name the backend that they were meant for instead.
  const { packing_format: packing = /gptq|awq/.exec(`${config.backend}`)?.[0].replace(/^/, "auto_round:") ?? "auto" } = config;
  if (typeof packing === "string" && Object.hasOwn(PACKINGS, packing)) return PACKINGS[packing];
  throw refuse("packing_format", packing, Object.keys(PACKINGS).join(", "));
}

function refuserOf(checkpoint: Checkpoint): Refuse {
  return (key, value, supported) =>
    new UnsupportedError(
      `Cannot use model ${checkpoint.path}: quantization_config has ${key} ${JSON.stringify(value)}, supported: ${supported}`,
    );
}

/** AutoRound. */
export const AUTO_ROUND: Encoding = {
  methods: ["auto-round", "intel/auto-round"],
  async find(checkpoint, config) {
    const refuse = refuserOf(checkpoint), packing = packingOf(config, refuse), { rotation_config: rotation = null } = config;
    if (rotation !== null && !(isJsonObject(rotation) && Object.keys(rotation).length === 0)) {
      throw refuse("rotation_config", rotation, "none, as it changes activations");
    }
    const schemes = [config];
    for (const [layer, own] of Object.entries(config.extra_config ?? {})) {
      if (!isJsonObject(own)) throw refuse(`extra_config ${layer}`, own, "settings by name");
      if (!((own.bits as number) >= PLAIN_BITS)) schemes.push(own);
    }
    for (const scheme of schemes) checkScheme(scheme, refuse);
    const bits = schemes.flatMap(({ bits = [] }) => bits as number);
    for (const one of bits) if (!BITS.includes(one)) throw refuse("bits", one, BITS.join(", "));
    if (packing === "awq") {
      if (schemes.length > 1) {
        throw refuse("extra_config", config.extra_config, "layers that are not quantized, with AWQ's packing");
      }
      return await AWQ.find(checkpoint, { ...config, version: "gemm" });
    }
    return await gptqMatrices(checkpoint, {
      label: "AutoRound",
      bits: [...new Set(bits)],
      groupSizes: schemes.filter((scheme, i) => i === 0 || scheme.group_size !== undefined).map((one) =>
        groupSizeOf(checkpoint, one)
      ),
      zeroPoints: () => ({ word: 0, own: packing === "gptq" ? 1 : 0, wraps: packing === "gptq_v2" }),
    });
  },
};
