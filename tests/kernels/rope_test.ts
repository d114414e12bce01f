import assert from "node:assert/strict";
import { NativeError } from "../../lib/errors.ts";
import type { RopeLayout } from "../../lib/ffi/ops.ts";
import { Arena, assertClose, eachIsa, random } from "./reference.ts";

const SHAPES: (RopeLayout & { tokens: number })[] = [
  [1, 1, 2, 0, 2, 0],
  [3, 2, 20, 0, 20, 0],
  [2, 3, 80, 0, 32, 0],
  [5, 4, 96, 0, 96, 0],
  [17, 32, 128, 0, 128, 0],
  [2, 1, 255, 0, 34, 0],
  [3, 2, 192, 128, 64, 0],
  [4, 1, 64, 0, 64, 512],
  [5, 3, 37, 3, 18, 11],
].flatMap(([tokens, heads, headDim, first, rotaryDim, between]) =>
  [false, true].map((interleaved) => ({
    tokens,
    heads,
    headDim,
    first,
    rotaryDim,
    stride: heads * headDim + between,
    interleaved,
  }))
);

for (const { tokens, ...layout } of SHAPES) {
  const { stride, heads, headDim, first, rotaryDim, interleaved } = layout;
  const shape = `tokens=${tokens} heads=${heads} headDim=${headDim} first=${first} rotaryDim=${rotaryDim} stride=${stride}`;
  eachIsa(`rope() ${interleaved ? "of pairs" : "of halves"} matches float64, ${shape}, nmse<1e-13`, async (context) => {
    const numbers = random(tokens + headDim);
    const half = rotaryDim / 2;
    using arena = new Arena(context);
    const x = arena.f32(numbers.floats((tokens - 1) * stride + heads * headDim), "x");
    const angles = numbers.floats(tokens * half, 3);
    const cos = arena.f32(angles.map(Math.cos), "cos");
    const sin = arena.f32(angles.map(Math.sin), "sin");
    const expected = Float64Array.from(x.data);
    for (let t = 0; t < tokens; t++) {
      for (let h = 0; h < heads; h++) {
        const at = t * stride + h * headDim + first;
        for (let i = 0; i < half; i++) {
          const p = at + (interleaved ? 2 * i : i), q = interleaved ? p + 1 : p + half;
          const [a, b, c, s] = [x.data[p], x.data[q], cos.data[t * half + i], sin.data[t * half + i]];
          expected[p] = a * c - b * s;
          expected[q] = b * c + a * s;
        }
      }
    }
    await arena.run((ops) => ops.rope(x.address, cos.address, sin.address, tokens, layout));
    assertClose(x.data, expected, 1e-13);
  });
}

for (
  const [change, message] of [
    [{ stride: 7 }, /x_stride is 7, required is at least 8/],
    [{ first: 3 }, /first is 3, required is at most 2/],
    [{ rotaryDim: 1 }, /rotary_dim is 1/],
  ] as [Partial<RopeLayout>, RegExp][]
) {
  eachIsa(`rope() refuses ${JSON.stringify(change)}`, async (context) => {
    using arena = new Arena(context);
    const x = arena.f32(random(1).floats(64), "x");
    const layout = { stride: 8, heads: 2, headDim: 4, first: 0, rotaryDim: 2, interleaved: false, ...change };
    await assert.rejects(
      arena.run((ops) => ops.rope(x.address, x.address, x.address, 2, layout)),
      (error) => error instanceof NativeError && message.test(error.message),
    );
  });
}
