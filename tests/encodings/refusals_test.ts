import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import fs from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { openCheckpoint } from "../../lib/checkpoint/checkpoint.ts";
import { encodedTensors } from "../../lib/encodings/registry.ts";
import { FormatError, UnsupportedError } from "../../lib/errors.ts";
import { quantizeCheckpoint } from "../../lib/shard/quantizer.ts";
import { withTemporaryDirectory } from "../temporary_directory.ts";

const FIXTURES = fileURLToPath(new URL("../fixtures/encodings/", import.meta.url));

interface Entry {
  dtype: string;
  shape: number[];
  data_offsets: [number, number];
}
interface Model {
  // deno-lint-ignore no-explicit-any -- tests write what no checkpoint should hold
  config: any;
  header: Record<string, Entry>;
  data: Uint8Array;
}

async function findEncoded(path: string): Promise<unknown> {
  using checkpoint = await openCheckpoint(path);
  return await encodedTensors(checkpoint);
}

/** Copies a fixture with changes, and returns what is wrong with it for whoever reads it. */
async function errorOf(fixture: string, change: (model: Model) => void, read = findEncoded): Promise<Error> {
  let error: unknown;
  await withTemporaryDirectory(async (directory) => {
    const file = fs.readFileSync(join(FIXTURES, fixture, "model.safetensors"));
    const jsonBytes = Number(file.readBigUInt64LE(0));
    const model: Model = {
      config: JSON.parse(fs.readFileSync(join(FIXTURES, fixture, "config.json"), "utf8")),
      header: JSON.parse(file.toString("utf8", 8, 8 + jsonBytes)),
      data: new Uint8Array(file.subarray(8 + jsonBytes)),
    };
    change(model);
    const json = new TextEncoder().encode(JSON.stringify(model.header)), length = new Uint8Array(8);
    new DataView(length.buffer).setBigUint64(0, BigInt(json.length), true);
    fs.writeFileSync(join(directory, "model.safetensors"), Buffer.concat([length, json, model.data]));
    fs.writeFileSync(join(directory, "config.json"), JSON.stringify(model.config));
    error = await read(directory).then(() => undefined, (reason) => reason);
  });
  assert(error instanceof FormatError || error instanceof UnsupportedError, `no error: ${error}`);
  assert(!error.message.includes("\n"), error.message);
  return error;
}

const MODULE = "model.layers.0.mlp.down_proj";
const STATE = `${MODULE}.weight.quant_state.bitsandbytes__nf4`;

/** Renames a tensor, so that it is missing under its name. */
const lose = (name: string) => ({ header }: Model) => {
  header["nothing"] = header[name];
  delete header[name];
};
/** Gives a tensor another name. */
const rename = (name: string, other: string) => ({ header }: Model) => {
  header[other] = header[name];
  delete header[name];
};
const shape = (name: string, dimensions: number[]) => ({ header }: Model) => header[name].shape = dimensions;
const dtype = (name: string, type: string) => ({ header }: Model) => header[name].dtype = type;
const config = (changes: Record<string, unknown>) => ({ config }: Model) => Object.assign(config.quantization_config, changes);
const weights = (changes: Record<string, unknown>) => ({ config }: Model) =>
  Object.assign(config.quantization_config.config_groups.group_0.weights, changes);
/** Replaces a part of the JSON text of a quant_state by another of its length. */
const state = (from: string, to: string) => ({ header, data }: Model) => {
  assert.equal(from.length, to.length);
  const [begin, end] = header[STATE].data_offsets, part = data.subarray(begin, end);
  const text = new TextDecoder().decode(part);
  assert(text.includes(from), text);
  part.set(new TextEncoder().encode(text.replace(from, to)));
};
const firstWord = (name: string, value: number) => ({ header, data }: Model) =>
  new DataView(data.buffer, data.byteOffset).setInt32(header[name].data_offsets[0], value, true);

