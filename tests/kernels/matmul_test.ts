import assert from "node:assert/strict";
import type { Context } from "../../lib/ffi/context.ts";
import type { Precision, WeightExtent } from "../../lib/ffi/ops.ts";
import { Arena, assertClose, assertSameBits, eachIsa, nmse, random, scaled } from "./reference.ts";
import { decodeExtent, type FormatName, FORMATS, randomExtent } from "./weight_formats.ts";

// Several tiles of rows and of columns, incomplete ones last.
const [ROWS, COLS] = [scaled(257), scaled(1056)];
const SHAPES = [
  [1, 1],
  [7, 1],
  [1, 7],
  [7, 33],
  [33, 63],
  [63, 64],
  [64, 65],
  [65, 100],
  [100, 257],
  [ROWS, COLS],
  [5, scaled(4100)],
];
const TOKENS = [1, 2, 3, 5, 8, 9, 17, 64, 130];
const MOST = 130;

interface Case {
  bytes: Uint8Array<ArrayBuffer>;
  outliers: number;
  x: Float32Array<ArrayBuffer>; // [MOST, cols]
  bias: Float32Array<ArrayBuffer>; // [rows]
  y: Float64Array; // [MOST, rows], bias included
}

const cases = new Map<string, Case>();

/** A case's data, made once for all instruction sets. */
function caseOf(format: FormatName, rows: number, cols: number): Case {
  const key = `${format} ${rows} ${cols}`;
  let known = cases.get(key);
  if (known) return known;
  const numbers = random(rows * 10007 + cols);
  const { bytes, outliers } = randomExtent(numbers, format, rows, cols);
  const weights = decodeExtent(format, bytes, rows, cols, outliers);
  const x = numbers.floats(MOST * cols), bias = numbers.floats(rows, 0.1), y = new Float64Array(MOST * rows);
  for (let t = 0; t < MOST; t++) {
    for (let r = 0; r < rows; r++) {
      let sum = bias[r];
      for (let c = 0; c < cols; c++) sum += x[t * cols + c] * weights[r * cols + c];
      y[t * rows + r] = sum;
    }
  }
  cases.set(key, known = { bytes, outliers, x, bias, y });
  return known;
}

function extentOf(
  context: Context,
  arena: Arena,
  format: FormatName,
  rows: number,
  cols: number,
  bytes: Uint8Array,
  outliers: number,
): WeightExtent {
  const weight = arena.u8(bytes, "weight");
  return {
    format: context.formatId(format),
    address: weight.address,
    bytes: BigInt(bytes.length),
    rows: BigInt(rows),
    cols: BigInt(cols),
    outliers: BigInt(outliers),
  };
}

/** Runs one product with strides wider than the rows and returns y [tokens, rows]; what lies between rows must stay as it was. */
async function multiply(
  context: Context,
  format: FormatName,
  rows: number,
  cols: number,
  tokens: number,
  precision: Precision,
  biased = true,
  values = caseOf(format, rows, cols).x,
) {
  const data = caseOf(format, rows, cols), xStride = cols + 3, yStride = rows + 5;
  using arena = new Arena(context);
  const weight = extentOf(context, arena, format, rows, cols, data.bytes, data.outliers);
  const padded = new Float32Array((tokens - 1) * xStride + cols).fill(NaN);
  for (let t = 0; t < tokens; t++) padded.set(values.subarray(t * cols, (t + 1) * cols), t * xStride);
  const x = arena.f32(padded, "x"), bias = arena.f32(data.bias, "bias"), y = arena.f32((tokens - 1) * yStride + rows, "y");
  await arena.run((ops) =>
    ops.matmul(y.address, yStride, x.address, xStride, tokens, weight, biased ? bias.address : 0n, false, precision)
  );
  const result = new Float32Array(tokens * rows);
  for (let t = 0; t < tokens; t++) {
    result.set(y.data.subarray(t * yStride, t * yStride + rows), t * rows);
    const between = y.data.subarray(t * yStride + rows, Math.min((t + 1) * yStride, y.data.length));
    assert(between.every(Number.isNaN), `y is written between rows, ${format} ${rows} x ${cols}, ${tokens} tokens`);
  }
  return result;
}

