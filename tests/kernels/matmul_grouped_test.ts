import assert from "node:assert/strict";
import { NativeError } from "../../lib/errors.ts";
import type { Context } from "../../lib/ffi/context.ts";
import type { Precision, RowGroups } from "../../lib/ffi/ops.ts";
import { Arena, assertClose, eachIsa, random } from "./reference.ts";
import { columnUnit } from "../../lib/shard/formats.ts";
import { PACKED_FORMATS, packedExtent, type PackedName } from "./packed_formats.ts";
import { decodeExtent, type FormatName, FORMATS, randomExtent } from "./weight_formats.ts";

/** An extent of a matrix of groups of rows, and how the groups' parts of x lie. */
interface Shape extends RowGroups {
  rows: number;
  cols: number;
}

const SHAPES: Shape[] = [
  { rows: 3, cols: 9, firstRow: 0, groupRows: 1, xGroupStride: 11 },
  { rows: 23, cols: 33, firstRow: 5, groupRows: 7, xGroupStride: 40 },
  // Within one group, from its middle to its end, over many of one row, groups of the size of MLA's.
  { rows: 4, cols: 65, firstRow: 130, groupRows: 64, xGroupStride: 65 },
  { rows: 30, cols: 64, firstRow: 34, groupRows: 64, xGroupStride: 64 },
  { rows: 20, cols: 100, firstRow: 3, groupRows: 1, xGroupStride: 3 },
  { rows: 300, cols: 128, firstRow: 400, groupRows: 256, xGroupStride: 192 },
  // Groups that share their input.
  { rows: 70, cols: 96, firstRow: 0, groupRows: 35, xGroupStride: 0 },
];
const TOKENS = [1, 3, 8, 9, 40, 130];

/** An extent of random weights, and what they are. */
function extentOf(format: FormatName | PackedName, rows: number, cols: number) {
  const numbers = random(rows * 31 + cols);
  if ((PACKED_FORMATS as readonly string[]).includes(format)) {
    return { numbers, ...packedExtent(numbers, format as PackedName, rows, cols), outliers: 0 };
  }
  const { bytes, outliers } = randomExtent(numbers, format as FormatName, rows, cols);
  return { numbers, bytes, outliers, weights: decodeExtent(format as FormatName, bytes, rows, cols, outliers) };
}

async function run(context: Context, format: FormatName | PackedName, shape: Shape, tokens: number, precision: Precision) {
  const { rows, cols, firstRow, groupRows, xGroupStride } = shape;
  const { numbers, bytes, outliers, weights } = extentOf(format, rows, cols);
  const xCols = Math.floor((firstRow + rows - 1) / groupRows) * xGroupStride + cols, xStride = xCols + 2, yStride = rows + 3;
  using arena = new Arena(context);
  const x = arena.f32(numbers.floats((tokens - 1) * xStride + xCols), "x"), bias = arena.f32(numbers.floats(rows, 0.1), "bias");
  const y = arena.f32((tokens - 1) * yStride + rows, "y"), weight = arena.u8(bytes, "weight");
  const extent = {
    format: context.formatId(format),
    address: weight.address,
    bytes: BigInt(bytes.length),
    rows: BigInt(rows),
    cols: BigInt(cols),
    outliers: BigInt(outliers),
  };
  // What no group reads must not matter.
  const read = new Set<number>();
  const expected = new Float64Array(tokens * rows), actual = new Float32Array(tokens * rows);
  for (let t = 0; t < tokens; t++) {
    for (let r = 0; r < rows; r++) {
      const from = t * xStride + Math.floor((firstRow + r) / groupRows) * xGroupStride;
      let sum = bias.data[r];
      for (let c = 0; c < cols; c++) {
        sum += x.data[from + c] * weights[r * cols + c];
        read.add(from + c);
      }
      expected[t * rows + r] = sum;
    }
  }
  x.data.forEach((_, i) => read.has(i) || (x.data[i] = NaN));
  await arena.run((ops) =>
    ops.matmulGrouped(y.address, yStride, x.address, xStride, tokens, extent, bias.address, shape, precision)
  );
  for (let t = 0; t < tokens; t++) {
    actual.set(y.data.subarray(t * yStride, t * yStride + rows), t * rows);
    assert(y.data.subarray(t * yStride + rows, Math.min((t + 1) * yStride, y.data.length)).every(Number.isNaN), "y between rows");
  }
  return { actual, expected };
}

