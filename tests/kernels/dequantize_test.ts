import assert from "node:assert/strict";
import type { Ops, WeightExtent } from "../../lib/ffi/ops.ts";
import { Arena, assertClose, assertSameBits, eachIsa, random, TEST_KIND } from "./reference.ts";
import { decodeExtent, FORMATS, randomExtent, sections } from "./weight_formats.ts";

const SHAPES = [[1, 1], [7, 33], [33, 63], [64, 64], [65, 100], [130, 257], [3, 4097]];

for (const format of FORMATS) {
  eachIsa(`dequantize() of ${format} matches an independent decoder, odd shapes, difference<=3e-7`, async (context) => {
    for (const [rows, cols] of SHAPES) {
      const { bytes, outliers } = randomExtent(random(rows + cols), format, rows, cols);
      using arena = new Arena(context);
      const weight = arena.u8(bytes, "weight"), y = arena.f32(rows * cols, "y");
      const extent: WeightExtent = {
        format: context.formatId(format),
        address: weight.address,
        bytes: BigInt(bytes.length),
        rows: BigInt(rows),
        cols: BigInt(cols),
        outliers: BigInt(outliers),
      };
      await arena.run((ops) => ops.dequantize(y.address, extent));
      const expected = decodeExtent(format, bytes, rows, cols, outliers);
      // q4o is a product of four factors, so its float32 result is rounded more than once; all others are a single rounding.
      if (format === "q4o") {
        for (let i = 0; i < expected.length; i++) {
          assert(
            Math.abs(y.data[i] - expected[i]) <= 3e-7 * Math.abs(expected[i]) + 1e-12,
            `${rows} x ${cols}, element ${i}: ${y.data[i]}, ${expected[i]}`,
          );
        }
      } else {
        assertSameBits(y.data, Float32Array.from(expected), `${rows} x ${cols}`);
      }
    }
  });

  eachIsa(`embedding() of ${format} gives the rows of its ids in their order, also repeated ones`, async (context) => {
    const [rows, cols] = [67, 100], ids = [66, 0, 5, 5, 63, 64, 1];
    const { bytes, outliers } = randomExtent(random(11), format, rows, cols);
    const expected = decodeExtent(format, bytes, rows, cols, outliers);
    using arena = new Arena(context);
    const weight = arena.u8(bytes, "weight"), y = arena.f32(ids.length * cols, "y"), tokens = arena.i32(ids, "ids");
    const extent = {
      format: context.formatId(format),
      address: weight.address,
      bytes: BigInt(bytes.length),
      rows: BigInt(rows),
      cols: BigInt(cols),
      outliers: BigInt(outliers),
    };
    await arena.run((ops) => ops.embedding(y.address, extent, tokens.address, ids.length));
    assertClose(y.data, ids.flatMap((id) => Array.from(expected.subarray(id * cols, (id + 1) * cols))), 1e-13);
  });
}

for (const id of [-1, 67, 0x7fffffff]) {
  eachIsa(`embedding() reports the id ${id} of 67 rows and reads nothing`, async (context) => {
    const { bytes, outliers } = randomExtent(random(12), "bf16", 67, 33);
    using arena = new Arena(context);
    const weight = arena.u8(bytes, "weight"), y = arena.f32(2 * 33, "y"), tokens = arena.i32([3, id], "ids");
    const extent = {
      format: context.formatId("bf16"),
      address: weight.address,
      bytes: BigInt(bytes.length),
      rows: 67n,
      cols: 33n,
      outliers: BigInt(outliers),
    };
    await assert.rejects(
      arena.run((ops) => ops.embedding(y.address, extent, tokens.address, 2)),
      new RegExp(`id ${id} of token 1`),
    );
  });
}

/** Ways in which a file can lie about its outliers: [name, change to the extent]. */
const CORRUPTIONS: [string, (view: DataView, at: Record<string, number>) => void][] = [
  ["a column beyond the last", (view, at) => view.setUint16(at.outlier_col + 2, 100, true)],
  ["a column at the u16 limit", (view, at) => view.setUint16(at.outlier_col, 0xffff, true)],
  ["a start beyond the outliers", (view, at) => view.setUint16(at.outlier_start + 20, 0xffff, true)],
  ["a base beyond the outliers", (view, at) => view.setUint32(at.outlier_base + 4, 0xffffffff, true)],
  ["starts that descend", (view, at) => view.setUint16(at.outlier_start + 20, 0, true)],
  ["columns that descend", (view, at) => {
    for (let i = 0; i < 100; i++) view.setUint16(at.outlier_col + 2 * i, 99 - i, true);
  }],
];

/** Where columns that descend are as good as others: on the CPU twin, and in the device's sums of few tokens. */
const takesAnyOrder = (operation: string) => TEST_KIND === "cpu" || /matmul .* of [13] token/.test(operation);

const OPERATIONS: [string, (ops: Ops, y: bigint, x: bigint, ids: bigint, extent: WeightExtent) => void][] = [
  ["dequantize", (ops, y, _x, _ids, extent) => ops.dequantize(y, extent)],
  ["embedding", (ops, y, _x, ids, extent) => ops.embedding(y, extent, ids, 70)],
  ["matmul exact of 1 token", (ops, y, x, _ids, extent) => ops.matmul(y, 70, x, 100, 1, extent, 0n, false, "exact")],
  ["matmul fast of 3 tokens", (ops, y, x, _ids, extent) => ops.matmul(y, 70, x, 100, 3, extent, 0n, false, "fast")],
  ["matmul exact of 20 tokens", (ops, y, x, _ids, extent) => ops.matmul(y, 70, x, 100, 20, extent, 0n, false, "exact")],
  ["matmul fast of 40 tokens", (ops, y, x, _ids, extent) => ops.matmul(y, 70, x, 100, 40, extent, 0n, false, "fast")],
];

for (const [corruption, corrupt] of CORRUPTIONS) {
  for (const [operation, run] of OPERATIONS) {
    if (corruption === "columns that descend" && takesAnyOrder(operation)) continue;
    eachIsa(`${operation} of q4o with ${corruption} is an error, not a stray access`, async (context) => {
      const [rows, cols] = [70, 100];
      const { bytes, outliers } = randomExtent(random(13), "q4o", rows, cols);
      assert(outliers > 100);
      corrupt(new DataView(bytes.buffer), sections("q4o", rows, cols, outliers));
      using arena = new Arena(context);
      const weight = arena.u8(bytes, "weight"), y = arena.f32(rows * cols, "y"), x = arena.f32(random(1).floats(40 * cols), "x");
      const ids = arena.i32(Array.from({ length: rows }, (_, i) => i), "ids");
      const extent = {
        format: context.formatId("q4o"),
        address: weight.address,
        bytes: BigInt(bytes.length),
        rows: BigInt(rows),
        cols: BigInt(cols),
        outliers: BigInt(outliers),
      };
      await assert.rejects(
        arena.run((ops) => run(ops, y.address, x.address, ids.address, extent)),
        /outlier sections .* corrupt/,
      );
      arena.check();
    });
  }
}