for (const format of FORMATS) {
  for (const precision of ["exact", "fast"] as const) {
    const tolerance = precision === "exact" ? 1e-11 : 6e-5;
    eachIsa(
      `matmul() ${precision} of ${format} matches float64, tokens 1..130, odd shapes and strides, nmse<${tolerance}`,
      async (context) => {
        for (const [rows, cols] of SHAPES) {
          for (const tokens of TOKENS) {
            const y = await multiply(context, format, rows, cols, tokens, precision);
            const expected = caseOf(format, rows, cols).y.subarray(0, tokens * rows);
            assertClose(y, expected, tolerance, `${rows} x ${cols}, ${tokens} tokens`);
          }
        }
      },
    );
  }

  eachIsa(`matmul() exact of ${format} gives a token the same whatever shares its pass, difference<=1e-6`, async (context) => {
    const [rows, cols] = [ROWS, COLS];
    const alone = await multiply(context, format, rows, cols, 1, "exact", false);
    for (const tokens of [2, 5, 8, 9, 17, 64, 130]) {
      const first = (await multiply(context, format, rows, cols, tokens, "exact", false)).subarray(0, rows);
      assert(Math.sqrt(nmse(first, alone)) <= 1e-6, `${tokens} tokens: ${Math.sqrt(nmse(first, alone))}`);
    }
  });
}

eachIsa(
  "matmul() fast of q8 and q4o keeps 8 bits of the activations with AVX-512, 16 elsewhere, nmse<6e-5, <1e-8",
  async (context) => {
    const { isa } = context.description;
    for (const format of ["q8", "q4o"] as const) {
      for (const tokens of [1, 2, 5, 8]) {
        const y = await multiply(context, format, ROWS, COLS, tokens, "fast");
        const bytes = isa === "avx512" || (isa === "amx" && tokens <= 2);
        assertClose(y, caseOf(format, ROWS, COLS).y.subarray(0, tokens * ROWS), bytes ? 6e-5 : 1e-8, `${tokens} tokens`);
      }
    }
  },
);

eachIsa("matmul() fast of q8 and q4o loses nothing of activations that are bytes times a scale, nmse<1e-10", async (context) => {
  // AMX and CUDA's tensor cores round many tokens to bfloat16.
  const { kind, isa } = context.description;
  const counts = kind === "cuda" || isa === "amx" ? [1, 2, 5, 8] : TOKENS;
  for (const format of ["q8", "q4o"] as const) {
    for (const [rows, cols] of [[7, 33], [13, 256], [ROWS, COLS]]) {
      const { bytes, outliers } = caseOf(format, rows, cols), numbers = random(cols);
      const weights = decodeExtent(format, bytes, rows, cols, outliers);
      // The column scale, which activations are multiplied by before they are rounded, lies behind the code table.
      const columnScale = (c: number) => format === "q4o" ? 2 ** ((bytes[64 + c] - 128) / 16) : 1;
      const x = Float32Array.from({ length: MOST * cols }, (_, i) => {
        const c = i % cols, integer = c % 32 === 0 ? 127 : numbers.integer(255) - 127;
        return integer * 2 ** ((Math.floor(i / cols) + Math.floor(c / 32)) % 5) / columnScale(c);
      });
      const y = new Float64Array(MOST * rows);
      for (let i = 0; i < y.length; i++) {
        const t = Math.floor(i / rows), r = i % rows;
        for (let c = 0; c < cols; c++) y[i] += x[t * cols + c] * weights[r * cols + c];
      }
      for (const tokens of counts) {
        const result = await multiply(context, format, rows, cols, tokens, "fast", false, x);
        assertClose(result, y.subarray(0, tokens * rows), 1e-10, `${format} ${rows} x ${cols}, ${tokens} tokens`);
      }
    }
  }
});

