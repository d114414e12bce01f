import { Arena, assertClose, eachIsa, random } from "./reference.ts";

for (const [rows, cols] of [[1, 1], [3, 3], [2, 17], [5, 64], [64, 128], [3, 4095]]) {
  eachIsa(`l2norm() matches float64, rows=${rows} cols=${cols}, nmse<1e-12`, async (context) => {
    const numbers = random(rows * 10000 + cols);
    using arena = new Arena(context);
    const x = arena.f32(numbers.floats(rows * cols, 3), "x"), y = arena.f32(rows * cols, "y");
    // A row of zeros stays zeros.
    x.data.fill(0, 0, cols);
    const expected = new Float64Array(rows * cols);
    for (let at = 0; at < rows * cols; at += cols) {
      let squares = 0;
      for (let c = 0; c < cols; c++) squares += x.data[at + c] ** 2;
      for (let c = 0; c < cols; c++) expected[at + c] = x.data[at + c] / Math.sqrt(squares + Math.fround(1e-6));
    }
    await arena.run((ops) => ops.l2norm(y.address, x.address, rows, cols, 1e-6));
    assertClose(y.data, expected, 1e-12);
    await arena.run((ops) => ops.l2norm(x.address, x.address, rows, cols, 1e-6));
    assertClose(x.data, expected, 1e-12, "in place");
  });
}
