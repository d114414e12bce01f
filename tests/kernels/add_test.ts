import { Arena, assertClose, assertSameBits, eachIsa, random } from "./reference.ts";

for (const count of [1, 3, 17, 255, 4095, 100_003]) {
  eachIsa(`add() is exact, and matches float64 with a factor, count=${count}, nmse<1e-14`, async (context) => {
    const numbers = random(count);
    using arena = new Arena(context);
    const y = arena.f32(numbers.floats(count), "y");
    const x = arena.f32(numbers.floats(count), "x");
    const expected = y.data.map((value, i) => value + x.data[i]);
    await arena.run((ops) => ops.add(y.address, x.address, count));
    assertSameBits(y.data, expected);
    const scaled = Float64Array.from(expected, (value, i) => value + Math.fround(-0.3) * x.data[i]);
    await arena.run((ops) => ops.add(y.address, x.address, count, -0.3));
    assertClose(y.data, scaled, 1e-14, "with a factor");
  });
}
