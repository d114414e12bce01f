import { Arena, assertClose, eachIsa, random } from "./reference.ts";

for (
  const [tokens, heads, headDim, rotaryDim] of [
    [1, 1, 2, 2],
    [3, 2, 20, 20],
    [2, 3, 80, 32],
    [5, 4, 96, 96],
    [17, 32, 128, 128],
    [
      2,
      1,
      255,
      34,
    ],
  ]
) {
  eachIsa(
    `rope() matches float64, tokens=${tokens} heads=${heads} headDim=${headDim} rotaryDim=${rotaryDim}, nmse<1e-13`,
    async (context) => {
      const numbers = random(tokens + headDim);
      const half = rotaryDim / 2;
      using arena = new Arena(context);
      const x = arena.f32(numbers.floats(tokens * heads * headDim), "x");
      const angles = numbers.floats(tokens * half, 3);
      const cos = arena.f32(angles.map(Math.cos), "cos");
      const sin = arena.f32(angles.map(Math.sin), "sin");
      const expected = Float64Array.from(x.data);
      for (let t = 0; t < tokens; t++) {
        for (let h = 0; h < heads; h++) {
          const at = (t * heads + h) * headDim;
          for (let i = 0; i < half; i++) {
            const [a, b, c, s] = [x.data[at + i], x.data[at + half + i], cos.data[t * half + i], sin.data[t * half + i]];
            expected[at + i] = a * c - b * s;
            expected[at + half + i] = b * c + a * s;
          }
        }
      }
      await arena.run((ops) => ops.rope(x.address, cos.address, sin.address, tokens, heads, headDim, rotaryDim));
      assertClose(x.data, expected, 1e-13);
    },
  );
}
