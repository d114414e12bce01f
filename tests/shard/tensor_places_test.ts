import assert from "node:assert/strict";
import { type Checkpoint, openCheckpoint } from "../../lib/checkpoint/checkpoint.ts";
import type { Dtype } from "../../lib/checkpoint/safetensors.ts";
import { TensorRows } from "../../lib/checkpoint/tensor_rows.ts";
import { FormatError } from "../../lib/errors.ts";
import type { TensorSource, TensorSpec } from "../../lib/models/architecture.ts";
import { isEncoded, placeTensors } from "../../lib/shard/tensor_places.ts";
import { TINY_CONFIG, type TinyTensor, writeCheckpoint } from "../checkpoint/tiny_checkpoint.ts";
import { withTemporaryDirectory } from "../temporary_directory.ts";

/** A tensor whose element at [..., i, j] says where it is: its flat index. */
function numbered(name: string, shape: number[], dtype: Dtype): TinyTensor {
  return { name, dtype, shape, values: Float32Array.from({ length: shape.reduce((a, b) => a * b) }, (_, i) => i) };
}

const matrix = (name: string, rows: number, cols: number, source?: TensorSource): TensorSpec => ({
  ...{ name, rows, cols, kind: "linear", source },
});
const vector = (name: string, cols: number, source?: TensorSource): TensorSpec => ({
  ...{ name, rows: 1, cols, kind: "vector", source },
});

/** Returns the elements of `rows` rows of a stored tensor, read through its place in the checkpoint. */
async function read(
  checkpoint: Checkpoint,
  specs: TensorSpec[],
  spec: TensorSpec,
  first: number,
  rows: number,
): Promise<number[]> {
  const { source, placement } = placeTensors(checkpoint, specs).get(spec)![0];
  assert(!isEncoded(source));
  const elementBytes = source.dtype === "F32" ? 4 : 2;
  const shape = spec.kind === "vector"
    ? { cols: 1, rowsTogether: spec.cols, elementBytes }
    : { cols: spec.cols, rowsTogether: 1, elementBytes };
  const into = new Uint8Array(rows * spec.cols * elementBytes);
  await new TensorRows(checkpoint, source, shape, placement).read(first, rows, into);
  return source.dtype === "F32" ? [...new Float32Array(into.buffer)] : [...new Float16Array(into.buffer)];
}