const CASES: [string, string, (model: Model) => void, RegExp][] = [
  [
    "an unknown method",
    "bnb_nf4",
    config({ quant_method: "hqq" }),
    /quant_method "hqq", supported: bitsandbytes, fp8, mxfp8, fbgemm_fp8, compressed-tensors, modelopt, modelopt_fp4, modelopt_mixed, quark, gptq, awq, auto-round, intel\/auto-round, mxfp4, gguf/,
  ],
  [
    "MLX's keys",
    "bnb_nf4",
    ({ config }) => config.quantization_config = { bits: 4, group_size: 64 },
    /it is quantized by MLX, which is not supported/,
  ],
  ["no absmax", "bnb_nf4", lose(`${MODULE}.weight.absmax`), /down_proj\.weight" lacks its companion ".*\.absmax"/],
  ["no codes", "bnb_nf4", lose(`${MODULE}.weight`), /is missing, though it has a quant_state/],
  [
    "absmax of a wrong count",
    "bnb_nf4",
    shape(`${MODULE}.weight.absmax`, [2, 176]),
    /absmax" of U8 \[2, 176\], required U8 \[352\]/,
  ],
  [
    "a map of a wrong type",
    "bnb_nf4",
    dtype(`${MODULE}.weight.quant_map`, "I32"),
    /quant_map" of I32 \[16\], required F32 \[16\]/,
  ],
  [
    "a block size of 63",
    "bnb_nf4",
    state(`"blocksize": 64`, `"blocksize": 63`),
    /blocksize 63 .* required a power of two from 32 to 4096/,
  ],
  ["a shape of more rows", "bnb_nf4", state(`[64, 352]`, `[65, 352]`), /holds 11264 bytes of codes, required 11440/],
  ["an odd dtype", "bnb_nf4", state(`bfloat16`, `float8_x`), /dtype "float8_x" .* required float32, float16, bfloat16/],
  ["another quant_type", "bnb_nf4", state(`"nf4"`, `"fp4"`), /quant_type "fp4" .* required "nf4"/],
  ["a quant_state that is no JSON", "bnb_nf4", state(`{"quant`, `<"quant`), /quant_state that is not valid JSON/],
  [
    "an unknown key of quant_state",
    "bnb_nf4",
    state(`"nested_dtype"`, `"nested_dtypo"`),
    /unknown "nested_dtypo"|nested_dtype undefined/,
  ],
  ["no SCB", "llm_int8", lose(`${MODULE}.SCB`), /lacks its companion ".*\.SCB"/],
  ["no scale_inv", "fp8_blocks", lose(`${MODULE}.weight_scale_inv`), /lacks its companion ".*weight_scale_inv"/],
  ["scale_inv of a wrong shape", "fp8_blocks", shape(`${MODULE}.weight_scale_inv`, [3, 1]), /\[3, 1\], required .* \[1, 3\]/],
  ["a block of 96 columns", "fp8_blocks", config({ weight_block_size: [128, 96] }), /required .*\[1, 4\]|96 columns/],
  ["no scale of FBGEMM", "fbgemm_fp8", lose(`${MODULE}.weight_scale`), /lacks its companion ".*weight_scale"/],
  ["a scale of columns", "fbgemm_fp8", shape(`${MODULE}.weight_scale`, [1, 64]), /\[1, 64\], required .* \[64, 1\]/],
  ["fmt e5m2", "fp8_blocks", config({ fmt: "e5m2" }), /fmt "e5m2"/],
  ["5-bit GPTQ", "gptq_int4", config({ bits: 5 }), /bits 5, supported: 2, 3, 4, 8/],
  [
    "words of other bits",
    "gptq_int4",
    config({ bits: 3 }),
    /down_proj\.weight" has qzeros \[11, 8\] for 64 rows, required \[\.\., 6\] \(3 bits\)/,
  ],
  ["a marlin checkpoint_format", "gptq_int4", config({ checkpoint_format: "marlin" }), /checkpoint_format "marlin"/],
  ["AutoGPTQ's marlin", "gptq_int4", config({ is_marlin_format: true }), /is_marlin_format true/],
  ["dynamic bits", "gptq_int4", config({ dynamic: { "-:x": {}, "+:.*": { bits: 5 } } }), /bits 5, supported: 2, 3, 4, 8/],
  [
    "dynamic formats",
    "gptq_int4",
    config({ dynamic: { ".*": { format: "fp8" } } }),
    /dynamic "\.\*" {"format":"fp8"}, supported/,
  ],
  ["a planar format", "gptq_int4", config({ checkpoint_format: "gptq_p" }), /checkpoint_format "gptq_p", supported: "gptq"/],
  ["groups of 48", "gptq_int4", config({ group_size: 48 }), /2 groups of 48 columns|groups of 48 columns/],
  ["groups of 0", "gptq_int4", config({ group_size: 0 }), /group_size 0, supported: -1, powers of two/],
  [
    "more groups than it says",
    "gptq_int4",
    config({ group_size: 64 }),
    /scales of 2 groups, required 1 for 64 columns|required 6 for 352/,
  ],
  ["a group beyond the last", "gptq_act_order", firstWord(`${MODULE}.g_idx`, 11), /group 11 in ".*g_idx", required 0 to 10/],
  ["a negative group", "gptq_act_order", firstWord(`${MODULE}.g_idx`, -1), /group -1 in/],
  ["no zero points", "gptq_int4", lose(`${MODULE}.qzeros`), /lacks its companion ".*qzeros"/],
  ["AWQ gemv", "awq", config({ version: "gemv" }), /qzeros \[11, 8\], required \[352, words of 8 of 2 zero points\]/],
  ["AWQ marlin", "awq", config({ version: "marlin" }), /version "marlin"/],
  ["AWQ gemv_fast", "awq", config({ version: "gemv_fast" }), /version "gemv_fast"/],
  ["gemv without a group_size", "awq_gemv", config({ group_size: null }), /for which quantization_config must have a group_size/],
  ["a rotation", "auto_round", config({ rotation_config: { type: "hadamard" } }), /rotation_config .*, supported: none/],
  ["activations of 8 bits", "auto_round", config({ act_bits: 8 }), /act_bits 8, supported: 16 and more/],
  ["floats", "auto_round", config({ data_type: "mx_fp" }), /data_type "mx_fp", supported: "int"/],
  [
    "another packing",
    "auto_round",
    config({ packing_format: "auto_round:llm_compressor" }),
    /packing_format "auto_round:llm_compressor"/,
  ],
  [
    "a layer of 1 bit",
    "auto_round_mixed",
    config({ extra_config: { x: { bits: 1 } } }),
    /bits 1, supported: 2, 3, 4, 5, 6, 7, 8/,
  ],
  ["AWQ without zero points", "awq", config({ zero_point: false }), /zero_point false/],
  ["AWQ groups of 48", "awq", config({ group_size: 48 }), /groups of 48 columns/],
  ["AWQ of 8 bits", "awq", config({ bits: 8 }), /bits 8/],
  ["no scheme for the bits", "ct_int4", weights({ num_bits: 8 }), /integer weights of 4 bits, which no scheme/],
  ["groups of 48", "ct_int4", weights({ group_size: 48 }), /groups of 48 columns/],
  ["an unknown strategy", "ct_int4", weights({ strategy: "attn_head" }), /attn_head/],
  ["no weight_shape", "ct_int4", lose(`${MODULE}.weight_shape`), /lacks its companion ".*weight_shape"/],
  ["a shape of other columns", "ct_int4", firstWord(`${MODULE}.weight_shape`, 65), /weight_packed \[64, 44\] for \[65, 352\]/],
  ["sparse weights", "ct_int4", config({ sparsity_config: { format: "sparse-24-bitmask" } }), /sparsity_config/],
  ["marlin's layout", "ct_int4", config({ format: "marlin-24" }), /format "marlin-24", supported: dense, int-quantized, /],
  [
    "a group in a sparse format",
    "ct_int4",
    ({ config }) => config.quantization_config.config_groups.group_0.format = "sparse-bitmask",
    /format "sparse-bitmask", supported/,
  ],
  ["no order of its columns", "ct_int4_order", lose(`${MODULE}.weight_g_idx`), /actorder "group" but no weight_g_idx/],
  [
    "words of other bits",
    "ct_int3",
    shape(`${MODULE}.weight_packed`, [33, 64]),
    /weight_packed \[33, 64\] for \[64, 352\], supported are/,
  ],
  ["a transform", "ct_int4", config({ transform_config: { config_groups: {} } }), /transform_config/],
  ["NVFP4 without its scheme", "ct_nvfp4", weights({ group_size: 32 }), /without a symmetric scheme of groups of 16/],
  ["ModelOpt's AWQ", "modelopt_nvfp4", config({ quant_algo: "NVFP4_AWQ" }), /quant_algo "NVFP4_AWQ", supported: FP8, /],
  [
    "a layer of SVDQuant",
    "modelopt_nvfp4",
    config({ quant_algo: "MIXED_PRECISION", quantized_layers: { "model.layers.1": { quant_algo: "NVFP4_SVD" } } }),
    /for model\.layers\.1 quant_algo "NVFP4_SVD"/,
  ],
  [
    "scales of activations before a product",
    "modelopt_nvfp4",
    rename(`${MODULE}.input_scale`, `${MODULE}.pre_quant_scale`),
    /down_proj\.weight" has a pre_quant_scale, by which activations/,
  ],
  ["scales of 32 columns", "modelopt_nvfp4", shape(`${MODULE}.weight_scale`, [32, 44]), /\[32, 44\], required .* \[64, 22\]/],
  [
    "scales of other blocks",
    "modelopt_fp8_blocks",
    shape(`${MODULE}.weight_scale`, [3, 1, 1, 1]),
    /required .*\[1, 3\] or \[1, 1, 3, 1\]/,
  ],
  ["an element type without codes", "modelopt_fp8", dtype(`${MODULE}.weight`, "I8"), /of I8 with a weight_scale/],
  [
    "Quark's integers",
    "quark_fp8",
    config({ global_quant_config: { weight: { dtype: "int4", qscheme: "per_group" } } }),
    /global_quant_config\.weight\.dtype "int4", supported: fp8_e4m3, fp4/,
  ],
  [
    "a layer of other groups",
    "quark_mxfp4",
    config({ layer_quant_config: { "*o_proj": { weight: { dtype: "fp4", qscheme: "per_group", group_size: 16 } } } }),
    /layer_quant_config \*o_proj\.weight\.group_size 16, supported: 32/,
  ],
  ["a rotation", "quark_mxfp4", config({ algo_config: [{ name: "rotation" }] }), /algo_config "rotation"/],
  [
    "no exponents",
    "mxfp4_experts",
    lose("model.layers.0.mlp.experts.down_proj_scales"),
    /lacks its companion ".*down_proj_scales"/,
  ],
];

for (const [name, fixture, change, pattern] of CASES) {
  Deno.test(`encodedTensors() refuses ${fixture} with ${name}, in one line that says what is required`, async () => {
    assert.match((await errorOf(fixture, change)).message, pattern);
  });
}

Deno.test("quantizeCheckpoint() refuses what it does not know of an encoding before anything is written", async () => {
  for (
    const [fixture, changes] of [["bnb_nf4", { quant_method: "hqq" }], ["gptq_int4", { checkpoint_format: "marlin" }]] as const
  ) {
    let left: string[] | undefined;
    await errorOf(fixture, config(changes), async (source) => {
      const out = join(source, "shards");
      try {
        await quantizeCheckpoint({ source, out, compression: "q8" });
      } finally {
        left = fs.existsSync(out) ? fs.readdirSync(out) : [];
      }
    });
    assert.deepEqual(left, []);
  }
});

Deno.test("quantizeCheckpoint() refuses a bias of GPTQ that the model has no place for, unless it is zeros", async () => {
  const quantize = (source: string) => quantizeCheckpoint({ source, out: join(source, "shards"), compression: "none" });
  const error = await errorOf("gptq_int4", firstWord(`${MODULE}.bias`, 1), quantize);
  assert.match(error.message, /tensor "model\.layers\.0\.mlp\.down_proj\.bias" is not one of a llama model/);
});