for (const format of FORMATS) {
  for (const precision of ["exact", "fast"] as const) {
    const tolerance = precision === "exact" ? 1e-11 : 2e-5;
    eachIsa(`matmulGrouped() ${precision} of ${format} matches float64, tokens 1..130, nmse<${tolerance}`, async (context) => {
      for (const shape of SHAPES) {
        for (const tokens of TOKENS) {
          const { actual, expected } = await run(context, format, shape, tokens, precision);
          assertClose(actual, expected, tolerance, `${JSON.stringify(shape)}, ${tokens} tokens`);
        }
      }
    });
  }
}

for (const format of PACKED_FORMATS) {
  eachIsa(`matmulGrouped() of ${format} matches float64, nmse<1e-11 exact, <2e-5 fast`, async (context) => {
    const shape = { rows: 40, cols: columnUnit(format) === 256 ? 256 : 69, firstRow: 11, groupRows: 16, xGroupStride: 260 };
    for (const [precision, tolerance] of [["exact", 1e-11], ["fast", 2e-5]] as const) {
      for (const tokens of [1, 5, 9]) {
        const { actual, expected } = await run(context, format, shape, tokens, precision);
        assertClose(actual, expected, tolerance, `${tokens} tokens, ${precision}`);
      }
    }
  });
}

for (
  const [what, change, xStride, message] of [
    ["groups of no rows", { groupRows: 0 }, 8, /group_rows is 0/],
    ["groups whose sizes overflow", { xGroupStride: 2 ** 62, firstRow: 2 ** 40 }, 8, /do not overflow/],
    ["an x_stride that does not cover the groups", {}, 7, /strides 7 and 4 of x and y, required 8 and 4/],
  ] as [string, Partial<RowGroups>, number, RegExp][]
) {
  eachIsa(`matmulGrouped() refuses ${what}`, async (context) => {
    using arena = new Arena(context);
    const x = arena.f32(16, "x"), y = arena.f32(8, "y"), weight = arena.f32(16, "weight");
    const extent = { format: context.formatId("f32"), address: weight.address, bytes: 64n, rows: 4n, cols: 4n, outliers: 0n };
    const groups = { firstRow: 0, groupRows: 2, xGroupStride: 4, ...change };
    await assert.rejects(
      arena.run((ops) => ops.matmulGrouped(y.address, 4, x.address, xStride, 2, extent, 0n, groups, "exact")),
      (error) => error instanceof NativeError && message.test(error.message),
    );
  });
}

eachIsa("matmulGrouped() refuses corrupt outlier sections", async (context) => {
  using arena = new Arena(context);
  const { bytes, outliers } = randomExtent(random(3), "q4o", 64, 64);
  // The last section but one are the outliers' columns.
  const weight = arena.u8(bytes, "weight"), x = arena.f32(random(1).floats(256), "x"), y = arena.f32(64, "y");
  weight.data.fill(255, bytes.length - Math.ceil(2 * outliers / 64) * 64 * 2, bytes.length);
  const extent = {
    format: context.formatId("q4o"),
    address: weight.address,
    bytes: BigInt(bytes.length),
    rows: 64n,
    cols: 64n,
    outliers: BigInt(outliers),
  };
  const groups = { firstRow: 0, groupRows: 16, xGroupStride: 64 };
  await assert.rejects(
    arena.run((ops) => ops.matmulGrouped(y.address, 64, x.address, 256, 1, extent, 0n, groups, "exact")),
    (error) => error instanceof NativeError && /outlier sections of the q4o extent are corrupt/.test(error.message),
  );
});
