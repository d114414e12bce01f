import assert from "node:assert/strict";
import { AIRK_BF16, AIRK_F16, AIRK_F32 } from "../../lib/ffi/abi.ts";
import type { Context } from "../../lib/ffi/context.ts";
import { quantizedBytesBound, type QuantizedExtent, quantizeRows, trainQuantizer } from "../../lib/ffi/quantize.ts";
import { eachIsa, fromBf16, fromF16, openContext, random, toBf16, toF16 } from "./reference.ts";
import { decodeExtent, type FormatName, FORMATS, sections } from "./weight_formats.ts";

const bytesOf = (values: Float32Array<ArrayBuffer> | Uint16Array<ArrayBuffer>) =>
  new Uint8Array(values.buffer, values.byteOffset, values.byteLength);

/** Trains and quantizes a whole tensor; returns what was written and its bytes. */
async function quantize(context: Context, name: FormatName, values: Float32Array<ArrayBuffer>, rows: number, cols: number) {
  const format = context.formatId(name);
  const parameters = await trainQuantizer(context, format, bytesOf(values), AIRK_F32, rows, cols);
  const capacity = quantizedBytesBound(context, format, rows, cols);
  // Nothing may be written past the bound.
  const memory = new Uint8Array(capacity + 64).fill(0xa5);
  const result = await quantizeRows(
    context,
    format,
    bytesOf(values),
    AIRK_F32,
    rows,
    cols,
    parameters,
    memory.subarray(0, capacity),
  );
  assert(memory.subarray(capacity).every((byte) => byte === 0xa5), "written past the extent");
  assert.equal(result.bytes, sections(name, rows, cols, result.outliers).bytes);
  return { ...result, extent: memory.slice(0, result.bytes) };
}

function errorsOf(values: ArrayLike<number>, decoded: Float64Array): { weights: number; errors: number } {
  let weights = 0, errors = 0;
  for (let i = 0; i < values.length; i++) {
    weights += values[i] ** 2;
    errors += (values[i] - Math.fround(decoded[i])) ** 2;
  }
  return { weights, errors };
}

const decibels = ({ squaredWeights, squaredErrors }: QuantizedExtent) => 10 * Math.log10(squaredWeights / squaredErrors);

/** Student's t with 6 degrees of freedom, row and column magnitudes that differ, as in trained models. */
function modelLike(seed: number, rows: number, cols: number): Float32Array<ArrayBuffer> {
  const numbers = random(seed);
  const row = numbers.floats(rows).map((x) => Math.exp(0.3 * x)), column = numbers.floats(cols).map((x) => Math.exp(0.2 * x));
  return Float32Array.from({ length: rows * cols }, (_, i) => {
    let chi = 0;
    for (let k = 0; k < 6; k++) chi += numbers.normal() ** 2;
    return 0.02 * row[Math.floor(i / cols)] * column[i % cols] * numbers.normal() / Math.sqrt(chi / 6);
  });
}

const LEAST_DECIBELS: Record<FormatName, number> = { f32: Infinity, f16: 65, bf16: 48, q8: 42, nf4: 19, q4o: 21.5 };

