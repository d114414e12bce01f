import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { openCheckpoint } from "../../lib/checkpoint/checkpoint.ts";
import { encodedTensors } from "../../lib/encodings/registry.ts";
import { Context } from "../../lib/ffi/context.ts";
import type { TensorSource, TensorSpec } from "../../lib/models/architecture.ts";
import { Dequantizer, EncodedRows } from "../../lib/shard/encoded_rows.ts";
import { isEncoded, placeTensors } from "../../lib/shard/tensor_places.ts";
import { rowsOf, type TensorJson } from "../engine/tiny_models.ts";

const FIXTURES = fileURLToPath(new URL("../fixtures/encodings/", import.meta.url));

const matrix = (name: string, rows: number, cols: number, source: TensorSource): TensorSpec => ({
  ...{ name, rows, cols, kind: "linear", source },
});

/** Returns specs that together use each row of a tensor [rows, cols] once: ranges, and runs that alternate. */
function fusedSpecs(tensor: string, rows: number, cols: number, first: number, run: number): TensorSpec[] {
  // Rows from `first` on alternate between two matrices, `run` rows of each at a time.
  const pairs = Math.floor((rows - first) / (2 * run)), end = first + pairs * 2 * run;
  return [
    ...(first > 0 ? [matrix("head", first, cols, { name: tensor })] : []),
    matrix("even", pairs * run, cols, { name: tensor, firstRow: first, runRows: run, rowStep: 2 * run }),
    matrix("odd", pairs * run, cols, { name: tensor, firstRow: first + run, runRows: run, rowStep: 2 * run }),
    ...(end < rows ? [matrix("tail", rows - end, cols, { name: tensor, firstRow: end })] : []),
  ];
}

/** Returns where row r of a spec lies in its tensor. */
function tensorRow({ source }: TensorSpec, r: number): number {
  const { firstRow = 0, runRows = 1, rowStep } = source as TensorSource;
  return rowStep === undefined ? firstRow + r : firstRow + Math.floor(r / runRows) * rowStep + r % runRows;
}

for (
  const name of [
    "bnb_nf4",
    "bnb_nf4_float32",
    "fp8_blocks",
    "ct_int4_zero",
    "ct_int8_packed",
    "gptq_act_order",
    "gptq_int2",
    "gptq_int3_v2",
    "auto_round_int5",
    "awq",
    "awq_gemv",
    "ct_int2",
    "ct_int6",
    "ct_nvfp4",
    "modelopt_nvfp4",
  ]
) {
  Deno.test(`EncodedRows of ${name} gives ranges and runs of rows the values that the whole has, from any row on`, async () => {
    using checkpoint = await openCheckpoint(FIXTURES + name);
    const encoded = await encodedTensors(checkpoint);
    using context = Context.open();
    using dequantizer = new Dequantizer(context);
    const read = async (source: EncodedRows, first: number, rows: number) => {
      const into = new Uint8Array(rows * source.cols * 4);
      await dequantizer.read(source, first, rows, into);
      return new Float32Array(into.buffer);
    };
    // Rows of 64 columns are whole blocks of bitsandbytes, rows of 352 are not.
    for (const module of ["mlp.gate_proj", "mlp.down_proj"]) {
      const tensor = `model.layers.0.${module}.weight`, [rows, cols] = encoded.get(tensor)!.shape;
      const whole = new EncodedRows(encoded.get(tensor)!, rows, cols, { firstRow: 0, runRows: rows, rowStep: rows });
      const expected = await read(whole, 0, rows);
      for (const [first, run] of [[0, 8], [10, 3], [1, 1], [32, 4]]) {
        const specs = fusedSpecs(tensor, rows, cols, first, run);
        const places = placeTensors(checkpoint, specs, encoded);
        for (const spec of specs) {
          const { source, placement } = places.get(spec)![0];
          assert(isEncoded(source));
          const part = new EncodedRows(source, spec.rows, cols, placement);
          for (
            const [from, count] of [[0, spec.rows], [Math.floor(spec.rows / 3), Math.ceil(spec.rows / 2)], [spec.rows - 1, 1]]
          ) {
            const values = await read(part, from, count);
            for (let r = 0; r < count; r++) {
              const at = tensorRow(spec, from + r) * cols;
              assert.deepEqual(
                values.subarray(r * cols, (r + 1) * cols),
                expected.subarray(at, at + cols),
                `${module} as ${part.format}: ${spec.name} of ${first}, ${run}, row ${from + r}`,
              );
            }
          }
        }
      }
    }
  });
}

