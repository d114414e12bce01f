import { Arena, assertClose, eachIsa, random } from "./reference.ts";

function reference(
  x: Float32Array,
  weight: Float32Array | undefined,
  bias: Float32Array | undefined,
  cols: number,
  eps: number,
  weightRows = 1,
) {
  const y = new Float64Array(x.length);
  for (let at = 0; at < x.length; at += cols) {
    const row = Float64Array.from(x.subarray(at, at + cols));
    const mean = row.reduce((sum, v) => sum + v, 0) / cols;
    const scale = 1 / Math.sqrt(row.reduce((sum, v) => sum + (v - mean) ** 2, 0) / cols + Math.fround(eps));
    const own = (at / cols) % weightRows * cols;
    for (let c = 0; c < cols; c++) y[at + c] = (row[c] - mean) * scale * (weight?.[own + c] ?? 1) + (bias?.[own + c] ?? 0);
  }
  return y;
}

for (const [rows, cols] of [[1, 1], [3, 3], [2, 17], [5, 64], [1, 255], [7, 896], [3, 4095], [64, 4096]]) {
  eachIsa(`layernorm() matches float64, rows=${rows} cols=${cols}, nmse<1e-11`, async (context) => {
    const numbers = random(rows * 10000 + cols);
    using arena = new Arena(context);
    // A mean much larger than the spread: a variance from the mean of squares would be noise.
    const x = arena.f32(numbers.floats(rows * cols, 3).map((v) => v + 40), "x");
    const weight = arena.f32(numbers.floats(cols), "weight"), bias = arena.f32(numbers.floats(cols), "bias");
    const y = arena.f32(rows * cols, "y");
    for (const [w, b] of [[weight, bias], [weight, undefined], [undefined, bias], [undefined, undefined]]) {
      const expected = reference(x.data, w?.data, b?.data, cols, 1e-5);
      await arena.run((ops) => ops.layernorm(y.address, x.address, w?.address ?? 0n, b?.address ?? 0n, rows, cols, 1e-5));
      // The mean of numbers near 40 is off by about 2^-24 of 40.
      assertClose(y.data, expected, 1e-11, `weight ${w !== undefined}, bias ${b !== undefined}`);
    }
    const expected = reference(x.data, weight.data, bias.data, cols, 1e-5);
    await arena.run((ops) => ops.layernorm(x.address, x.address, weight.address, bias.address, rows, cols, 1e-5));
    assertClose(x.data, expected, 1e-11, "in place");
  });
}

for (const [weightRows, rows, cols] of [[2, 2, 8], [3, 12, 12], [8, 40, 160]]) {
  eachIsa(`layernorm() gives rows ${weightRows} weights in turn, rows=${rows} cols=${cols}, nmse<1e-11`, async (context) => {
    const numbers = random(weightRows * 1000 + cols);
    using arena = new Arena(context);
    const x = arena.f32(numbers.floats(rows * cols, 3), "x"), y = arena.f32(rows * cols, "y");
    const weight = arena.f32(numbers.floats(weightRows * cols), "weight"),
      bias = arena.f32(numbers.floats(weightRows * cols), "bias");
    for (const [w, b] of [[weight, bias], [weight, undefined], [undefined, bias]]) {
      const expected = reference(x.data, w?.data, b?.data, cols, 1e-5, weightRows);
      await arena.run((ops) =>
        ops.layernorm(y.address, x.address, w?.address ?? 0n, b?.address ?? 0n, rows, cols, 1e-5, weightRows)
      );
      assertClose(y.data, expected, 1e-11, `weight ${w !== undefined}, bias ${b !== undefined}`);
    }
  });
}