for (const name of FORMATS) {
  eachIsa(
    `quantize() to ${name}: at least ${LEAST_DECIBELS[name]} dB, statistics equal recomputed ones within 1e-5`,
    async (context) => {
      for (const [rows, cols] of [[130, 256], [65, 100], [3, 33]]) {
        const values = modelLike(rows, rows, cols);
        const result = await quantize(context, name, values, rows, cols);
        const { weights, errors } = errorsOf(values, decodeExtent(name, result.extent, rows, cols, result.outliers));
        assert(Math.abs(result.squaredWeights / weights - 1) < 1e-9);
        assert(
          Math.abs(result.squaredErrors - errors) <= 1e-5 * errors + 1e-13 * weights,
          `${result.squaredErrors}, recomputed ${errors}`,
        );
        assert(rows < 64 || !(decibels(result) < LEAST_DECIBELS[name]), `${decibels(result)} dB`);
      }
    },
  );

  eachIsa(
    `quantize() to ${name} survives zero rows, constants, tiny and huge weights, 40 dB apart from 4-bit steps`,
    async (context) => {
      const rows = 12, cols = 70;
      for (const magnitude of name === "f16" ? [1e-6, 1, 6e4] : [1e-30, 1, 1e30]) {
        const values = random(5).floats(rows * cols).map((x) => x * 0.3 * magnitude);
        values.fill(0, 0, 2 * cols);
        values.fill(magnitude, 2 * cols, 3 * cols);
        values.fill(-magnitude, 3 * cols, 4 * cols);
        values.fill(0, 4 * cols, 4 * cols + 32);
        values.fill(0, 5 * cols + 32, 6 * cols);
        for (let r = 0; r < rows; r++) values[r * cols + 40] = 0;
        const result = await quantize(context, name, values, rows, cols);
        const decoded = decodeExtent(name, result.extent, rows, cols, result.outliers);
        for (let i = 0; i < 2 * cols; i++) assert(Math.abs(decoded[i]) === 0, `a zero row decodes to ${decoded[i]}`);
        for (let i = 2 * cols; i < 4 * cols; i++) {
          if (i % cols !== 40) assert(Math.abs(decoded[i] / values[i] - 1) < 0.1, `${values[i]} decodes to ${decoded[i]}`);
        }
        const scaled = values.map((x) => x / magnitude),
          { weights, errors } = errorsOf(scaled, decoded.map((x) => x / magnitude));
        const db = 10 * Math.log10(weights / errors);
        assert(db > (name === "nf4" || name === "q4o" ? 19 : name === "f16" ? 20 : 40), `${db} dB at ${magnitude}`);
      }
    },
  );

  eachIsa(`quantize() to ${name} reports the first weight that is not finite`, async (context) => {
    for (const bad of [NaN, Infinity, -Infinity]) {
      const values = random(6).floats(9 * 65);
      values[4 * 65 + 64] = bad;
      values[7 * 65] = bad;
      const format = context.formatId(name), extent = new Uint8Array(quantizedBytesBound(context, format, 9, 65));
      const parameters = await trainQuantizer(context, format, bytesOf(random(6).floats(9 * 65)), AIRK_F32, 9, 65);
      await assert.rejects(
        quantizeRows(context, format, bytesOf(values), AIRK_F32, 9, 65, parameters, extent),
        /row 4, column 64 is NaN, infinite/,
      );
      if (name === "q4o") {
        await assert.rejects(trainQuantizer(context, format, bytesOf(values), AIRK_F32, 9, 65), /row 4, column 64/);
      }
    }
  });

  Deno.test(`quantize() to ${name} gives the same bytes with 1, 2 and 5 threads`, async () => {
    const values = modelLike(7, 300, 200), results = [];
    for (const threads of [1, 2, 5]) {
      using context = openContext({ threads });
      results.push(await quantize(context, name, values, 300, 200));
    }
    for (const result of results.slice(1)) assert.deepEqual(result, results[0]);
  });

  Deno.test(`quantize() to ${name} reads f16 and bf16 as the same numbers in f32`, async () => {
    using context = openContext();
    for (const [type, to, from] of [[AIRK_F16, toF16, fromF16], [AIRK_BF16, toBf16, fromBf16]] as const) {
      const short = Uint16Array.from(random(8).floats(40 * 65), to), long = Float32Array.from(short, from);
      const format = context.formatId(name), capacity = quantizedBytesBound(context, format, 40, 65);
      const extents = [];
      for (const [source, sourceType] of [[bytesOf(short), type], [bytesOf(long), AIRK_F32]] as const) {
        const parameters = await trainQuantizer(context, format, source, sourceType, 40, 65);
        const extent = new Uint8Array(capacity);
        await quantizeRows(context, format, source, sourceType, 40, 65, parameters, extent);
        extents.push(extent);
      }
      assert.deepEqual(extents[0], extents[1]);
    }
  });
}

Deno.test("quantize() to f16 reports a finite weight that overflows", async () => {
  using context = openContext();
  const values = Float32Array.from([1, 65504, 65519, 65520]);
  await assert.rejects(quantize(context, "f16", values, 2, 2), /row 1, column 1/);
});

Deno.test("quantize() to q8 clips nothing: every error is at most half a step", async () => {
  using context = openContext();
  const values = modelLike(9, 64, 320), result = await quantize(context, "q8", values, 64, 320);
  const decoded = decodeExtent("q8", result.extent, 64, 320, 0), view = new DataView(result.extent.buffer);
  values.forEach((value, i) => {
    const scale = fromBf16(view.getUint16(Math.floor(i / 32) * 2, true));
    assert(Math.abs(value - decoded[i]) <= scale * 0.500001);
  });
});

Deno.test("quantize() to q4o beats nf4 by 2 dB on model-like weights with at most 4.4 bits, 0.5% outliers", async () => {
  using context = openContext();
  const rows = 512, cols = 512, values = modelLike(10, rows, cols);
  const q4o = await quantize(context, "q4o", values, rows, cols), nf4 = await quantize(context, "nf4", values, rows, cols);
  assert(decibels(q4o) > decibels(nf4) + 2, `${decibels(q4o)} dB, nf4 ${decibels(nf4)} dB`);
  assert(q4o.bytes * 8 / (rows * cols) < 4.4);
  assert(q4o.outliers > 0 && q4o.outliers <= rows * cols / 200);
});

Deno.test("quantize() to q4o scales no column of weights that are alike", async () => {
  using context = openContext();
  const parameters = await trainQuantizer(
    context,
    context.formatId("q4o"),
    bytesOf(random(11).floats(256 * 512)),
    AIRK_F32,
    256,
    512,
  );
  for (const u of parameters.subarray(16)) assert(Math.abs(u - 128) <= 1, `column scale ${u}`);
});