/** Checks matrices of stacks that lie turned: `valuesAre` says whether the fixture's values lie as the plain tensor does, or as the matrices are used. */
async function checkTurnedStacks(name: string, format: string, valuesAre: "turned" | "rows", specs: TensorSpec[]): Promise<void> {
  const { tensors } = JSON.parse(readFileSync(`${FIXTURES}${name}/expected.json`, "utf8"));
  using checkpoint = await openCheckpoint(FIXTURES + name);
  const encoded = await encodedTensors(checkpoint);
  using context = Context.open();
  using dequantizer = new Dequantizer(context);
  const places = placeTensors(checkpoint, specs, encoded);
  for (const spec of specs) {
    const { source, placement } = places.get(spec)![0];
    assert(isEncoded(source));
    const part = new EncodedRows(source, spec.rows, spec.cols, placement);
    assert.equal(part.format, format);
    const { name: tensor, index = 0 } = spec.source as TensorSource;
    const { shape, data, dtype } = tensors[tensor].values;
    const plain = rowsOf({ dtype, data, shape: [shape[0] * shape[1], shape[2]] } as TensorJson);
    for (const [first, rows] of [[0, spec.rows], [3, spec.rows - 4], [spec.rows - 1, 1]]) {
      const into = new Uint8Array(rows * spec.cols * 4), values = new Float32Array(into.buffer);
      await dequantizer.read(part, first, rows, into);
      for (let r = 0; r < rows; r++) {
        for (let c = 0; c < spec.cols; c++) {
          const row = tensorRow(spec, first + r);
          const expected = valuesAre === "turned" ? plain[index * spec.cols + c][row] : plain[index * shape[1] + row][c];
          const value = values[r * spec.cols + c];
          assert(Object.is(value, expected), `${spec.name} [${first + r}, ${c}]: ${value}, ${expected}`);
        }
      }
    }
  }
}

Deno.test("EncodedRows of gpt-oss' MXFP4 experts gives what transformers converts, by expert and alternating rows", async () => {
  const [gateUp, down] = ["gate_up_proj", "down_proj"].map((name) => `model.layers.0.mlp.experts.${name}`);
  // As families declare the plain tensors [experts, cols, rows].
  const specs = [0, 1, 2].flatMap((index) => [
    matrix(`${index}.gate`, 8, 64, { name: gateUp, index, rowStep: 2, transposed: true }),
    matrix(`${index}.up`, 8, 64, { name: gateUp, index, firstRow: 1, rowStep: 2, transposed: true }),
    matrix(`${index}.down`, 10, 32, { name: down, index, transposed: true }),
  ]);
  await checkTurnedStacks("mxfp4_experts", "mxfp4", "turned", specs);
});

for (
  const [name, format, downCols] of [
    ["fbgemm_fp8_experts", "fp8-1xrow", 24],
    ["modelopt_fp8_experts", "fp8-1xrow", 16],
    ["modelopt_nvfp4_experts", "nvfp4-product", 16],
  ] as const
) {
  Deno.test(`EncodedRows of ${name}, Llama 4's turned stacks, gives what the library dequantizes, by expert`, async () => {
    const [gateUp, down] = ["gate_up_proj", "down_proj"].map((name) => `model.layers.0.feed_forward.experts.${name}`);
    const specs = [0, 1, 2].flatMap((index) => [
      matrix(`${index}.gate`, 24, 32, { name: gateUp, index, transposed: true }),
      matrix(`${index}.up`, 24, 32, { name: gateUp, index, firstRow: 24, transposed: true }),
      matrix(`${index}.down`, 32, downCols, { name: down, index, transposed: true }),
    ]);
    await checkTurnedStacks(name, format, "rows", specs);
  });
}
