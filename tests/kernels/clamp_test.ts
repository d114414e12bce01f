import { Arena, assertSameBits, eachIsa, random } from "./reference.ts";

for (const count of [1, 3, 17, 255, 4095, 100_003]) {
  eachIsa(`clamp() is exact, count=${count}`, async (context) => {
    using arena = new Arena(context);
    const x = arena.f32(random(count).floats(count, 20), "x"), y = arena.f32(count, "y");
    const limit = Math.fround(7.3);
    if (count > 3) x.data.set([Infinity, -Infinity, NaN, limit]);
    const expected = x.data.map((v) => v > limit ? limit : v < -limit ? -limit : v);
    await arena.run((ops) => ops.clamp(y.address, x.address, count, limit));
    assertSameBits(y.data, expected);
    await arena.run((ops) => ops.clamp(x.address, x.address, count, limit));
    assertSameBits(x.data, expected);
  });
}
