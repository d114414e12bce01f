import assert from "node:assert/strict";
import type { Context } from "../../lib/ffi/context.ts";
import type { WeightExtent } from "../../lib/ffi/ops.ts";
import { columnUnit } from "../../lib/shard/formats.ts";
import { PACKED_FORMATS, type PackedExtent, packedExtent, type PackedName } from "./packed_formats.ts";
import { Arena, assertClose, assertSameBits, eachIsa, random, scaled } from "./reference.ts";

/** Shapes for a format: rows that are whole blocks, and rows that are not where the format has that. */
function shapes(format: PackedName): [number, number][] {
  if (columnUnit(format) === 256) return [[1, 256], [7, 512], [33, 1024]];
  return [[1, 1], [7, 33], [33, 63], [64, 64], [65, 100], [130, 257], [3, 4128]];
}

function extentOf(
  context: Context,
  arena: Arena,
  format: PackedName,
  rows: number,
  cols: number,
  bytes: Uint8Array,
  shift = 0,
): WeightExtent {
  const shifted = new Uint8Array(shift + bytes.length);
  shifted.set(bytes, shift);
  return {
    format: context.formatId(format),
    address: arena.u8(shifted, "weight").address + BigInt(shift),
    bytes: BigInt(bytes.length),
    rows: BigInt(rows),
    cols: BigInt(cols),
    outliers: 0n,
  };
}

const known = new Map<string, PackedExtent>();

/** An extent, made once for all instruction sets. */
function made(format: PackedName, rows: number, cols: number): PackedExtent {
  const key = `${format} ${rows} ${cols}`;
  if (!known.has(key)) known.set(key, packedExtent(random(rows * 10007 + cols), format, rows, cols));
  return known.get(key)!;
}

for (const format of PACKED_FORMATS) {
  eachIsa(`dequantize() and embedding() of ${format} match an independent decoder to the bit, odd shapes`, async (context) => {
    for (const [rows, cols] of shapes(format)) {
      const { bytes, weights } = made(format, rows, cols);
      const ids = [rows - 1, 0, rows >> 1, 0];
      using arena = new Arena(context);
      const weight = extentOf(context, arena, format, rows, cols, bytes);
      const y = arena.f32(rows * cols, "y"), gathered = arena.f32(ids.length * cols, "gathered"), tokens = arena.i32(ids, "ids");
      await arena.run((ops) => {
        ops.dequantize(y.address, weight);
        ops.embedding(gathered.address, weight, tokens.address, ids.length);
      });
      assertSameBits(y.data, weights, `${rows} x ${cols}`);
      ids.forEach((id, i) =>
        assertSameBits(gathered.data.subarray(i * cols, (i + 1) * cols), weights.subarray(id * cols, (id + 1) * cols), `id ${id}`)
      );
    }
  });

  eachIsa(`matmul() of ${format} matches float64, tokens 1..70, odd shapes, nmse<1e-11 exact, <2e-5 fast`, async (context) => {
    const large: [number, number] = [scaled(129), columnUnit(format) === 256 ? 1280 : scaled(1120)];
    for (const [rows, cols] of [...shapes(format).slice(1, 5), large]) {
      const { bytes, weights } = made(format, rows, cols);
      const most = 70, numbers = random(3), data = numbers.floats(most * cols);
      const expected = new Float64Array(most * rows);
      for (let t = 0; t < most; t++) {
        for (let r = 0; r < rows; r++) {
          for (let c = 0; c < cols; c++) expected[t * rows + r] += data[t * cols + c] * weights[r * cols + c];
        }
      }
      for (const [precision, tolerance] of [["exact", 1e-11], ["fast", 2e-5]] as const) {
        for (const tokens of [1, 2, 5, 9, 70]) {
          using arena = new Arena(context);
          // Once as little aligned as the header asks: then weights cannot be read 16 bytes at a time.
          const weight = extentOf(context, arena, format, rows, cols, bytes, tokens === 2 ? 4 : 0);
          const x = arena.f32(data.subarray(0, tokens * cols), "x"), y = arena.f32(tokens * rows, "y");
          await arena.run((ops) => ops.matmul(y.address, rows, x.address, cols, tokens, weight, 0n, false, precision));
          assertClose(
            y.data,
            expected.subarray(0, tokens * rows),
            tolerance,
            `${rows} x ${cols}, ${tokens} tokens, ${precision}`,
          );
        }
      }
    }
  });
}

eachIsa("packed extents that are too short, of a wrong width or with outliers are refused", async (context) => {
  using arena = new Arena(context);
  const { bytes } = made("q4_k", 7, 512), weight = extentOf(context, arena, "q4_k", 7, 512, bytes), y = arena.f32(7 * 512, "y");
  const refuses = (change: Partial<WeightExtent>, pattern: RegExp) =>
    assert.rejects(arena.run((ops) => ops.dequantize(y.address, { ...weight, ...change })), pattern);
  await refuses({ bytes: weight.bytes - 1n }, /the q4_k extent of 7 x 512 has \d+ bytes, required \d+/);
  await refuses({ cols: 500n }, /7 x 500 .* no valid shape of a q4_k extent/);
  await refuses({ outliers: 1n }, /no valid shape/);
  await refuses({ rows: 1n << 60n }, /no valid shape/);
  await refuses({ format: weight.format + (1 << 25) }, /is unknown/);
});
