import { Arena, assertSameBits, eachIsa, random } from "./reference.ts";

for (const count of [1, 3, 17, 255, 4095, 100_003]) {
  eachIsa(`add() is exact, count=${count}`, async (context) => {
    const numbers = random(count);
    using arena = new Arena(context);
    const y = arena.f32(numbers.floats(count), "y");
    const x = arena.f32(numbers.floats(count), "x");
    const expected = y.data.map((value, i) => value + x.data[i]);
    await arena.run((ops) => ops.add(y.address, x.address, count));
    assertSameBits(y.data, expected);
  });
}