for (const dtype of ["F32", "F16"] as const) {
  Deno.test(`placeTensors() and TensorRows.read() find rows of ${dtype} in ranges, runs, stacks and turned matrices`, () =>
    withTemporaryDirectory(async (directory) => {
      writeCheckpoint(
        directory,
        [
          numbered("fused", [16, 5], dtype),
          numbered("fused.bias", [16], dtype),
          numbered("grouped", [24, 3], dtype),
          numbered("experts", [3, 8, 7], dtype),
          numbered("turned", [2, 7, 12], dtype),
        ],
        TINY_CONFIG,
      );
      using checkpoint = await openCheckpoint(directory);
      const fused = [
        matrix("q", 8, 5, { name: "fused" }),
        matrix("k", 4, 5, { name: "fused", firstRow: 8 }),
        matrix("v", 4, 5, { name: "fused", firstRow: 12 }),
        vector("q.bias", 8, { name: "fused.bias" }),
        vector("k.bias", 8, { name: "fused.bias", firstRow: 8 }),
      ];
      // Three groups of 4 query rows, 2 key rows and 2 value rows.
      const grouped = [
        matrix("gq", 12, 3, { name: "grouped", runRows: 4, rowStep: 8 }),
        matrix("gk", 6, 3, { name: "grouped", firstRow: 4, runRows: 2, rowStep: 8 }),
        matrix("gv", 6, 3, { name: "grouped", firstRow: 6, runRows: 2, rowStep: 8 }),
      ];
      // Gate and up rows alternate.
      const experts = [0, 1, 2].flatMap((index) => [
        matrix(`gate${index}`, 4, 7, { name: "experts", index, rowStep: 2 }),
        matrix(`up${index}`, 4, 7, { name: "experts", index, firstRow: 1, rowStep: 2 }),
      ]);
      const turned = [0, 1].flatMap((index) => [
        matrix(`first${index}`, 6, 7, { name: "turned", index, transposed: true }),
        matrix(`even${index}`, 3, 7, { name: "turned", index, firstRow: 6, rowStep: 2, transposed: true }),
        matrix(`odd${index}`, 3, 7, { name: "turned", index, firstRow: 7, rowStep: 2, transposed: true }),
      ]);
      const specs = [...fused, ...grouped, ...experts, ...turned];
      /** Where element [row, col] of a stored tensor is in the checkpoint's, from what the spec says, a row at a time. */
      const expected = ({ source, kind, cols, rows }: TensorSpec, row: number, col: number): number => {
        const { name, index = 0, firstRow = 0, rowStep, runRows = 1, transposed } = source as TensorSource;
        const [height, width] = checkpoint.tensors.get(name)!.shape.slice(-2);
        if (kind === "vector") return firstRow + col;
        assert(row < rows && col < cols);
        const at = firstRow + (rowStep === undefined ? row : Math.floor(row / runRows) * rowStep + row % runRows);
        return index * height * width + (transposed ? col * width + at : at * width + col);
      };
      for (const spec of specs) {
        for (const [first, rows] of [[0, spec.rows], [1, spec.rows - 1], [2, 3], [spec.rows - 1, 1]]) {
          if (rows < 1 || first + rows > spec.rows) continue;
          const wanted = Array.from(
            { length: rows * spec.cols },
            (_, i) => expected(spec, first + Math.floor(i / spec.cols), i % spec.cols),
          );
          assert.deepEqual(await read(checkpoint, specs, spec, first, rows), wanted, `${spec.name} rows ${first} + ${rows}`);
        }
      }
    }));
}

Deno.test("placeTensors() refuses shapes that differ, and rows or matrices that no tensor of the model uses", () =>
  withTemporaryDirectory(async (directory) => {
    writeCheckpoint(directory, [numbered("fused", [16, 5], "F32"), numbered("stack", [3, 4, 5], "F32")], TINY_CONFIG);
    using checkpoint = await openCheckpoint(directory);
    const refused: [TensorSpec[], RegExp][] = [
      [[matrix("q", 8, 5, { name: "none" })], /tensor "none" is missing; required with shape \[8, 5\]/],
      [[matrix("q", 8, 5, { name: "fused" })], /tensor "fused" has shape \[16, 5\], required \[8, 5\]/],
      [[matrix("q", 16, 6, { name: "fused" })], /has shape \[16, 5\], required \[16, 6\]/],
      [[vector("q", 16, { name: "fused" })], /has shape \[16, 5\], required \[16\]/],
      [[matrix("q", 16, 5, { name: "fused", index: 0 })], /has shape \[16, 5\], required \[1, 16, 5\]/],
      [[matrix("q", 5, 16, { name: "fused", firstRow: 1, transposed: true })], /required \[16, 6\]/],
      [[matrix("k", 8, 5, { name: "fused", firstRow: 8 })], /tensor "fused" has no place in the model for row 0 of 16/],
      [
        [matrix("a", 6, 5, { name: "fused", runRows: 3, rowStep: 8 }), matrix("b", 5, 5, { name: "fused", firstRow: 11 })],
        /no place in the model for row 3 of 16/,
      ],
      [
        [matrix("a", 4, 5, { name: "stack", index: 0 }), matrix("c", 4, 5, { name: "stack", index: 2 })],
        /tensor "stack" has no place in the model for row 0 of 4 at index 1/,
      ],
    ];
    for (const [specs, pattern] of refused) {
      assert.throws(() => placeTensors(checkpoint, specs), (error: Error) => {
        assert(error instanceof FormatError, error.stack);
        assert.match(error.message, pattern);
        return true;
      });
    }
  }));