Deno.test("quantize() to q4o finds the scales of columns that differ, within half a step of 2^(1/16) on average", async () => {
  using context = openContext();
  const rows = 512, cols = 128, numbers = random(12);
  const values = Float32Array.from({ length: rows * cols }, (_, i) => numbers.normal() * 2 ** (i % cols % 9 / 4 - 1));
  const parameters = await trainQuantizer(context, context.formatId("q4o"), bytesOf(values), AIRK_F32, rows, cols);
  let error = 0, mean = 0;
  for (let c = 0; c < cols; c++) mean += (parameters[16 + c] - 16 * (c % 9 / 4 - 1)) / cols;
  for (let c = 0; c < cols; c++) error += Math.abs(parameters[16 + c] - 16 * (c % 9 / 4 - 1) - mean) / cols;
  assert(error < 0.6, `mean deviation ${error}`);
});

Deno.test("quantize() refuses wrong parameters and an extent that is too small", async () => {
  using context = openContext();
  const values = bytesOf(random(13).floats(64)), format = context.formatId("q4o");
  const parameters = await trainQuantizer(context, format, values, AIRK_F32, 1, 64), extent = new Uint8Array(4096);
  await assert.rejects(
    quantizeRows(context, format, values, AIRK_F32, 1, 64, parameters.subarray(1), extent),
    /79 bytes of parameters, required 80/,
  );
  await assert.rejects(
    quantizeRows(context, format, values, AIRK_F32, 1, 64, parameters, extent.subarray(0, 100)),
    /may have 100 bytes/,
  );
  await assert.rejects(quantizeRows(context, format, values, 9, 1, 64, parameters, extent), /element type 9/);
  await assert.rejects(quantizeRows(context, format, values, AIRK_F32, 0, 64, parameters, extent), /no valid shape/);
  await assert.rejects(
    quantizeRows(context, format, values, AIRK_F32, 1, 64, parameters.slice().fill(1), extent),
    /does not ascend/,
  );
});

Deno.test("quantize() stops when it is cancelled, and works again afterwards", async () => {
  using context = openContext();
  const values = modelLike(14, 64, 64);
  context.cancel(true);
  await assert.rejects(quantize(context, "q4o", values, 64, 64), /cancelled/);
  await assert.rejects(quantize(context, "q8", values, 64, 64), /cancelled/);
  context.cancel(false);
  await quantize(context, "q4o", values, 64, 64);
});

interface Encoded {
  dtype: string;
  shape: number[];
  data: string;
}
interface Nf4Fixture {
  made_with: { bitsandbytes: string };
  cases: { shape: [number, number]; input: Encoded; packed: Encoded; absmax: Encoded; dequantized: Encoded }[];
}

const decodeBase64 = (text: string) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));

Deno.test("quantize() to nf4 gives the bytes of bitsandbytes, codes and absmax bit for bit", async () => {
  const fixture: Nf4Fixture = JSON.parse(await Deno.readTextFile(new URL("../fixtures/nf4/nf4.json", import.meta.url)));
  using context = openContext();
  for (const { shape: [rows, cols], input, packed, absmax, dequantized } of fixture.cases) {
    const types: Record<string, number> = { f32: AIRK_F32, f16: AIRK_F16, bf16: AIRK_BF16 };
    const format = context.formatId("nf4"), extent = new Uint8Array(quantizedBytesBound(context, format, rows, cols));
    await quantizeRows(context, format, decodeBase64(input.data), types[input.dtype], rows, cols, new Uint8Array(0), extent);
    const at = sections("nf4", rows, cols, 0), blocks = Math.ceil(rows * cols / 64);
    assert.deepEqual(extent.slice(0, blocks * 4), decodeBase64(absmax.data), `absmax of ${rows} x ${cols} ${input.dtype}`);
    assert.deepEqual(extent.slice(at.code), decodeBase64(packed.data), `codes of ${rows} x ${cols} ${input.dtype}`);
    if (dequantized.dtype === "f32") {
      const expected = new Float32Array(decodeBase64(dequantized.data).buffer);
      const decoded = Float32Array.from(decodeExtent("nf4", extent, rows, cols, 0));
      assert.deepEqual(decoded, expected);
    }
  }
});

Deno.test("quantize() to nf4 gives a zero block code 7 and absmax 0", async () => {
  using context = openContext();
  const { extent } = await quantize(context, "nf4", new Float32Array(65), 1, 65);
  assert.deepEqual(extent, Uint8Array.from({ length: 64 + 33 }, (_, i) => i < 64 ? 0 : 0x77));
});

Deno.test("quantize() to nf4 changes codes within two float32 steps of the library's thresholds", async () => {
  using context = openContext();
  const thresholds = [[-0.8480964004993439, 0], [-0.045525018125772476, 6], [0.03979014977812767, 7], [0.8614784181118011, 14]];
  const values = Float32Array.from({ length: 64 }, () => 1), bits = new Int32Array(values.buffer);
  thresholds.forEach(([threshold], i) => {
    values.set([threshold, threshold], 2 * i);
    bits[2 * i] -= 2 * Math.sign(threshold);
    bits[2 * i + 1] += 2 * Math.sign(threshold);
  });
  const { extent } = await quantize(context, "nf4", values, 1, 64);
  thresholds.forEach(([, lower], i) => assert.equal(extent[64 + i], lower << 4 | lower + 1));
});
