import { Arena, assertClose, eachIsa, random } from "./reference.ts";

function reference(x: Float32Array, weight: Float32Array | undefined, rows: number, cols: number, eps: number): Float64Array {
  const y = new Float64Array(rows * cols);
  for (let r = 0; r < rows; r++) {
    let squares = 0;
    for (let c = 0; c < cols; c++) squares += x[r * cols + c] ** 2;
    const scale = 1 / Math.sqrt(squares / cols + Math.fround(eps));
    for (let c = 0; c < cols; c++) y[r * cols + c] = x[r * cols + c] * scale * (weight?.[c] ?? 1);
  }
  return y;
}

for (const [rows, cols] of [[1, 1], [3, 3], [2, 17], [5, 64], [1, 255], [7, 896], [3, 4095], [64, 4096]]) {
  eachIsa(`rmsnorm() matches float64, rows=${rows} cols=${cols}, nmse<1e-12`, async (context) => {
    const numbers = random(rows * 10000 + cols);
    using arena = new Arena(context);
    const x = arena.f32(numbers.floats(rows * cols, 3), "x");
    const weight = arena.f32(numbers.floats(cols), "weight");
    const y = arena.f32(rows * cols, "y");
    const expected = reference(x.data, weight.data, rows, cols, 1e-6);
    await arena.run((ops) => ops.rmsnorm(y.address, x.address, weight.address, rows, cols, 1e-6));
    assertClose(y.data, expected, 1e-12);
    await arena.run((ops) => ops.rmsnorm(y.address, x.address, 0n, rows, cols, 1e-6));
    assertClose(y.data, reference(x.data, undefined, rows, cols, 1e-6), 1e-12, "without weight");
    await arena.run((ops) => ops.rmsnorm(x.address, x.address, weight.address, rows, cols, 1e-6));
    assertClose(x.data, expected, 1e-12, "in place");
  });
}