eachIsa("matmul() that continues a matrix gives the same bits, whatever used the scratch memory in between", async (context) => {
  const [rows, cols] = [ROWS, COLS];
  for (const format of ["q4o", "q8", "f16"] as const) {
    using arena = new Arena(context);
    const data = caseOf(format, rows, cols);
    const weight = extentOf(context, arena, format, rows, cols, data.bytes, data.outliers);
    const x = arena.f32(data.x, "x"), other = arena.f32(random(7).floats(data.x.length), "other x");
    const outputs = ["first", "second", "after another product", "other"].map((name) => arena.f32(MOST * rows, name));
    const [first, second, third, elsewhere] = outputs;
    for (const precision of ["exact", "fast"] as const) {
      for (const tokens of [1, 3, 20, 130]) {
        await arena.run((ops) => {
          const product = (y: typeof x, from: typeof x, count: number, continues: boolean) =>
            ops.matmul(y.address, rows, from.address, cols, count, weight, 0n, continues, precision);
          product(first, x, tokens, false);
          product(second, x, tokens, true);
          // What was prepared is gone: the library has to notice, since it alone knows what its operations need.
          product(elsewhere, other, tokens, false);
          product(third, x, tokens, true);
          product(elsewhere, x, 2, true);
        });
        const length = tokens * rows;
        for (const y of [second, third]) assertSameBits(y.data.subarray(0, length), first.data.subarray(0, length));
        await arena.run((ops) => ops.matmul(third.address, rows, x.address, cols, 2, weight, 0n, false, precision));
        assertSameBits(elsewhere.data.subarray(0, 2 * rows), third.data.subarray(0, 2 * rows));
      }
    }
  }
});

eachIsa("matmul() of q4o is right however unevenly outliers lie: none, some, all columns of a row", async (context) => {
  for (const [rows, cols] of [[9, 31], [70, 97], [150, 264]]) {
    const numbers = random(rows);
    const counts = (row: number) =>
      [0, cols, numbers.integer(cols), 2, 3, numbers.integer(9), cols - 1][(row * 5 + (row >> 4)) % 7];
    const { bytes, outliers } = randomExtent(numbers, "q4o", rows, cols, (row) => row < 16 ? cols : counts(row));
    const weights = decodeExtent("q4o", bytes, rows, cols, outliers);
    const x = numbers.floats(40 * cols), expected = new Float64Array(40 * rows);
    for (let i = 0; i < expected.length; i++) {
      const t = Math.floor(i / rows), r = i % rows;
      for (let c = 0; c < cols; c++) expected[i] += x[t * cols + c] * weights[r * cols + c];
    }
    using arena = new Arena(context);
    const weight = extentOf(context, arena, "q4o", rows, cols, bytes, outliers);
    const input = arena.f32(x, "x");
    for (const precision of ["exact", "fast"] as const) {
      for (const tokens of [1, 8, 9, 40]) {
        const y = arena.f32(tokens * rows, `y of ${tokens}`);
        await arena.run((ops) => ops.matmul(y.address, rows, input.address, cols, tokens, weight, 0n, false, precision));
        const tolerance = precision === "exact" ? 1e-11 : 6e-5;
        assertClose(y.data, expected.subarray(0, tokens * rows), tolerance, `${rows} x ${cols}, ${tokens} tokens, ${precision}`);
      }
    }
  }
});

eachIsa("matmul() refuses what it cannot do", async (context) => {
  using arena = new Arena(context);
  const data = caseOf("q4o", 33, 63);
  const weight = extentOf(context, arena, "q4o", 33, 63, data.bytes, data.outliers);
  const x = arena.f32(data.x.subarray(0, 126), "x"), y = arena.f32(66, "y");
  const refuses = (change: Partial<WeightExtent>, pattern: RegExp, xAddress = x.address, xStride = 63) =>
    assert.rejects(
      arena.run((ops) => ops.matmul(y.address, 33, xAddress, xStride, 2, { ...weight, ...change }, 0n, false, "exact")),
      pattern,
    );
  await Promise.all([
    refuses({ bytes: weight.bytes - 1n }, /has \d+ bytes, required \d+/),
    refuses({ rows: 1n << 62n }, /no valid shape/),
    refuses({ rows: 0n }, /no valid shape/),
    refuses({ cols: 65537n }, /no valid shape/),
    refuses({ format: 99 }, /format 99 is unknown/),
    refuses({ format: context.formatId("q8") }, /no valid shape/),
    refuses({ outliers: 1n << 40n }, /no valid shape/),
    refuses({}, /overlaps/, y.address),
    refuses({}, /strides/, x.address, 62),
  ]);
});
